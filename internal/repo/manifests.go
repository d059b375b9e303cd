package repo

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/seal"
)

// Pages caches fetched manifest and chunk-list pages by chunk id. Load's result
// is checked against its id before use, so a cache may be lost or damaged. Both
// methods may be called from many goroutines.
type Pages interface {
	Load(id digest.Digest) ([]byte, bool)
	Save(id digest.Digest, page []byte) error
}

type memoryPages struct {
	mu sync.Mutex
	m  map[digest.Digest][]byte
}

// NewMemoryPages keeps pages in memory, for a verb that reads them once.
func NewMemoryPages() Pages { return &memoryPages{m: map[digest.Digest][]byte{}} }

func (p *memoryPages) Load(id digest.Digest) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.m[id]
	return b, ok
}

func (p *memoryPages) Save(id digest.Digest, page []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[id] = slices.Clone(page)
	return nil
}

// Manifests reads the contents of releases through a cache of pages.
type Manifests struct {
	keys  *seal.Keys
	cache Pages
}

// Manifests returns a reader of manifests that keeps their pages in cache.
func (r *Repo) Manifests(cache Pages) Manifests { return Manifests{r.identity.keys, cache} }

// page returns a page from the cache, if it is there and intact.
func (m Manifests) page(id digest.Digest) ([]byte, bool) {
	b, ok := m.cache.Load(id)
	if !ok || m.keys.ChunkID(b) != id {
		return nil, false
	}
	return b, true
}

// Load fetches the pages that the cache lacks. It calls at for the index only
// if a page is missing.
func (m Manifests) Load(ctx context.Context, at func(context.Context) (*Index, error), ids []digest.Digest, o FetchOptions) error {
	var lack []digest.Digest
	for _, id := range ids {
		if _, ok := m.page(id); !ok {
			lack = append(lack, id)
		}
	}
	if len(lack) == 0 {
		return nil
	}
	x, err := at(ctx)
	if err != nil {
		return err
	}
	places, missing, err := x.Locate(ctx, lack)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("manifest pages: %w", &MissingError{Chunks: missing})
	}
	return x.Fetch(ctx, places, o, func(_ context.Context, b *Block) error {
		for i, p := range b.Places {
			if err := m.cache.Save(p.ID, b.Chunk(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// PageIDs returns the ids of a release's manifest pages.
func (rel *Release) PageIDs() []digest.Digest {
	ids := make([]digest.Digest, len(rel.Pages))
	for i, p := range rel.Pages {
		ids[i] = p.ID
	}
	return ids
}

// Entries streams a release's entries in path order from cached pages. It
// proves each entry, the order, the totals and the tree digest. The proof is
// complete only if the stream is read to its end (nil, nil).
func (m Manifests) Entries(rel *Release) manifest.Next {
	check := manifest.Checker{Portable: rel.Portable}
	var entries []manifest.Entry
	page, i := 0, 0
	return func() (*manifest.Entry, error) {
		for i == len(entries) {
			if page == len(rel.Pages) {
				return nil, check.Finish(&rel.Release)
			}
			var err error
			if entries, err = m.decode(rel, page); err != nil {
				return nil, err
			}
			page, i = page+1, 0
		}
		e := &entries[i]
		i++
		if err := check.Add(e); err != nil {
			return nil, fmt.Errorf("release %d of %q: %w", rel.Number, rel.Channel, err)
		}
		return e, nil
	}
}

// decode returns the entries of a page of a release.
func (m Manifests) decode(rel *Release, n int) ([]manifest.Entry, error) {
	ref := rel.Pages[n]
	what := fmt.Sprintf("release %d of %q: manifest page %s", rel.Number, rel.Channel, ref.ID.Short())
	b, ok := m.page(ref.ID)
	if !ok {
		return nil, fmt.Errorf("%s: %w", what, &MissingError{Chunks: []digest.Digest{ref.ID}})
	}
	entries, err := manifest.DecodePage(b, rel.Portable)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if int64(len(entries)) != ref.Entries || entries[0].Path != ref.First {
		return nil, fmt.Errorf("%s: holds %d entries, the release says %d from %q: %w", what, len(entries), ref.Entries, ref.First, frame.ErrDamaged)
	}
	return entries, nil
}

// Find returns the entry with the given path, or nil.
func (m Manifests) Find(ctx context.Context, at func(context.Context) (*Index, error), rel *Release, path string, o FetchOptions) (*manifest.Entry, error) {
	e, err := m.Seek(ctx, at, rel, path, o)
	if e != nil && e.Path != path {
		e = nil
	}
	return e, err
}

// Seek returns the first entry of a release whose path is not before path, or nil. It fetches at most two pages.
func (m Manifests) Seek(ctx context.Context, at func(context.Context) (*Index, error), rel *Release, path string, o FetchOptions) (*manifest.Entry, error) {
	n, found := slices.BinarySearchFunc(rel.Pages, path, func(p manifest.PageRef, path string) int { return manifest.ComparePaths(p.First, path) })
	if !found && n > 0 {
		n--
	}
	for ; n < len(rel.Pages); n++ {
		if err := m.Load(ctx, at, []digest.Digest{rel.Pages[n].ID}, o); err != nil {
			return nil, err
		}
		entries, err := m.decode(rel, n)
		if err != nil {
			return nil, err
		}
		if i, _ := slices.BinarySearchFunc(entries, path, func(e manifest.Entry, path string) int { return manifest.ComparePaths(e.Path, path) }); i < len(entries) {
			return &entries[i], nil
		}
	}
	return nil, nil
}

// Refs returns all chunk references of a file. Its chunk-list pages, if it has
// any, must be cached.
func (m Manifests) Refs(e *manifest.Entry) ([]chunk.Ref, error) {
	if len(e.Lists) == 0 {
		return e.Refs(), nil
	}
	var refs []chunk.Ref
	for _, l := range e.Lists {
		b, ok := m.page(l.ID)
		if !ok {
			return nil, fmt.Errorf("chunk list of %q: %w", e.Path, &MissingError{Chunks: []digest.Digest{l.ID}})
		}
		part, err := manifest.DecodeList(b, l.Size)
		if err != nil {
			return nil, fmt.Errorf("chunk list of %q: %w", e.Path, err)
		}
		refs = append(refs, part...)
	}
	return refs, nil
}
