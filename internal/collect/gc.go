package collect

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/index"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

const (
	// DefaultKeep is how many releases of a channel are kept if Options does
	// not set Keep.
	DefaultKeep = 10
	// DefaultRepack is the share of needed bytes below which a pack is
	// rewritten.
	DefaultRepack = 0.5
	// DefaultMinSmall is the number of small packs from which gc merges them. Fewer are left as they are, so that a pack
	// that stays small is rewritten only with this many others.
	DefaultMinSmall = 16
	// maxCondemned bounds how many packs are condemned at a time (about
	// 1.8 TB), so that the index root stays small; the next run does more.
	maxCondemned = 100_000
)

// ErrBusy means that another gc or fsck changed the index meanwhile.
var ErrBusy = errors.New("another gc or fsck is at work on this repository")

// Options tune a gc. The zero value is usable.
type Options struct {
	Keep       int                              // number of newest releases kept per channel, including the head; 0: DefaultKeep
	KeepWithin time.Duration                    // also keep releases that were current within this time, by the store's clock
	Hold       map[string][]trust.ReleaseNumber // by channel: releases to keep, with all newer ones
	Repack     float64                          // rewrite packs whose needed share is below this, and merge small ones; 0: DefaultRepack; negative: never
	MinSmall   int                              // merge the small packs if there are at least this many; 0: DefaultMinSmall
	DryRun     bool                             // decide and report, change nothing

	// Key is a release key with which gc signs a head again before it deletes
	// an unfinished release. A push that was frozen for longer than the grace
	// period then cannot make that release the head. May be nil.
	Key         ed25519.PrivateKey
	Subject     halt.Subject  // identity that halt orders are matched against
	HaltEvery   time.Duration // interval between checks for halt orders, besides one before each phase; 0: 30 s
	Connections int           // requests under way at once; 0: 8
	OnEvent     func(Event)   // called from one goroutine at a time; may be nil
}

// Event reports a step of a run.
type Event struct {
	Phase string `json:"phase"`          // retain, mark, sweep, delete releases, repack, condemn, forget, delete packs, delete segments
	Key   string `json:"key,omitempty"`  // the object that was deleted, or the release that was marked
	Done  int64  `json:"done,omitempty"` // of Total
	Total int64  `json:"total,omitempty"`
}

// Report describes the work of a gc, or of a dry run the work that a gc would
// do now. Bytes are stored bytes, of whole objects.
type Report struct {
	DryRun    bool  `json:"dry_run,omitempty"`
	Channels  int   `json:"channels"`
	Kept      int   `json:"releases_kept"`
	Expired   int   `json:"releases_expired"`
	Abandoned int   `json:"releases_abandoned"` // left by pushes that died, deleted
	Waiting   int   `json:"releases_waiting"`   // left by pushes that may still run
	Chunks    int64 `json:"chunks_needed"`
	Lost      int64 `json:"chunks_lost"` // needed, but in no pack: run fsck; until then no pack is deleted

	Packs         int64 `json:"packs"` // named by the index when gc began
	PackBytes     int64 `json:"pack_bytes"`
	Repacked      int64 `json:"packs_repacked"`
	Merged        int64 `json:"packs_merged"`    // of those, rewritten because they are small
	Postponed     int64 `json:"packs_postponed"` // to rewrite, but left for the next run
	RepackedBytes int64 `json:"repacked_bytes"`  // stored anew
	Condemned     int64 `json:"packs_condemned"`
	CondemnedSize int64 `json:"condemned_bytes"`
	Revived       int64 `json:"packs_revived"` // condemned, but needed after all
	Doomed        int64 `json:"packs_doomed"`  // condemned, and not deleted yet
	Deleted       int64 `json:"packs_deleted"`
	DeletedBytes  int64 `json:"deleted_bytes"`
	Leftovers     int64 `json:"leftovers_deleted"` // packs and segments that no index named
	LeftoverBytes int64 `json:"leftover_bytes"`
}

// gc is one run.
type gc struct {
	r     *repo.Repo
	segs  *repo.Segments
	o     Options
	grace time.Duration
	began clock.Store
	rep   Report

	packs    map[digest.Digest]object // in the store
	segments map[digest.Digest]object
	x        *repo.Index // as marked and swept
	expect   []index.Condemned
	live     *live
}

// object is a pack or segment as listed.
type object struct {
	size     int64
	modified clock.Store
}

