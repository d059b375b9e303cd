// Package verify compares a folder with a release and changes neither. If a path cannot be checked, that is a
// finding, never a pass.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

// Difference is the way in which a path differs from the release.
type Difference string

// The differences.
const (
	Missing    Difference = "missing"
	Extra      Difference = "extra" // not in the release: the site's own
	Size       Difference = "size"
	Hash       Difference = "hash" // the right size, other bytes
	Time       Difference = "time"
	Mode       Difference = "mode"
	Kind       Difference = "kind"       // a folder for a file, a link for a folder
	Unreadable Difference = "unreadable" // the path could not be checked
)

// Finding is one problem of one path.
type Finding struct {
	Path    string     `json:"path"`
	Problem Difference `json:"problem"`
	Detail  string     `json:"detail"`
	Folder  bool       `json:"-"` // Extra: the path is a folder
}

// Options of [Run].
type Options struct {
	Quick   bool           // names, sizes, times and modes only
	Workers int            // concurrent readers; 0: one per processor
	Ignore  *scan.Patterns // matching paths that are not in the release are not findings; nil: none

	// After resumes: paths up to and including this one are skipped.
	After string
	// Suspect, if set, selects files whose bytes are read even with Quick.
	Suspect func(path string) bool
	// Limit, if set, is called after n bytes were read and may wait. Several goroutines call it. Its error ends the
	// run.
	Limit func(ctx context.Context, n int) error
	// Read, if set, is called for each file whose bytes were read, in path order and after the file's findings. All
	// earlier paths are done then. It is called from the same goroutine as fn.
	Read func(path string, bytes int64)
	// Keep, if set, receives the progress of reading a large file, from time to time and when the run is stopped.
	// Several goroutines call it. Another run resumes there if it gets the Part in Parts.
	Keep  func(Part)
	Parts []Part
}

// Totals counts the checked paths.
type Totals struct {
	Files    int64 `json:"files"`    // of the release
	Dirs     int64 `json:"dirs"`     // of the release
	Bytes    int64 `json:"bytes"`    // of content read
	Findings int64 `json:"findings"` // all problems except extra
	Extra    int64 `json:"extra"`
}

// bufferSize is the size in bytes of one read.
const bufferSize = 1 << 20

// ahead limits the paths that are checked before the findings of an earlier one are reported. A resumed run reads
// at most these again.
const ahead = 64

// job is one path. Jobs report their findings in path order.
type job struct {
	entry *manifest.Entry // to be read; nil: findings are complete
	found []Finding
	bytes int64
	done  chan struct{}
}

// run is one verification.
type run struct {
	o       Options
	root    *durable.Root
	keeps   durable.Traits // the metadata that the target's file system keeps
	entries manifest.Next
	entry   *manifest.Entry // the next of the release, nil at the end
	totals  Totals
	work    chan *job
	order   chan *job
	ignored string // a folder of the site's own that Ignore matches
	other   string // a path of another kind than the release's: its finding covers the paths below it
}

