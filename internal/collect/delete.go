package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/index"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// deleteReleases deletes the releases that no rule retains, the oldest first,
// so that a chain never has a hole. It runs before any pack is condemned: a
// deleted release cannot be published again.
func (g *gc) deleteReleases(ctx context.Context, channels []*channel) error {
	for _, c := range channels {
		if err := g.fenceDeletes(ctx, c); err != nil {
			return err
		}
		numbers := slices.Concat(c.expired, c.dead)
		slices.Sort(numbers)
		for i, n := range numbers {
			key := repo.ReleaseKey(c.scope, trust.ReleaseNumber(n))
			if err := g.r.Store().Delete(ctx, key); err != nil {
				return err
			}
			g.emitEvent(Event{Phase: "delete releases", Key: key, Done: int64(i + 1), Total: int64(len(numbers))})
		}
	}
	return nil
}

// fenceDeletes signs the head again before gc deletes packs that an unfinished release
// above the head may need. A push that was suspended for longer than the grace
// period then finds a different head than the one it wants to replace, and
// fails.
func (g *gc) fenceDeletes(ctx context.Context, c *channel) error {
	if g.o.Key == nil || c.name == "" || !c.above {
		return nil
	}
	_, err := g.r.Publisher(g.o.Key).Renew(ctx, c.name, c.keep[0].Number, c.keep[0].Digest)
	if errors.Is(err, repo.ErrConflict) {
		return nil // another has moved the head meanwhile
	}
	return err
}

// condemnPacks writes the verdicts into the index root.
func (g *gc) condemnPacks(ctx context.Context, p *plan) error {
	doomed := slices.Clone(p.condemn)
	for _, v := range p.victims {
		doomed = append(doomed, g.x.Packs()[v])
	}
	if len(doomed) == 0 && len(p.revive) == 0 {
		return nil
	}
	g.emitEvent(Event{Phase: "condemn", Total: int64(len(doomed))})
	for {
		var since clock.Store
		x, err := g.r.ReplaceRoot(ctx, func(root *index.Root, now clock.Store) error {
			if !slices.Equal(root.Condemned, g.expect) {
				return ErrBusy
			}
			since = now
			root.Condemned = newCondemned(g.expect, doomed, p.revive, now)
			return nil
		})
		if err != nil {
			return err
		}
		g.expect = x.Root().Condemned
		if x.Date().Sub(since) <= g.grace/4 {
			return nil
		}
		// The write took so long that pushes that began meanwhile would have
		// less than the grace period: count the grace from here.
	}
}

// newCondemned returns the condemned packs after a run: the earlier ones without
// the revived ones, and the newly doomed ones, condemned at now, rounded up.
func newCondemned(before []index.Condemned, doomed []index.Pack, revive map[digest.Digest]bool, now clock.Store) []index.Condemned {
	fresh := map[digest.Digest]bool{}
	for _, pk := range doomed {
		fresh[pk.Digest] = true
	}
	out := slices.DeleteFunc(slices.Clone(before), func(c index.Condemned) bool { return revive[c.Pack] || fresh[c.Pack] })
	for d := range fresh {
		out = append(out, index.Condemned{Pack: d, Since: now.Unix() + 1})
	}
	slices.SortFunc(out, func(a, b index.Condemned) int { return a.Pack.Compare(b.Pack) })
	return out
}

// deletePacks removes from the index the packs whose grace has ended and that are still dead. It then deletes them and
// the leftovers.
//
// The index root is replaced after the packs were listed and before the names in it are looked up. A push that was
// about to name a listed pack must therefore read the root again. It then finds that the pack is too old.
func (g *gc) deletePacks(ctx context.Context, p *plan) error {
	if len(p.drop) == 0 && len(g.findLeftovers(g.namedBy(g.x), g.x.Root(), nil)) == 0 {
		return nil
	}
	g.emitEvent(Event{Phase: "forget", Total: int64(len(p.drop))})
	x, err := g.segs.Forget(ctx, p.drop, func(root *index.Root) error {
		if !slices.Equal(root.Condemned, g.expect) {
			return ErrBusy
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take dead packs out of the index: %w", err)
	}
	known, err := g.segs.Known(ctx, x)
	if err != nil {
		return err
	}
	named := map[digest.Digest]bool{}
	for d := range known.Packs() {
		named[d] = true
	}
	if err := known.Close(); err != nil {
		return err
	}
	var dead []doomed
	for d := range p.drop {
		if o, ok := g.packs[d]; ok && !named[d] {
			dead = append(dead, doomed{repo.PackKey(d), o.size})
			g.rep.Deleted++
			g.rep.DeletedBytes += o.size
		}
	}
	left := g.findLeftovers(named, x.Root(), p.drop)
	for _, o := range left {
		g.rep.Leftovers++
		g.rep.LeftoverBytes += o.size
	}
	if err := g.deleteAll(ctx, "delete packs", append(dead, left...)); err != nil {
		return err
	}
	return g.segs.Prune(x.Root())
}

func (g *gc) namedBy(x *repo.Index) map[digest.Digest]bool {
	named := map[digest.Digest]bool{}
	for _, pk := range x.Packs() {
		named[pk.Digest] = true
	}
	return named
}

// doomed is an object to delete.
type doomed struct {
	key  string
	size int64
}

// findLeftovers returns the packs and segments that no index names and that are
// older than the grace period. They come from pushes and merges that died or
// lost a race, or from a gc that ended early. Packs come before segments. If
// chunks are lost, it returns none: fsck --rebuild-index may find the chunks
// there.
func (g *gc) findLeftovers(named map[digest.Digest]bool, root *index.Root, drop map[digest.Digest]bool) (out []doomed) {
	if g.rep.Lost > 0 {
		return nil
	}
	for d, o := range g.packs {
		if !named[d] && !drop[d] && !g.isYoung(o.modified, g.grace) {
			out = append(out, doomed{repo.PackKey(d), o.size})
		}
	}
	for _, ref := range root.Segments {
		delete(g.segments, ref.Digest)
	}
	for d, o := range g.segments {
		if !g.isYoung(o.modified, g.grace) {
			out = append(out, doomed{repo.SegmentKey(d), o.size})
		}
	}
	slices.SortFunc(out, func(a, b doomed) int { return cmp.Compare(b.key, a.key) })
	return out
}

// deleteAll deletes several objects at once. If one deletion fails, it starts
// no more and waits for those under way.
func (g *gc) deleteAll(ctx context.Context, phase string, all []doomed) error {
	var mu sync.Mutex
	var done int64
	var group errgroup.Group
	group.SetLimit(g.o.Connections)
	var failed []error
	for _, o := range all {
		mu.Lock()
		stop := len(failed) > 0 || ctx.Err() != nil
		mu.Unlock()
		if stop {
			break
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			err := g.r.Store().Delete(ctx, o.key)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				return nil
			}
			done++
			g.emitEvent(Event{Phase: phase, Key: o.key, Done: done, Total: int64(len(all))})
			return nil
		})
	}
	_ = group.Wait() // the errors are in failed
	return errors.Join(append(failed, ctx.Err())...)
}
