package releases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
)

// maxPages bounds the pages of manifests that are read for the names in one
// report: half a million entries, in any order.
const maxPages = 1024

// Finder finds entries of releases by their ordinals, for one report. The site
// chooses the ordinals, so that a Finder stops after maxPages or a failure. It is
// for one goroutine.
type Finder struct {
	reader   *Reader
	releases map[Key]*repo.Release
	page     digest.Digest
	entries  []manifest.Entry // of page
	pages    int              // number of pages read
	err      error
}

// Entry returns the entry of a release with that ordinal.
func (f *Finder) Entry(ctx context.Context, k Key, ordinal uint64) (*manifest.Entry, error) {
	if k.Number == 0 { // the run's release is unknown: its start event is missing
		return nil, fs.ErrNotExist
	}
	if f.err != nil {
		return nil, f.err
	}
	e, err := f.find(ctx, k, ordinal)
	f.err = err
	return e, err
}

func (f *Finder) find(ctx context.Context, k Key, ordinal uint64) (*manifest.Entry, error) {
	rel := f.releases[k]
	if rel == nil {
		var err error
		if rel, err = f.reader.Release(ctx, k); err != nil {
			return nil, err
		}
		if f.releases == nil {
			f.releases = map[Key]*repo.Release{}
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
func (f *Finder) open(ctx context.Context, id digest.Digest, portable bool) error {
	if id == f.page {
		return nil
	}
	if f.pages++; f.pages > maxPages {
		return errors.New("too many pages for one report")
	}
	r := f.reader.repo()
	if err := r.Manifests(&f.reader.pages).Load(ctx, r.Index, []digest.Digest{id}, repo.FetchOptions{}); err != nil {
		return err
	}
	b, _ := f.reader.pages.Load(id)
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

// Pages returns how many pages were read.
func (f *Finder) Pages() int { return f.pages }
