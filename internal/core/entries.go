package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
)

// maxPages bounds the manifest pages read to name the files of one report. That is enough for half a
// million entries in any order.
const maxPages = 1024

// finder finds entries of releases by their ordinals, for one report. The site chooses the ordinals,
// so the finder stops after maxPages pages or its first error.
type finder struct {
	core     *Core
	releases map[releaseKey]*repo.Release
	page     digest.Digest
	entries  []manifest.Entry // of page
	pages    int              // that were read
	err      error
}

// entry returns the entry of a release with that ordinal. If the run's release is unknown, it returns
// fs.ErrNotExist. Any other error is final: later calls return it too.
func (f *finder) entry(ctx context.Context, k releaseKey, ordinal uint64) (*manifest.Entry, error) {
	if k.number == 0 { // the run's release is unknown: its start event is missing
		return nil, fs.ErrNotExist
	}
	if f.err != nil {
		return nil, f.err
	}
	e, err := f.find(ctx, k, ordinal)
	f.err = err
	return e, err
}

func (f *finder) find(ctx context.Context, k releaseKey, ordinal uint64) (*manifest.Entry, error) {
	rel := f.releases[k]
	if rel == nil {
		var err error
		if rel, err = f.core.released(ctx, k); err != nil {
			return nil, err
		}
		if f.releases == nil {
			f.releases = map[releaseKey]*repo.Release{}
		}
		f.releases[k] = rel
	}
	for _, p := range rel.Pages {
		if ordinal >= uint64(p.Entries) {
			ordinal -= uint64(p.Entries)
			continue
		}
		if err := f.open(ctx, p.ID, rel.Portable); err != nil {
			return nil, fmt.Errorf("page %s: %w", p.ID.Short(), err)
		}
		if ordinal < uint64(len(f.entries)) {
			return &f.entries[ordinal], nil
		}
		break
	}
	return nil, fs.ErrNotExist
}

// open makes a page the one at hand.
func (f *finder) open(ctx context.Context, id digest.Digest, portable bool) error {
	if id == f.page {
		return nil
	}
	if f.pages++; f.pages > maxPages {
		return errors.New("too many pages for one report")
	}
	r := f.core.repo.Load()
	if err := r.LoadPages(ctx, r.Index, []digest.Digest{id}, &f.core.pages, repo.FetchOptions{}); err != nil {
		return err
	}
	b, _ := f.core.pages.Load(id)
	if r.Keys().ChunkID(b) != id {
		return fs.ErrInvalid
	}
	entries, err := manifest.DecodePage(b, portable)
	if err != nil {
		return err
	}
	f.page, f.entries = id, entries
	return nil
}

// released reads a release that the Core has published, remembering the last.
func (c *Core) released(ctx context.Context, k releaseKey) (*repo.Release, error) {
	if l := c.lastRelease.Load(); l != nil && l.key == k {
		return l.rel, nil
	}
	rel, err := c.repo.Load().Release(ctx, k.channel, k.number, k.digest)
	if err == nil {
		c.lastRelease.Store(&keptRelease{k, rel})
	}
	return rel, err
}

type keptRelease struct {
	key releaseKey
	rel *repo.Release
}
