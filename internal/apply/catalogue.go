package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	"nightferry/internal/commit"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// provisional is the CTime of a record whose file is not yet in place: only its size and modification time are
// known.
const provisional = -1

// records reads a catalogue with one record of lookahead.
type records struct {
	r   *scan.CatalogueReader // nil: there is no catalogue
	rec *scan.Record
	end bool
}

// openRecords opens a catalogue. If the file is missing, the result has no records.
func (t *targetDir) openRecords(name string) (*records, error) {
	r, err := scan.OpenCatalogue(t.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &records{end: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return &records{r: r}, nil
}

func (r *records) close() {
	if r.r != nil {
		_ = r.r.Close() // it was only read
	}
}

// header returns nil if there is no catalogue.
func (r *records) header() *scan.Header {
	if r.r == nil {
		return nil
	}
	h := r.r.Header()
	return &h
}

// peek returns the next record, nil at the end.
func (r *records) peek() (*scan.Record, error) {
	if r.rec == nil && !r.end {
		rec, err := r.r.Next()
		if errors.Is(err, io.EOF) {
			r.end = true
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		r.rec = rec
	}
	return r.rec, nil
}

func (r *records) pop() { r.rec = nil }

// findRecord returns the record of a path, or nil if there is none. It skips the records before it.
func (r *records) findRecord(path string) (*scan.Record, error) {
	for {
		rec, err := r.peek()
		if rec == nil || err != nil {
			return nil, err
		}
		switch d := scan.Compare(rec.Path, path); {
		case d == 0:
			r.pop()
			return rec, nil
		case d > 0:
			return nil, nil
		}
		r.pop()
	}
}

// setAside keeps a damaged file under another name, for later analysis.
func (t *targetDir) setAside(name string, why error) error {
	to, err := durable.SetAside(t.root, name)
	if err == nil {
		t.report.emitAside(name, to, why)
	}
	return err
}

// writeNext writes the post-commit catalogue before the commit, so that the commit can be finished without a
// repository. It merges the release, the old catalogue and the changes in path order.
func (s *site) writeNext(ctx context.Context, rel *repo.Release, changes []change) error {
	old, err := s.target.openRecords(catalogueName)
	if err != nil {
		return err
	}
	defer old.close()
	w, err := scan.CreateCatalogue(s.target.root, nextName)
	if err != nil {
		return err
	}
	complete, err := s.fillNext(ctx, w, old, rel, changes)
	if err == nil {
		err = w.Commit(scan.Header{Repo: s.remote.repo.ID(), Channel: s.o.Channel, Number: rel.Number, Release: rel.Digest,
			Totals: rel.Totals, Tree: rel.Tree, Complete: complete, Made: s.o.Now().UnixNano(), Unowned: s.target.checks.Unowned})
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

func (s *site) fillNext(ctx context.Context, w *scan.CatalogueWriter, old *records, rel *repo.Release, changes []change) (complete bool, err error) {
	now := s.o.Now().Unix()
	next := s.remote.repo.Manifests(s.remote.pages).Entries(rel)
	complete = true
	at := 0
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		e, err := next()
		if err != nil {
			return false, err
		}
		// Paths that the release does not have but that are still ours to delete.
		for at < len(changes) && (e == nil || scan.Less(changes[at].path, e.Path)) {
			c := &changes[at]
			at++
			if !c.remainsToDelete() {
				continue
			}
			complete = false
			if err := carryRecord(w, old, c.path); err != nil {
				return false, err
			}
		}
		if e == nil {
			return complete, nil
		}
		var c *change
		if at < len(changes) && changes[at].path == e.Path {
			c = &changes[at]
			at++
		}
		switch {
		case c == nil || c.act == actTouch && c.isDir() && c.state != stDropped || c.act == actMkdir && c.state != stDropped:
			err = s.keepEntry(w, old, e)
		case c.state == stDropped:
			complete = false
			err = carryRecord(w, old, e.Path)
		case c.act == actNone:
			err = w.Add(scan.NewRecord(e, c.foundStat(), now))
		case c.act == actTouch:
			var rec *scan.Record
			if rec, err = old.findRecord(e.Path); err == nil {
				checked := now
				if rec != nil && s.target.sameStat(rec.Stat, c.foundStat()) && !s.target.isDoubted(e.Path) {
					checked = rec.Checked // this run has not read it
				}
				err = w.Add(scan.NewRecord(e, scan.Stat{Size: e.Size, MTime: e.MTime, CTime: provisional}, checked))
			}
		default:
			err = w.Add(scan.NewRecord(e, scan.Stat{Size: e.Size, MTime: e.MTime, CTime: provisional}, now))
		}
		if err != nil {
			return false, err
		}
	}
}

// remainsToDelete reports whether the change is a deletion that is still to be made. The catalogue keeps the path then.
func (c *change) remainsToDelete() bool {
	return (c.act == actRemove || c.act == actRmdir) && c.state == stDropped && c.owned && c.out != runs.FileExtra
}

// carryRecord copies the record of a path that stays unchanged.
func carryRecord(w *scan.CatalogueWriter, old *records, path string) error {
	rec, err := old.findRecord(path)
	if rec == nil || err != nil {
		return err
	}
	return w.Add(*rec)
}

// keepEntry writes the release's entry with the stat and last read time from the old catalogue.
func (s *site) keepEntry(w *scan.CatalogueWriter, old *records, e *manifest.Entry) error {
	rec, err := old.findRecord(e.Path)
	if err != nil {
		return err
	}
	var st scan.Stat
	var checked int64
	if rec != nil && e.Kind == manifest.File {
		st, checked = rec.Stat, rec.Checked
	}
	return w.Add(scan.NewRecord(e, st, checked))
}

// recordTarget walks the target again and replaces the catalogue by catalogue.next, with the current stat of every file.
// A file that differs from the commit's result, or that cannot be looked at, gets an unknown stat, so that the next
// run reads it. A deletion that is left keeps its record. recordTarget returns the number of wrong paths.
func (s *site) recordTarget(ctx context.Context, left []commit.Left) (wrong int64, err error) {
	s.report.emitPhase(PhaseRecord)
	next, err := s.target.openRecords(nextName)
	if err != nil {
		return 0, err
	}
	defer next.close()
	h := next.header()
	if h == nil {
		return 0, fmt.Errorf("open %q: %w", nextName, fs.ErrNotExist)
	}
	w, err := scan.CreateCatalogue(s.target.root, catalogueName)
	if err != nil {
		return 0, err
	}
	f := &final{target: s.target, report: s.report, commit: s.commit, lists: map[digest.Digest]struct{}{}, w: w, next: next, failed: s.reported}
	s.report.resetProofs()
	s.lists = f.lists
	if f.deletes, err = s.leftRecords(left); err == nil {
		err = f.writeCatalogue(ctx)
	}
	if err == nil {
		tree := f.tree.Sum()
		s.report.res.Tree, s.report.res.Totals = tree, f.totals
		h.Complete = h.Complete && f.wrong == 0 && len(left) == 0 && tree == h.Tree && f.totals == h.Totals
		if err = s.target.retainCatalogue(h); err == nil {
			err = w.Commit(*h)
		}
	}
	if err != nil {
		return 0, errors.Join(err, w.Abort())
	}
	return f.wrong, nil
}

// leftRecords returns the records of files whose deletion is left, and of the folders above them, in path order.
func (s *site) leftRecords(left []commit.Left) ([]scan.Record, error) {
	var paths []string
	for _, o := range left {
		if o.Kind == commit.Delete {
			paths = append(paths, o.Path)
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	dirs := map[string]struct{}{}
	for _, p := range paths {
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			dirs[d] = struct{}{}
		}
	}
	paths = slices.AppendSeq(paths, maps.Keys(dirs))
	slices.SortFunc(paths, scan.Compare)
	old, err := s.target.openOld()
	if err != nil {
		return nil, err
	}
	defer old.close()
	var recs []scan.Record
	for _, p := range paths {
		rec, err := old.findRecord(p)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			recs = append(recs, *rec)
		}
	}
	return recs, nil
}

// final writes the catalogue after a commit.
type final struct {
	target  *targetDir
	report  *reporter
	commit  *commit.Commit
	lists   map[digest.Digest]struct{} // chunk-list pages of the entries
	w       *scan.CatalogueWriter
	next    *records
	deletes []scan.Record       // still to come, in path order
	failed  map[string]struct{} // paths whose outcome is reported elsewhere
	tree    manifest.TreeHash
	totals  manifest.Totals
	wrong   int64
	blind   string // a folder that cannot be listed: the records below it are kept
}

func (f *final) writeCatalogue(ctx context.Context) error {
	names, err := f.target.namesOf(nextName, nil)
	if err != nil {
		return err
	}
	if err := f.target.walkTarget(ctx, names, func(it scan.Item) error { return f.upTo(&it) }); err != nil {
		return err
	}
	return f.upTo(nil)
}

// upTo handles the records up to and including the item's; nil is the end.
func (f *final) upTo(it *scan.Item) error {
	for {
		rec, err := f.next.peek()
		if rec == nil || err != nil {
			if err == nil && it == nil {
				err = f.writeLeft("")
			}
			return err
		}
		d := -1
		if it != nil {
			d = scan.Compare(rec.Path, it.Path)
		}
		if d > 0 {
			return nil
		}
		f.next.pop()
		if err := f.writeLeft(rec.Path); err != nil {
			return err
		}
		if d < 0 {
			err = f.writeRecord(rec, nil)
		} else {
			err = f.writeRecord(rec, it)
		}
		if err != nil || d == 0 {
			return err
		}
	}
}

// writeLeft writes the records of the deletions that are left, up to a path; "" means all.
func (f *final) writeLeft(path string) error {
	for len(f.deletes) > 0 && (path == "" || scan.Compare(f.deletes[0].Path, path) <= 0) {
		// A folder may be in the new release as well.
		if f.deletes[0].Path != path {
			if err := f.w.Add(f.deletes[0]); err != nil {
				return err
			}
		}
		f.deletes = f.deletes[1:]
	}
	return nil
}

func (f *final) writeRecord(rec *scan.Record, it *scan.Item) error {
	e, err := rec.Entry()
	if err != nil {
		return err
	}
	for _, l := range e.Lists {
		f.lists[l.ID] = struct{}{}
	}
	if it != nil && it.Err != nil {
		f.blind = rec.Path
	}
	_, told := f.failed[rec.Path]
	st, ok := f.target.settleStat(rec, it)
	if told && rec.Stat.CTime == provisional {
		st, ok = scan.Stat{}, false // size and time may be the old file's as well
	}
	if !ok {
		f.wrong++
		if !told {
			cause := errNotLeft
			if it == nil && !isBelow(f.blind, rec.Path) {
				cause = f.noteAltered(rec)
			}
			f.report.emitUnexpected(Event{Path: rec.Path, Outcome: runs.FileFailed, Size: e.Size, Digest: e.Digest, Cause: cause})
		}
		if it == nil && !isBelow(f.blind, rec.Path) {
			return nil
		}
	} else {
		if e.Kind == manifest.Dir {
			f.totals.Dirs++
		} else {
			f.totals.Files++
			f.totals.Bytes += e.Size
			f.report.countProof(e.Size, rec.Checked)
		}
		f.tree.Add(e.Kind, e.Path, e.Digest)
	}
	rec.Stat = st
	if ok && e.Kind == manifest.Dir && !durable.SameMode(f.target.root, &f.target.keeps, rec.Path, st.Mode, e.SiteMode()) && f.commit.LeftOpen(rec.Path) {
		rec.Stat = scan.Stat{} // the next run repairs the mode
	}
	return f.w.Add(*rec)
}

var errNotLeft = errors.New("it is not as this run left it: a program changed it meanwhile, or it could not be put in its place; the next pull repairs it")

// settleStat compares a record with the entry on disk and returns the stat to keep, and whether they match. The zero
// Stat matches nothing.
func (t *targetDir) settleStat(rec *scan.Record, it *scan.Item) (scan.Stat, bool) {
	if it == nil || it.Err != nil || it.Kind != rec.Kind {
		return scan.Stat{}, false
	}
	switch {
	case rec.Kind == scan.Dir:
		return scan.Stat{Mode: it.Stat.Mode}, true
	case rec.Stat.CTime == provisional:
		if it.Stat.Size == rec.Stat.Size && t.keeps.SameTime(it.Stat.MTime, rec.Stat.MTime) {
			return it.Stat, true
		}
	case t.sameStat(rec.Stat, it.Stat):
		return it.Stat, true
	}
	return scan.Stat{}, false
}