// GC removes everything that no retained release needs: first release objects,
// then packs in two runs with the grace period between them. If the index lacks
// a needed chunk (Report.Lost), GC deletes no pack: the chunk may be in a pack
// that the index calls dead or does not name. A run that ends at any point
// leaves garbage, never damage. docs/ordering.md explains why a push or a pull
// may run beside it.
//
// Errors: *halt.Error, ErrBusy, *repo.MissingError if a manifest cannot be read
// (gc then deletes nothing), and those of the store.
func GC(ctx context.Context, r *repo.Repo, segs *repo.Segments, o Options) (*Report, error) {
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	if o.Repack == 0 {
		o.Repack = DefaultRepack
	}
	if o.MinSmall <= 0 {
		o.MinSmall = DefaultMinSmall
	}
	if o.Connections <= 0 {
		o.Connections = 8
	}
	g := &gc{r: r, segs: segs, o: o, grace: r.Grace(), rep: Report{DryRun: o.DryRun}}
	if o.HaltEvery <= 0 {
		g.o.HaltEvery = 30 * time.Second
	}
	if err := r.Halts().Check(ctx, o.Subject); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { g.watchHalt(ctx, cancel) })
	err := g.run(ctx)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	watching.Wait()
	if err != nil {
		return &g.rep, fmt.Errorf("gc: %w", err)
	}
	return &g.rep, nil
}

// watchHalt cancels the run when a halt order matches it, even during a long phase.
func (g *gc) watchHalt(ctx context.Context, stop context.CancelCauseFunc) {
	t := time.NewTicker(g.o.HaltEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := g.r.Halts().Check(ctx, g.o.Subject); err != nil && ctx.Err() == nil {
			stop(err)
			return
		}
	}
}

func (g *gc) run(ctx context.Context) error {
	// Read the clock before any head. A pack that has been condemned for the grace period by then, and is dead
	// according to the heads read afterwards, can never be needed again.
	first, err := g.r.Index(ctx)
	if err != nil {
		return err
	}
	if g.began = first.Date(); g.began.IsZero() {
		return errors.New("the store's answer has no usable time, so no grace period can be measured")
	}
	g.emitEvent(Event{Phase: "retain"})
	channels, err := g.retainReleases(ctx)
	if err != nil {
		return err
	}
	// Read the index after the heads, so that it names everything they need.
	// Read it before the list, so that the list has every existing pack that
	// the index names.
	if g.x, err = g.r.Index(ctx); err != nil {
		return err
	}
	if err := g.listObjects(ctx, first.Root(), g.x.Root()); err != nil {
		return err
	}
	if err := g.markLive(ctx, channels); err != nil {
		return err
	}
	plan, err := g.makePlan(ctx)
	if err != nil || g.o.DryRun {
		return err
	}
	for _, phase := range []func() error{
		func() error { return g.deleteReleases(ctx, channels) },
		func() error { return g.repackVictims(ctx, plan) },
		func() error { return g.condemnPacks(ctx, plan) },
		func() error { return g.deletePacks(ctx, plan) },
	} {
		if err := g.r.Halts().Check(ctx, g.o.Subject); err != nil {
			return err
		}
		if err := phase(); err != nil {
			return err
		}
	}
	return nil
}

func (g *gc) emitEvent(e Event) {
	if g.o.OnEvent != nil {
		g.o.OnEvent(e)
	}
}

// isYoung reports whether something is younger than d.
func (g *gc) isYoung(t clock.Store, d time.Duration) bool { return g.began.Sub(t) < d }

// listObjects records the packs in the store, and the segments that no root read by
// this run lists. It keeps segments that a root lists, even if this run merges
// them: a reader that has just read that root is about to read them.
func (g *gc) listObjects(ctx context.Context, roots ...*index.Root) (err error) {
	if g.packs, err = listObjects(ctx, g.r.Store(), repo.PacksPrefix, repo.PackKey, nil); err != nil {
		return err
	}
	g.segments, err = listObjects(ctx, g.r.Store(), repo.IndexPrefix, repo.SegmentKey, nil)
	for _, root := range roots {
		for _, ref := range root.Segments {
			delete(g.segments, ref.Digest)
		}
	}
	return err
}

// listObjects lists the objects below prefix whose keys have the form of key,
// and calls strange for all others.
func listObjects(ctx context.Context, s bucket.Store, prefix string, key func(digest.Digest) string, strange func(bucket.Info)) (map[digest.Digest]object, error) {
	out := map[digest.Digest]object{}
	err := s.List(ctx, prefix, func(i bucket.Info) error {
		name := i.Key[max(0, len(i.Key)-2*digest.Size):]
		d, err := digest.Parse(name)
		if err != nil || key(d) != i.Key {
			if strange != nil && i.Key != repo.RootKey {
				strange(i)
			}
			return nil
		}
		out[d] = object{size: i.Size, modified: clock.StoreAt(i.Modified)}
		return nil
	})
	return out, err
}

