package main

import (
	"os"
	"path/filepath"

	"nightferry/internal/digest"
)

// pageDir keeps manifest pages in a temporary folder: a release of a million
// files has a hundred megabytes of them, too much to hold. What it gives back
// is checked by whoever asked.
type pageDir struct{ dir string }

func newPageDir() (*pageDir, error) {
	dir, err := os.MkdirTemp("", "nightferry-pages-")
	return &pageDir{dir}, err
}

func (p *pageDir) Load(id digest.Digest) ([]byte, bool) {
	b, err := os.ReadFile(filepath.Join(p.dir, id.String()))
	return b, err == nil
}

func (p *pageDir) Save(id digest.Digest, page []byte) error {
	return os.WriteFile(filepath.Join(p.dir, id.String()), page, 0o600)
}

func (p *pageDir) done() error {
	if p == nil {
		return nil
	}
	return os.RemoveAll(p.dir)
}
