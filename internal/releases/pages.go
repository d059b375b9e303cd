package releases

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// pages keeps manifest pages in a folder, because many sites report about the
// same release. Readers check every page, so that a page may be damaged or lost;
// therefore pages are not synced.
type pages struct {
	dir  *durable.Root
	mu   sync.Mutex
	made map[string]bool
}

const pagesName = "pages"

func pageName(id digest.Digest) string {
	s := id.String()
	return pagesName + "/" + s[:2] + "/" + s
}

// Load implements repo.Pages.
func (p *pages) Load(id digest.Digest) ([]byte, bool) {
	f, err := p.dir.Open(pageName(id))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return b, err == nil
}

// Save implements repo.Pages.
func (p *pages) Save(id digest.Digest, page []byte) error {
	name := pageName(id)
	dir := name[:len(pagesName)+3]
	p.mu.Lock()
	if p.made == nil {
		p.made = map[string]bool{}
	}
	if !p.made[dir] {
		if err := p.dir.MkdirAll(dir, 0o700); err != nil {
			p.mu.Unlock()
			return err
		}
		p.made[dir] = true
	}
	p.mu.Unlock()
	f, err := p.dir.Create(name, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(page, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

const (
	// pageLife is how long a page stays that no one fetched again.
	pageLife = 60 * 24 * time.Hour
	// maxPageBytes bounds the pages in bytes: those of some ten thousand small
	// releases, or of the newest large ones.
	maxPageBytes = 256 << 20
)

// keptPage is one page on the disk.
type keptPage struct {
	name  string
	size  int64
	saved time.Time
}

// prune removes pages that are old, or too many; they come back when they are needed.
func (p *pages) prune(now time.Time) error {
	dirs, err := p.dir.ReadDir(pagesName)
	if err != nil {
		return nil // none yet
	}
	var errs []error
	var all []keptPage
	for _, d := range dirs {
		files, err := p.dir.ReadDir(pagesName + "/" + d.Name())
		errs = append(errs, err)
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				all = append(all, keptPage{pagesName + "/" + d.Name() + "/" + f.Name(), info.Size(), info.ModTime()})
			}
		}
	}
	for _, page := range stalePages(all, now, maxPageBytes) {
		errs = append(errs, p.dir.Remove(page.name))
	}
	return errors.Join(errs...)
}

// stalePages returns the pages that exceed pageLife, and the oldest of the others
// until these fit into most bytes.
func stalePages(all []keptPage, now time.Time, most int64) []keptPage {
	slices.SortFunc(all, func(a, b keptPage) int { return b.saved.Compare(a.saved) }) // newest first
	total := int64(0)
	for i, page := range all {
		if total += page.size; total > most || now.Sub(page.saved) > pageLife {
			return all[i:]
		}
	}
	return nil
}
