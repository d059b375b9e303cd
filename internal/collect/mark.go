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

// loadPages returns pages by their ids; each has been proven.
func (r *reader) loadPages(ctx context.Context, ids []digest.Digest) (repo.Pages, error) {
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

// readRelease calls fn with the entries of each page of a release, in order; pages
// that skip names are left out.
func (r *reader) readRelease(ctx context.Context, rel *repo.Release, skip func(digest.Digest) bool, fn func([]manifest.Entry) error) error {
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
		pages, err := r.loadPages(ctx, ids)
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

// readLists calls fn with the chunks of each chunk-list page.
func (r *reader) readLists(ctx context.Context, lists []manifest.ListRef, fn func([]chunk.Ref) error) error {
	for len(lists) > 0 {
		n := min(windowLists, len(lists))
		ids := make([]digest.Digest, n)
		for i, l := range lists[:n] {
			ids[i] = l.ID
		}
		pages, err := r.loadPages(ctx, ids)
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
	m.live.growFor(n)
	return m
}

func (m *marker) markOnce(id digest.Digest) bool {
	if _, ok := m.seen[id]; ok {
		return true
	}
	m.seen[id] = struct{}{}
	m.live.addIDs(id)
	return false
}

func (m *marker) markRefs(refs []chunk.Ref) error {
	for _, ref := range refs {
		if !ref.Hole() {
			m.live.addIDs(ref.ID)
		}
	}
	return nil
}

// markRelease adds a release. It fails if a page cannot be read: a gc that deletes on
// partial knowledge deletes needed chunks.
func (m *marker) markRelease(ctx context.Context, rel *repo.Release) error {
	err := m.readRelease(ctx, rel, m.markOnce, func(entries []manifest.Entry) error { return m.markEntries(ctx, entries) })
	if err != nil {
		return fmt.Errorf("mark release %d of %q: %w", rel.Number, rel.Channel, err)
	}
	return nil
}

// markEntries adds the chunks of entries.
func (m *marker) markEntries(ctx context.Context, entries []manifest.Entry) error {
	var lists []manifest.ListRef
	for i := range entries {
		e := &entries[i]
		if err := m.markRefs(e.Refs()); err != nil {
			return err
		}
		for _, l := range e.Lists {
			if !m.markOnce(l.ID) {
				lists = append(lists, l)
			}
		}
	}
	return m.readLists(ctx, lists, m.markRefs)
}

// markPending adds a release that no head names yet. Its push may have given up
// before all of its objects were stored, so missing objects are no error. A
// release that lacks a page adds nothing: a page that was not read must not
// count as seen, because another release may share it.
func (m *marker) markPending(ctx context.Context, rel *repo.Release) error {
	trial := marker{reader: m.reader, seen: maps.Clone(m.seen)}
	err := trial.markRelease(ctx, rel)
	var missing *repo.MissingError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	m.seen = trial.seen
	m.live.mergeFrom(&trial.live)
	return nil
}
