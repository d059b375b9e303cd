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

// known is one path of the release before. stat is nil where this machine
// does not remember how the file looked: then it must be read.
type known struct {
	path string
	kind manifest.Kind
	stat *scan.Stat
}

// before streams the release before in path order.
type before struct {
	next  func() (*known, error)
	close func()
}

// base opens the stat cache and reports whether it was made for the present
// head, so that its entries may be taken over without asking for their chunks.
func (p *push) openCache() (*scan.CatalogueReader, bool, error) {
	c, err := scan.OpenCatalogue(p.o.State, p.cacheName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, scan.ErrCorrupt) {
		return nil, false, nil // a cache: what it lacks is read again
	}
	if err != nil {
		return nil, false, err
	}
	h := c.Header()
	p.mountedBefore(&h)
	based := p.head != nil && h.Repo == [16]byte(p.r.ID()) && h.Channel == p.o.Channel && h.Release == p.head.Release && h.Lost == p.lost && !p.o.Rehash
	return c, based, nil
}

// previous streams what the head holds: from the stat cache where that was
// made for it, else from its manifest.
func (p *push) previous(ctx context.Context) (*before, error) {
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
		if err := p.r.LoadPages(ctx, at, rel.PageIDs(), pages, repo.FetchOptions{}); err != nil {
			return unknown(err)
		}
		p.pages = pages
	}
	next := p.r.Entries(rel, p.pages)
	return &before{close: func() {}, next: func() (*known, error) {
		e, err := next()
		if e == nil || err != nil {
			return nil, err
		}
		return &known{path: e.Path, kind: e.Kind}, nil
	}}, nil
}

// unknown turns a head whose manifest the index does not name any more into one of
// which nothing is known: the push that follows makes it whole again. The
// deletes guard cannot count then, and says nothing. Where it is the store that
// has lost a pack, the index names its chunks still, and a push would take them
// for stored: fsck --forget-missing comes first.
func unknown(err error) (*before, error) {
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

// cache looks up, in path order, what was known of a path: how it looked, in
// the stat cache, and what the release before says of it, in its manifest
// where the stat cache was made for another.
type cache struct {
	r     *scan.CatalogueReader // nil: none
	based bool                  // made for the present head
	rec   *scan.Record

	head  manifest.Next // nil: the stat cache serves
	entry *manifest.Entry
}

// find returns what the release before says of a path, and the path's record
// where it looks as it did when it was last read. Paths must be asked for in
// ascending order.
func (c *cache) find(it scan.Item) (old *manifest.Entry, same *scan.Record, err error) {
	if err := c.advance(it.Path); err != nil {
		return nil, nil, err
	}
	if c.entry != nil && c.entry.Path == it.Path {
		old = c.entry
	}
	if c.rec == nil || c.rec.Path != it.Path {
		return old, nil, nil
	}
	if looksSame(it, c.rec.Stat) && kindOfRecord(c.rec) == kindOf(it) {
		same = c.rec
	}
	if c.head == nil {
		old, err = c.rec.Entry()
	}
	return old, same, err
}

// advance moves both to the first path that is not before the wanted one.
func (c *cache) advance(path string) (err error) {
	for c.r != nil && (c.rec == nil || manifest.ComparePaths(c.rec.Path, path) < 0) {
		c.rec, err = c.r.Next()
		// Damage costs the rest of the cache, which is then read again.
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

// held reports whether everything that an entry refers to is stored in packs
// that a publisher may rely on.
func (p *push) held(e *manifest.Entry) (bool, error) {
	if len(e.Lists) > 0 {
		return false, nil // its chunks are named by pages that may be gone themselves: read the file
	}
	for _, ref := range e.Refs() {
		if ref.Hole() {
			continue
		}
		if ok, err := p.store.has(ref.ID); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