// Run compares target with the entries, which must come in path order. It calls fn for every finding in path order,
// from one goroutine. If Run returns an error, the comparison is incomplete.
func Run(ctx context.Context, target string, entries manifest.Next, o Options, fn func(Finding)) (Totals, error) {
	root, err := durable.Open(target, durable.Options{})
	if err != nil {
		return Totals{}, fmt.Errorf("verify: %w", err)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	r := &run{o: o, root: root, keeps: loadTraits(root), entries: entries, work: make(chan *job, ahead), order: make(chan *job, ahead)}
	var bytes, findings, extra int64
	g, gctx := errgroup.WithContext(ctx)
	for range o.Workers {
		g.Go(func() error { return r.readJobs(gctx) })
	}
	g.Go(func() error {
		defer close(r.order)
		defer close(r.work)
		return r.compareWalk(gctx)
	})
	g.Go(func() error {
		for j := range r.order {
			if j.done != nil {
				select {
				case <-j.done:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
			if gctx.Err() != nil {
				return context.Cause(gctx) // findings after a stop may only be caused by the stop
			}
			bytes += j.bytes
			for _, f := range j.found {
				if f.Problem == Extra {
					extra++
				} else {
					findings++
				}
				fn(f)
			}
			if j.entry != nil && o.Read != nil {
				o.Read(j.entry.Path, j.bytes)
			}
		}
		return nil
	})
	err = errors.Join(g.Wait(), root.Close())
	if err == nil {
		err = ctx.Err()
	}
	r.totals.Bytes, r.totals.Findings, r.totals.Extra = bytes, findings, extra
	if err != nil {
		err = fmt.Errorf("verify %q: %w", target, err)
	}
	return r.totals, err
}

// compareWalk merges the walk with the release.
func (r *run) compareWalk(ctx context.Context) (err error) {
	names := scan.NewNames(r.keeps)
	if names != nil {
		if err := r.bufferEntries(names); err != nil {
			return err
		}
	}
	for {
		if r.entry, err = r.entries(); err != nil {
			return err
		}
		if r.entry == nil || !r.isPassed(r.entry.Path) {
			break
		}
	}
	err = scan.Walk(ctx, r.root.Dir(), scan.WalkOptions{Names: names, Skip: func(path string, _ bool) bool {
		return len(path) == len(manifest.StateDir) && strings.EqualFold(path, manifest.StateDir)
	}}, func(it scan.Item) error {
		if r.isPassed(it.Path) {
			return nil
		}
		return r.handleItem(ctx, &it)
	})
	if err != nil {
		return err
	}
	return r.handleItem(ctx, nil)
}

// bufferEntries reads all entries ahead, because names are translated from the start of the walk.
func (r *run) bufferEntries(names *scan.Names) error {
	var all []manifest.Entry
	for {
		e, err := r.entries()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		names.Add(e.Path)
		all = append(all, *e)
	}
	at := 0
	r.entries = func() (*manifest.Entry, error) {
		if at == len(all) {
			return nil, nil
		}
		at++
		return &all[at-1], nil
	}
	return nil
}

// loadTraits returns the file system traits that a pull recorded in the target. If there are none, because no pull has
// made the folder, the file system is expected to keep everything.
func loadTraits(root *durable.Root) durable.Traits {
	t, err := durable.ReadTraits(root, manifest.StateDir+"/traits.json")
	if err != nil {
		return durable.Traits{Modes: runtime.GOOS != "windows", Grain: 100, Earliest: math.MinInt64, Latest: math.MaxInt64} // NTFS keeps 100 ns
	}
	return t
}

// isPassed reports whether an earlier run has checked the path.
func (r *run) isPassed(path string) bool {
	return r.o.After != "" && scan.Compare(path, r.o.After) <= 0
}

// handleItem handles the release's entries up to and including the item's path; a nil item means the end.
func (r *run) handleItem(ctx context.Context, it *scan.Item) error {
	for r.entry != nil {
		e := r.entry
		d := -1
		if it != nil {
			d = scan.Compare(e.Path, it.Path)
		}
		if d > 0 {
			break
		}
		var err error
		if d < 0 {
			err = r.checkPath(ctx, e, nil)
		} else {
			err = r.checkPath(ctx, e, it)
		}
		if err == nil {
			r.entry, err = r.entries()
		}
		if err != nil || d == 0 {
			return err
		}
	}
	if it != nil {
		return r.checkExtra(ctx, it)
	}
	return nil
}

func isBelow(dir, path string) bool {
	return dir != "" && len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir)
}

func (r *run) checkExtra(ctx context.Context, it *scan.Item) error {
	if isBelow(r.ignored, it.Path) {
		return nil
	}
	if r.o.Ignore.Skip(it.Path, it.Kind == scan.Dir) {
		if it.Kind == scan.Dir {
			r.ignored = strings.Clone(it.Path)
		}
		return nil
	}
	detail := fmt.Sprintf("a %s that is not in the release", it.Kind)
	if it.Err != nil {
		detail += ": " + it.Err.Error()
	}
	return r.sendFindings(ctx, Finding{Path: it.Path, Problem: Extra, Detail: detail, Folder: it.Kind == scan.Dir})
}

func (r *run) checkPath(ctx context.Context, e *manifest.Entry, it *scan.Item) error {
	if e.Kind == manifest.Dir {
		r.totals.Dirs++
	} else {
		r.totals.Files++
	}
	switch {
	case it == nil && isBelow(r.other, e.Path):
		return r.sendFindings(ctx, Finding{Path: e.Path, Problem: Unreadable, Detail: fmt.Sprintf("%q stands in its way", r.other)})
	case it == nil:
		return r.sendFindings(ctx, Finding{Path: e.Path, Problem: Missing, Detail: "the release has it"})
	case it.Err != nil:
		r.other = e.Path
		return r.sendFindings(ctx, Finding{Path: e.Path, Problem: Unreadable, Detail: it.Err.Error()})
	case e.Kind == manifest.Dir && it.Kind != scan.Dir || e.Kind == manifest.File && it.Kind != scan.File:
		r.other = e.Path
		return r.sendFindings(ctx, Finding{Path: e.Path, Problem: Kind, Detail: fmt.Sprintf("it is a %s, the release has a %s", it.Kind, e.Kind)})
	}
	var found []Finding
	if want := e.SiteMode(); !durable.SameMode(r.root, &r.keeps, e.Path, it.Stat.Mode, want) {
		found = append(found, Finding{Path: e.Path, Problem: Mode, Detail: fmt.Sprintf("it is %04o, the release says %04o", it.Stat.Mode&0o777, want)})
	}
	if e.Kind == manifest.Dir {
		return r.sendFindings(ctx, found...)
	}
	if !r.keeps.SameTime(it.Stat.MTime, e.MTime) {
		found = append(found, Finding{Path: e.Path, Problem: Time, Detail: fmt.Sprintf("it is %s, the release says %s", formatStamp(it.Stat.MTime), formatStamp(e.MTime))})
	}
	if it.Stat.Size != e.Size {
		return r.sendFindings(ctx, append(found, Finding{Path: e.Path, Problem: Size, Detail: fmt.Sprintf("it has %d bytes, the release says %d", it.Stat.Size, e.Size)})...)
	}
	if r.o.Quick && (r.o.Suspect == nil || !r.o.Suspect(e.Path)) {
		return r.sendFindings(ctx, found...)
	}
	// The job may keep the entry: it is part of a page, which is decoded once for some hundred entries.
	return r.sendJob(ctx, &job{entry: e, found: found, done: make(chan struct{})})
}

func (r *run) sendFindings(ctx context.Context, found ...Finding) error {
	if len(found) == 0 {
		return nil
	}
	return r.sendJob(ctx, &job{found: found})
}

func (r *run) sendJob(ctx context.Context, j *job) error {
	if j.entry != nil {
		select {
		case r.work <- j:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case r.order <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *run) readJobs(ctx context.Context) error {
	buf := make([]byte, bufferSize)
	for j := range r.work {
		var err error
		if ctx.Err() == nil {
			err = r.readFile(ctx, j, buf)
		}
		close(j.done)
		if err != nil {
			return err
		}
	}
	return nil
}

// readFile compares every byte of a file with the release. It returns only errors of Options.Limit.
func (r *run) readFile(ctx context.Context, j *job, buf []byte) error {
	e := j.entry
	sum, n, err := r.hashFile(ctx, e, buf)
	j.bytes = n
	var limited *limitError
	switch {
	case errors.As(err, &limited):
		return limited.error
	case err != nil:
		j.found = append(j.found, Finding{Path: e.Path, Problem: Unreadable, Detail: err.Error()})
	case sum != e.Digest:
		j.found = append(j.found, Finding{Path: e.Path, Problem: Hash, Detail: fmt.Sprintf("its SHA-256 is %s, the release says %s", sum.Short(), e.Digest.Short())})
	}
	return nil
}

// limitError marks an error of the limit, as opposed to one of the file.
type limitError struct{ error }

func (r *run) hashFile(ctx context.Context, e *manifest.Entry, buf []byte) (d digest.Digest, n int64, err error) {
	f, err := r.root.Open(e.Path)
	if err != nil {
		return d, 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	before, err := f.Stat()
	if err != nil {
		return d, 0, err
	}
	h, offset, err := r.startFile(f, e, before)
	kept := offset
	for err == nil {
		var k int
		k, err = f.Read(buf)
		h.Write(buf[:k])
		n += int64(k)
		if at := offset + n; at-kept >= partEvery || ctx.Err() != nil {
			kept = at
			r.keepPart(e, before, h, at)
		}
		if cerr := ctx.Err(); cerr != nil {
			return d, n, cerr
		}
		if r.o.Limit != nil && k > 0 {
			if lerr := r.o.Limit(ctx, k); lerr != nil {
				return d, n, &limitError{lerr}
			}
		}
	}
	if err != io.EOF {
		return d, n, err
	}
	after, err := f.Stat()
	if err != nil {
		return d, n, err
	}
	if offset+n != e.Size || !after.ModTime().Equal(before.ModTime()) {
		return d, n, fmt.Errorf("it was changed while it was read: %w", fs.ErrInvalid)
	}
	h.Sum(d[:0])
	return d, n, nil
}
