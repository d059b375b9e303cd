package apply

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
)

// The catalogue records which files were put there by releases, and are therefore ours to delete. If it is lost,
// the same facts come from the manifest of the applied release and from the previous catalogue, which every commit
// keeps.

// keepBefore renames the catalogue that is about to be replaced. When a commit is repeated, this may have happened
// already.
func (s *site) keepBefore(h *scan.Header) error {
	if err := s.root.Rename(catalogueName, beforeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := Applied{Number: h.Number, Release: h.Release}
	if old := s.checks.Applied; old != nil && *old == now {
		return nil
	}
	s.checks.Applied = &now
	return writeChecks(s.root, s.checks)
}

// openOld opens the catalogue that preceded the commit under way.
func (s *site) openOld() (*records, error) {
	r, err := s.openRecords(catalogueName)
	if err == nil && r.r == nil {
		return s.openRecords(beforeName)
	}
	return r, err
}

// unrecorded returns scan.ErrCorrupt if a target without a catalogue once had one.
func (s *site) unrecorded() error {
	_, err := s.root.Lstat(beforeName)
	if err == nil || errors.Is(err, fs.ErrNotExist) && (s.checks.Applied != nil || s.o.Held) && !s.checks.Unowned && !s.o.Adopt {
		return fmt.Errorf("%w: it is missing", scan.ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rebuild makes a new catalogue after the old one was lost, and sets the old one aside. The run that follows reads
// every file again.
func (s *site) rebuild(ctx context.Context, why error) error {
	before, err := s.openRecords(beforeName)
	if errors.Is(err, scan.ErrCorrupt) {
		before, err = &records{end: true}, s.setAside(beforeName, err)
	}
	if err != nil {
		return err
	}
	defer before.close()
	h, sure := s.headerLeft(before)
	if err := s.setAside(catalogueName, why); err != nil {
		return err
	}
	next := manifest.Next(func() (*manifest.Entry, error) { return nil, nil })
	if h != nil {
		rel, err := s.repo.Release(ctx, h.Channel, h.Number, h.Release)
		if err == nil {
			err = s.repo.LoadPages(ctx, s.at, rel.PageIDs(), s.pages, s.fetchOptions())
		}
		switch {
		case err == nil:
			next = s.repo.Entries(rel, s.pages)
		case errors.Is(err, fs.ErrNotExist), isMissing(err): // gc has removed it
			sure = false
		default:
			return err
		}
	}
	if !sure {
		s.retry(errUnowned)
		s.checks.Unowned = true
		if err := writeChecks(s.root, s.checks); err != nil || h == nil {
			return err
		}
	}
	w, err := scan.CreateCatalogue(s.root, catalogueName)
	if err != nil {
		return err
	}
	if err = unite(w, next, before); err == nil {
		h.Complete = false
		err = w.Commit(*h)
	}
	if errors.Is(err, scan.ErrCorrupt) {
		before.close() // Windows renames no file that is open
		err = errors.Join(s.setAside(beforeName, err), w.Abort())
		if err == nil {
			return s.rebuild(ctx, why) // without it
		}
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

func isMissing(err error) bool {
	var missing *repo.MissingError
	return errors.As(err, &missing)
}

// headerLeft returns the header of the lost catalogue, or its best substitute. If it comes from catalogue.before,
// or is nil, ownership is not sure.
func (s *site) headerLeft(before *records) (h *scan.Header, sure bool) {
	if r, err := scan.OpenCatalogue(s.root, catalogueName); err == nil {
		h := r.Header()
		_ = r.Close() // it was only read
		return &h, true
	}
	if a := s.checks.Applied; a != nil {
		return &scan.Header{Repo: s.repo.ID(), Channel: s.o.Channel, Number: a.Number, Release: a.Release}, true
	}
	return before.header(), false
}

// unite writes the entries of a release, and those records of an older catalogue that the release does not have.
// All stats are unknown.
func unite(w *scan.CatalogueWriter, next manifest.Next, before *records) error {
	e, err := next()
	for err == nil {
		var rec *scan.Record
		if rec, err = before.peek(); err != nil || e == nil && rec == nil {
			break
		}
		switch {
		case rec == nil || e != nil && !scan.Less(rec.Path, e.Path):
			if rec != nil && rec.Path == e.Path {
				before.pop()
			}
			if err = w.Add(scan.NewRecord(e, scan.Stat{}, 0)); err == nil {
				e, err = next()
			}
		default:
			before.pop()
			rec.Stat, rec.Checked = scan.Stat{}, 0
			err = w.Add(*rec)
		}
	}
	return err
}

var errUnowned = errors.New("ownership lost: the record of what releases have put here is gone, so files that a release dropped cannot be told from the site's own and stay")

// owns withholds the verdict of a target whose ownership is lost until the target holds only the release, or Adopt
// declares the rest to be the site's own.
func (s *site) owns() error {
	if !s.checks.Unowned || s.res.Verdict != Verified {
		return nil
	}
	if s.res.Extra > 0 && !s.o.Adopt {
		s.res.Verdict, s.res.NoOp, s.res.Unowned = Incomplete, false, true
		s.retry(errUnowned)
		return nil
	}
	s.checks.Unowned = false
	return writeChecks(s.root, s.checks)
}

// keepMoved keeps the files that a commit had moved out of the way before its journal was lost: they may be the
// site's own.
func (s *site) keepMoved() error {
	list, err := s.root.ReadDir(outDir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil
	}
	if err == nil {
		err = s.root.MkdirAll(asideDir, 0o755)
	}
	if err != nil {
		return err
	}
	name := asideDir + "/" + rand.Text()
	s.retry(fmt.Errorf("what the lost commit had moved out of the way is kept in %q: look through it, then remove it", name))
	return s.root.Rename(outDir, name)
}
