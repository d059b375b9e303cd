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
	if err == nil || errors.Is(err, fs.ErrNotExist) && (t.checks.Applied != nil || t.o.Held != nil) && !t.checks.Unowned && !t.o.Adopt {
		return fmt.Errorf("%w: it is missing", scan.ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rebuildCatalogue makes a new catalogue after the old one was lost, and sets the old one aside. The run that follows reads
// every file again.
func (s *site) rebuildCatalogue(ctx context.Context, head *repo.Head, why error) error {
	if s.unrecorded {
		if err := s.checkUnmarked(ctx, head); err != nil || s.o.Held == nil {
			return err
		}
	}
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
		entries, err := s.remote.entriesOf(ctx, Applied{h.Number, h.Release})
		if err != nil {
			return err
		}
		if entries != nil {
			next = entries
		} else {
			sure = false
		}
	}
	if !sure {
		s.report.emitRetry(ErrUnowned)
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
		h.Complete, h.Unowned = false, s.target.checks.Unowned
		err = w.Commit(*h)
	}
	if errors.Is(err, scan.ErrCorrupt) {
		before.close() // Windows renames no file that is open
		err = errors.Join(s.target.setAside(beforeName, err), w.Abort())
		if err == nil {
			return s.rebuildCatalogue(ctx, head, why) // without it
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
	if h := before.header(); h != nil || s.o.Held == nil || s.o.Held.Number == 0 {
		return h, false
	}
	return &scan.Header{Repo: s.remote.repo.ID(), Channel: s.o.Channel, Number: s.o.Held.Number, Release: s.o.Held.Release}, false
}

// entriesOf returns the entries of a release; nil if gc has removed it.
func (r *remote) entriesOf(ctx context.Context, a Applied) (manifest.Next, error) {
	rel, err := r.repo.Release(ctx, r.o.Channel, a.Number, a.Release)
	if err == nil {
		err = r.repo.Manifests(r.pages).Load(ctx, r.loadIndex, rel.PageIDs(), r.fetchOptions())
	}
	if errors.Is(err, fs.ErrNotExist) || isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.repo.Manifests(r.pages).Entries(rel), nil
}

// checkUnmarked decides whether a target without any record is the one that held a release: it then holds a share of
// the release's files. If that release is not known or not stored any more, the wanted one takes its place. If not, it
// returns an EmptiedError, or, on another machine, forgets the release.
func (s *site) checkUnmarked(ctx context.Context, head *repo.Head) (err error) {
	var next manifest.Next
	if s.o.Held.Number > 0 {
		if next, err = s.remote.entriesOf(ctx, s.o.Held.Applied); err != nil {
			return err
		}
	}
	if next == nil {
		number, want, err := s.chooseRelease(head, nil)
		if err != nil {
			return err
		}
		rel, err := s.remote.readRelease(ctx, head, number, want)
		if err != nil {
			return err
		}
		if next, err = s.remote.entriesOf(ctx, Applied{rel.Number, rel.Digest}); err != nil || next == nil {
			return err
		}
	}
	ours, err := s.target.holdsShare(next)
	switch {
	case err != nil || ours:
		return err
	case s.o.Held.Replaced:
		s.o.Held = nil
		return nil
	}
	s.vacant = true
	return &EmptiedError{Target: s.target.root.Dir(), Channel: s.o.Channel}
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

// ErrUnowned means that the release is in place, and that the record of the files of earlier releases is lost.
var ErrUnowned = errors.New("ownership lost: the record of what releases have put here is gone, so files that an earlier release put here cannot be told from the site's own, and stay")

// checkOwnership withholds the verdict of a target whose ownership is lost until the target holds only the release, or Adopt
// declares the rest to be the site's own.
func (s *site) checkOwnership() error {
	if !s.target.checks.Unowned || s.report.res.Verdict != Verified {
		return nil
	}
	if s.report.res.Extra > 0 && !s.o.Adopt {
		s.report.res.Verdict, s.report.res.NoOp, s.report.res.Unowned = Incomplete, false, true
		s.report.emitRetry(ErrUnowned)
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
