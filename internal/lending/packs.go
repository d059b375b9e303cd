package lending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// releasePacks knows which packs each release needs, so that sites get URLs for
// those and no others. Finding out takes a walk over the whole release, so the
// result is remembered. If the index has changed since, because gc wrote packs
// anew, the walk is done again and its packs are added.
type releasePacks struct {
	o *Options

	mu  sync.Mutex
	all map[releases.Key]*needs

	folder sync.Mutex // the copies of the index's segments are for one at a time
}

// needs is what one release needs.
type needs struct {
	mu       sync.Mutex
	packs    map[digest.Digest]bool
	sequence uint64 // of the index root that was walked
	checked  time.Time
}

// recheck is how often a pack that is not needed triggers a look whether the
// index has changed.
const recheck = 10 * time.Second

// batch is how many chunks are looked up at once.
const batch = 32 << 10

// isNeeded reports whether the release needs the pack.
func (s *releasePacks) isNeeded(ctx context.Context, k releases.Key, pack digest.Digest) (bool, error) {
	s.mu.Lock()
	if s.all == nil {
		s.all = map[releases.Key]*needs{}
	}
	n := s.all[k]
	if n == nil {
		n = &needs{}
		s.all[k] = n
	}
	s.mu.Unlock()
	n.mu.Lock() // who asks meanwhile waits for the same walk
	defer n.mu.Unlock()
	if n.packs[pack] {
		return true, nil
	}
	now := s.o.Now()
	if n.packs != nil && now.Sub(n.checked) < recheck {
		return false, nil
	}
	// A release that gc has removed needs nothing any more.
	if err := s.walkRelease(ctx, k, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	n.checked = now
	return n.packs[pack], nil
}

// forgetReleases drops releases that are no longer in any site's desired state.
func (s *releasePacks) forgetReleases(keep func(channel string, number trust.ReleaseNumber) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.all {
		if !keep(k.Channel, k.Number) {
			delete(s.all, k)
		}
	}
}

func (s *releasePacks) walkRelease(ctx context.Context, k releases.Key, n *needs) (err error) {
	s.folder.Lock()
	defer s.folder.Unlock()
	r := s.o.Repo()
	x, err := r.Index(ctx)
	if err != nil {
		return err
	}
	if n.packs != nil && x.Root().Sequence == n.sequence {
		return nil
	}
	dir, err := s.o.Segments()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	segs := r.Segments(dir)
	known, err := segs.Known(ctx, x)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, known.Close()) }()
	packs := map[digest.Digest]bool{}
	ids := make([]digest.Digest, 0, batch)
	look := func() error {
		found, missing, err := known.Locate(ids)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return fmt.Errorf("release %d of %q: %d of its chunks are in no pack: run fsck", k.Number, k.Channel, len(missing))
		}
		all := x.Packs()
		for _, p := range found {
			packs[all[p.Pack].Digest] = true
		}
		ids = ids[:0]
		return nil
	}
	add := func(id digest.Digest) error {
		if ids = append(ids, id); len(ids) == batch {
			return look()
		}
		return nil
	}
	if err := s.eachChunk(ctx, r, k, add); err != nil {
		return err
	}
	if err := look(); err != nil {
		return err
	}
	for p := range n.packs {
		packs[p] = true // a site may still read by the root before
	}
	n.packs, n.sequence = packs, x.Root().Sequence
	return segs.Prune(x.Root())
}

// eachChunk calls add for every chunk and page of a release.
func (s *releasePacks) eachChunk(ctx context.Context, r *repo.Repo, k releases.Key, add func(digest.Digest) error) error {
	rel, next, err := s.o.Trees.EntriesOf(ctx, r, k)
	if err != nil {
		return err
	}
	for _, id := range rel.PageIDs() {
		if err := add(id); err != nil {
			return err
		}
	}
	for {
		e, err := next()
		if e == nil || err != nil {
			return err
		}
		if e.Kind != manifest.File {
			continue
		}
		for _, l := range e.Lists {
			if err := add(l.ID); err != nil {
				return err
			}
		}
		refs, err := s.o.Trees.Refs(ctx, r, e)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if !ref.Hole() {
				if err := add(ref.ID); err != nil {
					return err
				}
			}
		}
	}
}
