package core

import (
	"errors"
	"io"
	"sync"
	"time"

	"nightferry/internal/digest"
)

// pageCache keeps manifest pages in a folder, since many sites report about the
// same release. What it gives back is checked by whoever asked, so that it may
// be damaged or lost; and so it is not synced.
type pageCache struct {
	core *Core
	mu   sync.Mutex
	made map[string]bool
}

const pagesName = "pages"

func pageName(id digest.Digest) string {
	s := id.String()
	return pagesName + "/" + s[:2] + "/" + s
}

// Load implements repo.Pages.
func (p *pageCache) Load(id digest.Digest) ([]byte, bool) {
	f, err := p.core.state.Open(pageName(id))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return b, err == nil
}

// Save implements repo.Pages.
func (p *pageCache) Save(id digest.Digest, page []byte) error {
	name := pageName(id)
	dir := name[:len(pagesName)+3]
	p.mu.Lock()
	if p.made == nil {
		p.made = map[string]bool{}
	}
	if !p.made[dir] {
		if err := p.core.state.MkdirAll(dir, 0o700); err != nil {
			p.mu.Unlock()
			return err
		}
		p.made[dir] = true
	}
	p.mu.Unlock()
	f, err := p.core.state.Create(name, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(page, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// pageLife is how long a page stays that nobody fetched again.
const pageLife = 60 * 24 * time.Hour

// prune removes old pages; they come back when they are needed.
func (p *pageCache) prune(now time.Time) error {
	dirs, err := p.core.state.ReadDir(pagesName)
	if err != nil {
		return nil // none yet
	}
	var errs []error
	for _, d := range dirs {
		files, err := p.core.state.ReadDir(pagesName + "/" + d.Name())
		errs = append(errs, err)
		for _, f := range files {
			info, err := f.Info()
			if err == nil && now.Sub(info.ModTime()) > pageLife {
				errs = append(errs, p.core.state.Remove(pagesName+"/"+d.Name()+"/"+f.Name()))
			}
		}
	}
	return errors.Join(errs...)
}
