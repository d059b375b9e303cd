package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/frame"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// channel is gc's decision about the releases of one channel.
type channel struct {
	scope   string
	name    string // "" if the channel has no head
	keep    []*repo.Release
	pending []*repo.Release       // newer than the head; a push may be about to make one of them the head
	expired []trust.ReleaseNumber // of the head's chain, or older than it
	dead    []trust.ReleaseNumber // left by pushes that died, below the head
	above   bool                  // pushes that died have left releases above the head; they stay until the head has passed them
	waiting int                   // left by pushes that may still be alive
}

// retainReleases decides which releases stay, and reads those.
func (g *gc) retainReleases(ctx context.Context) ([]*channel, error) {
	stored, _, err := g.r.Stored(ctx)
	if err != nil {
		return nil, err
	}
	var out []*channel
	for _, s := range stored {
		c := &channel{scope: s.Scope}
		var head *repo.Head
		if s.Head {
			if c.name, err = g.r.ChannelOf(ctx, s.Scope); err != nil {
				return nil, fmt.Errorf("channel %s: %w", s.Scope, err)
			}
			if head, err = g.r.Head(ctx, c.name); err != nil {
				return nil, err
			}
			if err := g.retainChain(ctx, c, head, s.Releases); err != nil {
				return nil, err
			}
		} else if err := checkHeadMissing(ctx, g.r, s); err != nil {
			return nil, fmt.Errorf("gc deletes nothing: %w", err)
		}
		if err := g.retainUnpublished(ctx, c, head, s.Releases); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// retainChain walks from the head back along the parents while the rules keep
// releases. Older releases are deleted. Numbers may have gaps and leftovers of
// dead pushes, so the parent is found by its digest.
func (g *gc) retainChain(ctx context.Context, c *channel, head *repo.Head, stored []repo.StoredRelease) error {
	rel, err := g.r.StoredRelease(ctx, c.scope, head.Number, head.Release)
	if err != nil {
		return err
	}
	c.keep = append(c.keep, rel)
	older := slices.DeleteFunc(slices.Clone(stored), func(s repo.StoredRelease) bool { return s.Number >= head.Number })
	modified := func(n trust.ReleaseNumber) clock.Store {
		for _, s := range stored {
			if s.Number == n {
				return s.Modified
			}
		}
		return g.began // stored since the list was made
	}
	for i := len(older) - 1; i >= 0; {
		if !g.keepsParent(c, rel, modified(rel.Number), older[i].Number) {
			for _, s := range older[:i+1] {
				c.expired = append(c.expired, s.Number)
			}
			return nil
		}
		at, next, err := g.findParent(ctx, c, rel, older[:i+1])
		if err != nil {
			return err
		}
		for _, s := range older[at+1 : i+1] {
			if g.isYoung(s.Modified, g.grace) {
				c.waiting++
			} else {
				c.dead = append(c.dead, s.Number)
			}
		}
		if next == nil {
			return nil
		}
		c.keep = append(c.keep, next)
		rel, i = next, at-1
	}
	return nil
}

// keepsParent reports whether the parent of rel, the oldest release kept so far, is
// kept. A release was current until its child was made. Its age counts from
// then, so that every release that was current within KeepWithin can be
// restored.
func (g *gc) keepsParent(c *channel, rel *repo.Release, modified clock.Store, number trust.ReleaseNumber) bool {
	// Use the later time of the store's clock now and when the publisher signed.
	left := clock.StoreAt(time.Unix(rel.Created, 0))
	if left.Before(modified) {
		left = modified
	}
	return len(c.keep) < g.o.Keep || g.began.Sub(left) < g.o.KeepWithin || slices.ContainsFunc(g.o.Hold[c.name], func(n trust.ReleaseNumber) bool { return n <= number })
}

// findParent finds the parent of rel among older releases. If the parent is
// missing, for example because a person deleted it, the next older release with
// a trusted signature replaces it: a gap must not drop all releases behind it.
// at is -1 if there is neither.
func (g *gc) findParent(ctx context.Context, c *channel, rel *repo.Release, older []repo.StoredRelease) (at int, found *repo.Release, err error) {
	if rel.Parent.IsZero() {
		return -1, nil, nil // the first release: older ones are leftovers
	}
	standIn, standAt := (*repo.Release)(nil), -1
	for i := len(older) - 1; i >= 0; i-- {
		n := older[i].Number
		found, err := g.r.StoredRelease(ctx, c.scope, n, rel.Parent)
		if err == nil {
			return i, found, nil
		}
		if !errors.Is(err, trust.ErrUntrusted) && !errors.Is(err, fs.ErrNotExist) {
			return 0, nil, unreadableError(err)
		}
		other, err := g.r.StoredRelease(ctx, c.scope, n, trust.ReleaseDigest{})
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return 0, nil, unreadableError(err)
		case standIn == nil:
			standIn, standAt = other, i
		}
	}
	return standAt, standIn, nil
}

// unreadableError adds the remedy to the error of a release that is neither the parent nor a good leftover. gc cannot know
// the consequences of deleting it.
func unreadableError(err error) error {
	if !errors.Is(err, trust.ErrUntrusted) && !errors.Is(err, frame.ErrDamaged) {
		return err
	}
	return fmt.Errorf("gc deletes nothing while a release within the retention cannot be read: %w: delete that object by hand if it is of no use", err)
}

// retainUnpublished handles the releases that are newer than the head. It deletes none of
// them. If a number above the head became free, the next push would take it,
// and another gc with an older list would delete that push's release. The next
// push skips these numbers; below the head no push takes a number again.
func (g *gc) retainUnpublished(ctx context.Context, c *channel, head *repo.Head, stored []repo.StoredRelease) error {
	for _, s := range stored {
		if head != nil && s.Number <= head.Number {
			continue
		}
		if !g.isYoung(s.Modified, g.grace) {
			c.above = true
			continue
		}
		c.waiting++
		rel, err := g.r.StoredRelease(ctx, c.scope, s.Number, trust.ReleaseDigest{})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, trust.ErrUntrusted) || errors.Is(err, frame.ErrDamaged) {
			continue // no head will ever name it
		}
		if err != nil {
			return err
		}
		c.pending = append(c.pending, rel)
	}
	return nil
}
