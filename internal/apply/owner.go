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

// retainCatalogue renames the catalogue that is about to be replaced. When a commit is repeated, this may have happened
// already.
func (t *targetDir) retainCatalogue(h *scan.Header) error {
	before, err := t.openRecords(beforeName)
	if errors.Is(err, scan.ErrCorrupt) {
		err = t.setAside(beforeName, err)
	} else if err == nil {
		before.close()
	}
	if err != nil {
		return err
	}
	if err := t.root.Rename(catalogueName, beforeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := Applied{Number: h.Number, Release: h.Release}
	if old := t.checks.Applied; old != nil && *old == now {
		return nil
	}
	t.checks.Applied = &now
	return writeChecks(t.root, t.checks)
}

// openOld opens the catalogue that preceded the commit under way.
func (t *targetDir) openOld() (*records, error) {
	r, err := t.openRecords(catalogueName)
	if err == nil && r.r == nil {
		return t.openRecords(beforeName)
	}
	return r, err
}

// checkUnrecorded returns scan.ErrCorrupt if a target without a catalogue once had one.
func (t *targetDir) checkUnrecorded() error {
	_, err := t.root.Lstat(beforeName)
	if err == nil || errors.Is(err, fs.ErrNotExist) && (t.checks.Applied != nil || t.o.Held) && !t.checks.Unowned && !t.o.Adopt {
		return fmt.Errorf("%w: it is missing", scan.ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rebuildCatalogue makes a new catalogue after the old one was lost, and sets the old one aside. The run that follows reads
// every file again.
func (s *site) rebuildCatalogue(ctx context.Context, why error) error {
	before, err := s.target.openRecords(beforeName)
	if errors.Is(err, scan.ErrCorrupt) {
		before, err = &records{end: true}, s.target.setAside(beforeName, err)
	}
	if err != nil {
		return err
	}
	defer before.close()
	h, sure := s.headerLeft(before)
	if err := s.target.setAside(catalogueName, why); err != nil {
		return err
	}
	next := manifest.Next(func() (*manifest.Entry, error) { return nil, nil })
	if h != nil {
		rel, err := s.remote.repo.Release(ctx, h.Channel, h.Number, h.Release)
		if err == nil {
			err = s.remote.repo.Manifests(s.remote.pages).Load(ctx, s.remote.loadIndex, rel.PageIDs(), s.remote.fetchOptions())
		}
		switch {
		case err == nil:
			next = s.remote.repo.Manifests(s.remote.pages).Entries(rel)
		case errors.Is(err, fs.ErrNotExist), isMissing(err): // gc has removed it
			sure = false
		default:
			return err
		}
	}
	if !sure {
		s.report.emitRetry(errUnowned)
		s.target.checks.Unowned = true
		if err := writeChecks(s.target.root, s.target.checks); err != nil || h == nil {
			return err
		}
	}
	w, err := scan.CreateCatalogue(s.target.root, catalogueName)
	if err != nil {
		return err
	}
	if err = uniteRecords(w, next, before); err == nil {
		h.Complete = false
		err = w.Commit(*h)
	}
	if errors.Is(err, scan.ErrCorrupt) {
		before.close() // Windows renames no file that is open
		err = errors.Join(s.target.setAside(beforeName, err), w.Abort())
		if err == nil {
			return s.rebuildCatalogue(ctx, why) // without it
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
	if r, err := scan.OpenCatalogue(s.target.root, catalogueName); err == nil {
		h := r.Header()
		_ = r.Close() // it was only read
		return &h, true
	}
	if a := s.target.checks.Applied; a != nil {
		return &scan.Header{Repo: s.remote.repo.ID(), Channel: s.o.Channel, Number: a.Number, Release: a.Release}, true
	}
	return before.header(), false
}

// uniteRecords writes the entries of a release, and those records of an older catalogue that the release does not have.
// All stats are unknown.
func uniteRecords(w *scan.CatalogueWriter, next manifest.Next, before *records) error {
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

// checkOwnership withholds the verdict of a target whose ownership is lost until the target holds only the release, or Adopt
// declares the rest to be the site's own.
func (s *site) checkOwnership() error {
	if !s.target.checks.Unowned || s.report.res.Verdict != Verified {
		return nil
	}
	if s.report.res.Extra > 0 && !s.o.Adopt {
		s.report.res.Verdict, s.report.res.NoOp, s.report.res.Unowned = Incomplete, false, true
		s.report.emitRetry(errUnowned)
		return nil
	}
	s.target.checks.Unowned = false
	return writeChecks(s.target.root, s.target.checks)
}

// keepMoved keeps the files that a commit had moved out of the way before its journal was lost: they may be the
// site's own.
func (t *targetDir) keepMoved() error {
	list, err := t.root.ReadDir(outDir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil
	}
	if err == nil {
		err = t.root.MkdirAll(asideDir, 0o755)
	}
	if err != nil {
		return err
	}
	name := asideDir + "/" + rand.Text()
	t.report.emitRetry(fmt.Errorf("files that the lost commit had moved aside are kept in %q: look through them, then remove the folder", name))
	return t.root.Rename(outDir, name)
}
