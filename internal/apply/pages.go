package apply

import (
	"errors"
	"io"
	"path"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// pageCache keeps manifest and chunk-list pages in the state folder. It syncs nothing: each load checks the page
// against its id, and a page damaged by a power cut is fetched again.
type pageCache struct{ root *durable.Root }

func pageName(id digest.Digest) string {
	s := id.String()
	return path.Join(pagesDir, s[:2], s[2:])
}

// Load returns the page without checking it.
func (p pageCache) Load(id digest.Digest) ([]byte, bool) {
	f, err := p.root.Open(pageName(id))
	if err != nil {
		return nil, false
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close()) == nil
}

// Save stores the page.
func (p pageCache) Save(id digest.Digest, b []byte) error {
	name := pageName(id)
	if err := p.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := p.root.Create(name, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// removeUnused removes the pages that are not in keep.
func (p pageCache) removeUnused(keep map[digest.Digest]struct{}) error {
	shards, err := p.root.ReadDir(pagesDir)
	if err != nil {
		return err
	}
	for _, s := range shards {
		dir := path.Join(pagesDir, s.Name())
		pages, err := p.root.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range pages {
			id, err := digest.Parse(s.Name() + e.Name())
			if err == nil {
				if _, ok := keep[id]; ok {
					continue
				}
			}
			if err := p.root.RemoveAll(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
