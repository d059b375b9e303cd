package push

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
)

// known is one path of the previous release. stat is nil if this machine has no
// record of the file's stat: then the file must be read.
type known struct {
	path string
	kind manifest.Kind
	stat *scan.Stat
}

// before streams the previous release in path order.
type before struct {
	next  func() (*known, error)
	close func()
}

// openCache opens the stat cache. It reports whether the cache was made for the current head: its entries can then be
// reused without checking their chunks.
func (p *push) openCache() (*scan.CatalogueReader, bool, error) {
	c, err := scan.OpenCatalogue(p.o.State, p.cacheName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, scan.ErrCorrupt) {
		return nil, false, nil // it is only a cache: missing files are read again
	}
	if err != nil {
		return nil, false, err
	}
	h := c.Header()
	p.mountedBefore(&h)
	based := p.head != nil && h.Repo == [16]byte(p.r.ID()) && h.Channel == p.o.Channel && h.Release == p.head.Release && h.Lost == p.lost && !p.o.Rehash
	return c, based, nil
}

// openPrevious streams the head's release: from the stat cache if that was made for the head, else from the manifest.
func (p *push) openPrevious(ctx context.Context) (*before, error) {
	if p.head == nil {
		return &before{next: func() (*known, error) { return nil, nil }, close: func() {}}, nil
	}
	c, based, err := p.openCache()
	if err != nil {
		return nil, err
	}
	if c != nil && based {
		return &before{close: func() { _ = c.Close() }, next: func() (*known, error) {
			rec, err := c.Next()
			if errors.Is(err, io.EOF) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			return &known{path: rec.Path, kind: kindOfRecord(rec), stat: &rec.Stat}, nil
		}}, nil
	}
	if c != nil {
		_ = c.Close()
	}
	rel, err := p.headRelease(ctx)
	if err != nil {
		return nil, err
	}
	if p.pages == nil {
		pages := repo.NewMemoryPages()
		at := func(context.Context) (*repo.Index, error) { return p.index, nil }
		if err := p.r.Manifests(pages).Load(ctx, at, rel.PageIDs(), repo.FetchOptions{}); err != nil {
			return emptyPrevious(err)
		}
		p.pages = pages
	}
	next := p.r.Manifests(p.pages).Entries(rel)
	return &before{close: func() {}, next: func() (*known, error) {
		e, err := next()
		if e == nil || err != nil {
			return nil, err
		}
		return &known{path: e.Path, kind: e.Kind}, nil
	}}, nil
}

// emptyPrevious replaces a head whose manifest is missing from the index by an empty release, so that this push stores the
// missing objects again. The deletes guard cannot count deletes then and does not apply. It does not help if the store
// lost a pack: the index still lists its chunks, and a push would assume that they are stored. Run fsck
// --forget-missing first.
func emptyPrevious(err error) (*before, error) {
	var missing *repo.MissingError
	if !errors.As(err, &missing) || missing.Pack != "" {
		return nil, err
	}
	return &before{next: func() (*known, error) { return nil, nil }, close: func() {}}, nil
}

func (p *push) headRelease(ctx context.Context) (*repo.Release, error) {
	if p.rel == nil {
		rel, err := p.r.Release(ctx, p.o.Channel, p.head.Number, p.head.Release)
		if err != nil {
			return nil, err
		}
		p.rel = rel
	}
	return p.rel, nil
}

func kindOfRecord(r *scan.Record) manifest.Kind {
	if r.Kind == scan.Dir {
		return manifest.Dir
	}
	return manifest.File
}

// cache looks up, in path order, the previous state of a path: its stat in the
// stat cache, and its entry in the previous release. The entry comes from the
// manifest if the stat cache was made for another release.
type cache struct {
	r     *scan.CatalogueReader // nil: none
	based bool                  // made for the current head
	rec   *scan.Record

	o     *Options
	head  manifest.Next // nil: the stat cache is used instead
	entry *manifest.Entry
}

// findPath returns the entry of a path in the previous release. If the path's stat is unchanged since it was last read,
// find also returns the path's record. Paths must be requested in ascending order.
func (c *cache) findPath(it scan.Item) (old *manifest.Entry, same *scan.Record, err error) {
	if err := c.advanceTo(it.Path); err != nil {
		return nil, nil, err
	}
	if c.entry != nil && c.entry.Path == it.Path {
		old = c.entry
	}
	if c.rec == nil || c.rec.Path != it.Path {
		return old, nil, nil
	}
	if c.o.looksSame(it, c.rec.Stat) && kindOfRecord(c.rec) == kindOf(it) {
		same = c.rec
	}
	if c.head == nil {
		old, err = c.rec.Entry()
	}
	return old, same, err
}

// advanceTo moves both streams to the first path that is not before the wanted one.
func (c *cache) advanceTo(path string) (err error) {
	for c.r != nil && (c.rec == nil || manifest.ComparePaths(c.rec.Path, path) < 0) {
		c.rec, err = c.r.Next()
		// If the cache is damaged, the rest of its files are read again.
		if errors.Is(err, io.EOF) || errors.Is(err, scan.ErrCorrupt) {
			c.r, c.rec = nil, nil
			break
		}
		if err != nil {
			return err
		}
	}
	for c.head != nil && (c.entry == nil || manifest.ComparePaths(c.entry.Path, path) < 0) {
		if c.entry, err = c.head(); err != nil {
			return err
		}
		if c.entry == nil {
			c.head = func() (*manifest.Entry, error) { return nil, nil }
			break
		}
	}
	return nil
}

// chunksHeld reports whether all chunks of an entry are stored in packs that a publisher may rely on.
func (p *push) chunksHeld(e *manifest.Entry) (bool, error) {
	if len(e.Lists) > 0 {
		return false, nil // its chunk-list pages may be missing too: read the file
	}
	for _, ref := range e.Refs() {
		if ref.Hole() {
			continue
		}
		if ok, err := p.store.hasChunk(ref.ID); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
