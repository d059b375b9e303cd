package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
)

const (
	// windowPages and windowLists bound how many pages are in memory at once.
	windowPages = 64
	windowLists = 32
)

// reader streams releases' pages from the store, looked up in local copies of
// the index.
type reader struct {
	x     *repo.Index
	known *repo.Known
	fetch repo.FetchOptions
}

// load returns pages by their ids; each has been proven.
func (r *reader) load(ctx context.Context, ids []digest.Digest) (repo.Pages, error) {
	pages := repo.NewMemoryPages()
	places, missing, err := r.known.Locate(ids)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, &repo.MissingError{Chunks: missing}
	}
	return pages, r.x.Fetch(ctx, places, r.fetch, func(_ context.Context, b *repo.Block) error {
		for i, p := range b.Places {
			if err := pages.Save(p.ID, b.Chunk(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// release calls fn with the entries of each page of a release, in order; pages
// that skip names are left out.
func (r *reader) release(ctx context.Context, rel *repo.Release, skip func(digest.Digest) bool, fn func([]manifest.Entry) error) error {
	var refs []manifest.PageRef
	for _, p := range rel.Pages {
		if !skip(p.ID) {
			refs = append(refs, p)
		}
	}
	for len(refs) > 0 {
		n := min(windowPages, len(refs))
		ids := make([]digest.Digest, n)
		for i, p := range refs[:n] {
			ids[i] = p.ID
		}
		pages, err := r.load(ctx, ids)
		if err != nil {
			return fmt.Errorf("manifest pages: %w", err)
		}
		for _, p := range refs[:n] {
			b, _ := pages.Load(p.ID)
			entries, err := manifest.DecodePage(b, rel.Portable)
			if err != nil {
				return fmt.Errorf("manifest page %s: %w", p.ID.Short(), err)
			}
			if err := fn(entries); err != nil {
				return err
			}
		}
		refs = refs[n:]
	}
	return nil
}

// lists calls fn with the chunks of each chunk-list page.
func (r *reader) lists(ctx context.Context, lists []manifest.ListRef, fn func([]chunk.Ref) error) error {
	for len(lists) > 0 {
		n := min(windowLists, len(lists))
		ids := make([]digest.Digest, n)
		for i, l := range lists[:n] {
			ids[i] = l.ID
		}
		pages, err := r.load(ctx, ids)
		if err != nil {
			return fmt.Errorf("chunk lists: %w", err)
		}
		for _, l := range lists[:n] {
			b, _ := pages.Load(l.ID)
			refs, err := manifest.DecodeList(b, l.Size)
			if err != nil {
				return fmt.Errorf("chunk list %s: %w", l.ID.Short(), err)
			}
			if err := fn(refs); err != nil {
				return err
			}
		}
		lists = lists[n:]
	}
	return nil
}

// marker adds to live all that releases need. Pages that several releases
// share are read once.
type marker struct {
	reader
	live live
	seen map[digest.Digest]struct{} // pages of either kind
}

func newMarker(r reader) *marker {
	m := &marker{reader: r, seen: map[digest.Digest]struct{}{}}
	var n uint64
	for _, ref := range r.x.Root().Segments {
		n += ref.Records
	}
	m.live.expect(n)
	return m
}

func (m *marker) done(id digest.Digest) bool {
	if _, ok := m.seen[id]; ok {
		return true
	}
	m.seen[id] = struct{}{}
	m.live.add(id)
	return false
}

func (m *marker) refs(refs []chunk.Ref) error {
	for _, ref := range refs {
		if !ref.Hole() {
			m.live.add(ref.ID)
		}
	}
	return nil
}

// mark adds a release. It fails if a page cannot be read: a gc that deletes on
// partial knowledge deletes needed chunks.
func (m *marker) mark(ctx context.Context, rel *repo.Release) error {
	err := m.release(ctx, rel, m.done, func(entries []manifest.Entry) error { return m.need(ctx, entries) })
	if err != nil {
		return fmt.Errorf("mark release %d of %q: %w", rel.Number, rel.Channel, err)
	}
	return nil
}

// need adds the chunks of entries.
func (m *marker) need(ctx context.Context, entries []manifest.Entry) error {
	var lists []manifest.ListRef
	for i := range entries {
		e := &entries[i]
		if err := m.refs(e.Refs()); err != nil {
			return err
		}
		for _, l := range e.Lists {
			if !m.done(l.ID) {
				lists = append(lists, l)
			}
		}
	}
	return m.lists(ctx, lists, m.refs)
}

// markPending adds a release that no head names yet. Its push may have given up
// before all of its objects were stored, so missing objects are no error. A
// release that lacks a page adds nothing: a page that was not read must not
// count as seen, because another release may share it.
func (m *marker) markPending(ctx context.Context, rel *repo.Release) error {
	trial := marker{reader: m.reader, seen: maps.Clone(m.seen)}
	err := trial.mark(ctx, rel)
	var missing *repo.MissingError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	m.seen = trial.seen
	m.live.merge(&trial.live)
	return nil
}