// markLive fills the live set from all channels.
func (g *gc) markLive(ctx context.Context, channels []*channel) (err error) {
	known, err := g.segs.Known(ctx, g.x)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, known.Close()) }()
	m := newMarker(reader{x: g.x, known: known, fetch: repo.FetchOptions{Connections: g.o.Connections}})
	g.live = &m.live
	g.rep.Channels = len(channels)
	for _, c := range channels {
		g.rep.Kept += len(c.keep)
		g.rep.Expired += len(c.expired)
		g.rep.Abandoned += len(c.dead)
		g.rep.Waiting += c.waiting
	}
	var n int64
	for _, c := range channels {
		for _, rel := range c.keep {
			if err := m.markRelease(ctx, rel); err != nil {
				return err
			}
			n++
			g.emitEvent(Event{Phase: "mark", Key: repo.ReleaseKey(c.scope, rel.Number), Done: n, Total: int64(g.rep.Kept)})
		}
	}
	// Pending releases come last: they share most of their pages with the
	// others.
	for _, c := range channels {
		for _, rel := range c.pending {
			if err := m.markPending(ctx, rel); err != nil {
				return err
			}
		}
	}
	return nil
}

// plan holds the decision about each pack.
type plan struct {
	condemn []index.Pack
	victims []uint32 // ordinals of packs to repack: the sparsely used ones, least needed first, then the small ones
	revive  map[digest.Digest]bool
	drop    map[digest.Digest]bool
	use     []packUse
}

func (g *gc) makePlan(ctx context.Context) (*plan, error) {
	g.emitEvent(Event{Phase: "sweep"})
	use, err := sweepIndex(ctx, g.segs, g.x, g.live, func(uint64) { g.rep.Lost++ })
	if err != nil {
		return nil, err
	}
	g.rep.Chunks = g.live.len()
	g.expect = g.x.Root().Condemned
	since := map[digest.Digest]clock.Store{}
	for _, c := range g.expect {
		since[c.Pack] = clock.StoreAt(time.Unix(c.Since, 0))
	}
	p := &plan{revive: map[digest.Digest]bool{}, drop: map[digest.Digest]bool{}, use: use}
	var small []uint32
	room := maxCondemned - len(g.expect)
	for i, pk := range g.x.Packs() {
		u := &use[i]
		at, condemned := since[pk.Digest]
		delete(since, pk.Digest)
		g.rep.Packs++
		g.rep.PackBytes += int64(pk.Size)
		switch {
		case condemned && u.live > 0:
			p.revive[pk.Digest] = true
		case condemned && !g.isYoung(at, g.grace) && g.rep.Lost == 0:
			p.drop[pk.Digest] = true
		case condemned:
			g.rep.Doomed++
		case g.isYoung(g.packs[pk.Digest].modified, g.grace/2):
			// A push that stored it may be about to need it.
		case u.live == 0 && room > 0:
			p.condemn = append(p.condemn, pk)
			room--
		case u.live > 0 && u.usedShare(pk.Size) < g.o.Repack && room > 0:
			p.victims = append(p.victims, uint32(i))
			room--
		case g.o.Repack > 0 && isSmall(pk, u) && room > 0:
			small = append(small, uint32(i))
			room--
		}
	}
	for unnamed, at := range since { // condemned, but no segment names it any more
		if !g.isYoung(at, g.grace) && g.rep.Lost == 0 {
			p.drop[unnamed] = true
		}
	}
	slices.SortFunc(p.victims, func(a, b uint32) int { return int(use[a].live - use[b].live) })
	g.addSmall(p, small)
	g.countPlan(p)
	return p, nil
}

// countPlan counts the effects of the plan, for a dry run too.
func (g *gc) countPlan(p *plan) {
	for _, pk := range p.condemn {
		g.rep.Condemned++
		g.rep.CondemnedSize += int64(pk.Size)
	}
	for _, v := range p.victims {
		g.rep.Condemned++
		g.rep.Repacked++
		g.rep.CondemnedSize += int64(g.x.Packs()[v].Size)
	}
	g.rep.Revived = int64(len(p.revive))
	if !g.o.DryRun {
		return // deletions are counted when they happen
	}
	for d := range p.drop {
		if o, ok := g.packs[d]; ok {
			g.rep.Deleted++
			g.rep.DeletedBytes += o.size
		}
	}
	named := map[digest.Digest]bool{}
	for _, pk := range g.x.Packs() {
		named[pk.Digest] = true
	}
	for _, o := range g.findLeftovers(named, g.x.Root(), p.drop) {
		g.rep.Leftovers++
		g.rep.LeftoverBytes += o.size
	}
}
