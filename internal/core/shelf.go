package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
)

// shelf knows which packs each release needs, so that sites are lent those and
// no others. Finding out takes a walk over the whole release, so it is
// remembered; when the index has moved since, because gc wrote packs anew, the
// walk is done again and what it finds is added.
type shelf struct {
	core *Core

	mu  sync.Mutex
	all map[releaseKey]*needs

	folder sync.Mutex // the copies of the index's segments are for one at a time
}

type releaseKey struct {
	channel string
	number  uint64
	digest  digest.Digest
}

// needs is what one release needs.
type needs struct {
	mu       sync.Mutex
	packs    map[digest.Digest]bool
	sequence uint64 // of the index root that was walked
	checked  time.Time
}

// recheck is how often a pack that is not needed makes the shelf look whether
// the index has moved.
const recheck = 10 * time.Second

// batch is how many chunks are looked up at once.
const batch = 32 << 10

// needed reports whether the release needs the pack.
func (s *shelf) needed(ctx context.Context, k releaseKey, pack digest.Digest) (bool, error) {
	s.mu.Lock()
	if s.all == nil {
		s.all = map[releaseKey]*needs{}
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
	now := s.core.o.Now()
	if n.packs != nil && now.Sub(n.checked) < recheck {
		return false, nil
	}
	// A release that gc has removed needs nothing any more.
	if err := s.walk(ctx, k, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	n.checked = now
	return n.packs[pack], nil
}

// forget drops releases that are no longer in any site's desired state.
func (s *shelf) forget(keep func(channel string, number uint64) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.all {
		if !keep(k.channel, k.number) {
			delete(s.all, k)
		}
	}
}

func (s *shelf) walk(ctx context.Context, k releaseKey, n *needs) (err error) {
	s.folder.Lock()
	defer s.folder.Unlock()
	r := s.core.repo.Load()
	x, err := r.Index(ctx)
	if err != nil {
		return err
	}
	if n.packs != nil && x.Root().Sequence == n.sequence {
		return nil
	}
	dir, err := s.core.subfolder("segments")
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
			return fmt.Errorf("release %d of %q: %d of its chunks are in no pack: run fsck", k.number, k.channel, len(missing))
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
	if err := s.chunks(ctx, r, k, add); err != nil {
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

// chunks calls add for every chunk and page of a release.
func (s *shelf) chunks(ctx context.Context, r *repo.Repo, k releaseKey, add func(digest.Digest) error) error {
	rel, next, err := s.core.entries(ctx, r, k)
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
		if len(e.Lists) > 0 {
			if err := s.core.loadLists(ctx, r, e); err != nil {
				return err
			}
		}
		refs, err := r.Refs(e, &s.core.pages)
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

func (c *Core) loadLists(ctx context.Context, r *repo.Repo, e *manifest.Entry) error {
	ids := make([]digest.Digest, len(e.Lists))
	for i, l := range e.Lists {
		ids[i] = l.ID
	}
	return r.LoadPages(ctx, r.Index, ids, &c.pages, repo.FetchOptions{})
}

// entries opens the tree of a release, with its pages at hand.
func (c *Core) entries(ctx context.Context, r *repo.Repo, k releaseKey) (*repo.Release, manifest.Next, error) {
	rel, err := r.Release(ctx, k.channel, k.number, k.digest)
	if err != nil {
		return nil, nil, err
	}
	if err := r.LoadPages(ctx, r.Index, rel.PageIDs(), &c.pages, repo.FetchOptions{}); err != nil {
		return nil, nil, err
	}
	return rel, r.Entries(rel, &c.pages), nil
}

func (c *Core) subfolder(name string) (*durable.Root, error) {
	if err := c.state.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	return c.state.Sub(name)
}
