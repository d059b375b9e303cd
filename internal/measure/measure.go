// Package measure reads a channel's source independently and compares it with the release that was published from it.
// It shares only the walk with package push, but no stat cache, no chunker and no manifest pages. It reads every file
// that seems unchanged to its end, and computes the tree digest by the recipe of docs/format/release.md. So if both
// agree, two independent implementations have found the same result.
package measure

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// Finding is one path that differs. It was added to the source, changed (its
// size, time or kind) or removed: the source has moved on. Or it differs (size
// and time are the release's, the bytes are not), or failed to be read.
type Finding struct {
	Path    string
	Outcome runs.Outcome
	Size    int64         // present bytes; for a path that is gone, the release's
	Digest  digest.Digest // of the bytes that were read; zero if none were
	Cause   string
}

// Options of [Run].
type Options struct {
	Patterns  *scan.Patterns // of the publish; nil: everything
	SkipLinks bool           // the publisher skips links and special files; otherwise each is New
	Rate      int64          // bytes read per second; 0: no limit
	Workers   int            // files read at once; 0: half the processors, at most 4
	// OnProgress is called after each file, by one goroutine at a time. It may be nil.
	OnProgress func(Result)
}

// Result is the result of a measurement.
type Result struct {
	Files, Bytes int64 // of the present source, by names and sizes

	// The paths of the release: compared paths with their measured values, paths that have moved on or could not be
	// compared with the release's. These are the values that sites must hold.
	WantFiles, WantBytes int64
	Tree                 digest.Digest

	runs.Counts       // of an unchanged file, every byte was compared
	Read        int64 // bytes
}

// MovedOn counts the paths that no longer allow a conclusion about the release.
func (r *Result) MovedOn() int64 { return r.Changed + r.Added + r.Deleted }

// bufferSize is the size of a worker's reads, and so the burst of a rate.
const bufferSize = 128 << 10

// job is one path, or several paths that need no reading. Jobs are counted in path order.
type job struct {
	entry *manifest.Entry // of the release; nil: New
	item  scan.Item       // of the source
	here  bool            // item is set
	found *Finding        // nil: no difference
	sum   digest.Digest
	read  int64
	done  chan struct{} // closed after reading; nil: nothing to read
}

// run is one measurement.
type run struct {
	o       Options
	root    *os.Root
	limit   *rate.Limiter
	entries manifest.Next
	entry   *manifest.Entry // the next of the release, nil at the end
	work    chan *job
	order   chan *job
	blind   string // a folder that cannot be listed: the release's paths below it were not checked
	res     Result
	tree    treeDigest
}

// Run compares the folder dir with a release's entries, which come in path order. It calls fn for every difference in
// path order, from one goroutine. If Run returns an error, for example because the folder is missing, the measurement
// is incomplete and proves nothing.
func Run(ctx context.Context, dir string, entries manifest.Next, o Options, fn func(Finding)) (_ Result, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Result{}, fmt.Errorf("measure the source (is it mounted, may this account read it?): %w", err)
	}
	defer root.Close()
	if o.Workers <= 0 {
		o.Workers = max(1, min(4, runtime.GOMAXPROCS(0)/2))
	}
	r := &run{o: o, root: root, entries: entries, work: make(chan *job, 64), order: make(chan *job, 1024), tree: newTreeDigest()}
	if o.Rate > 0 {
		r.limit = rate.NewLimiter(rate.Limit(o.Rate), bufferSize)
	}
	g, gctx := errgroup.WithContext(ctx)
	for range o.Workers {
		g.Go(func() error { return r.readJobs(gctx) })
	}
	g.Go(func() error {
		defer close(r.order)
		defer close(r.work)
		return r.compareWalk(gctx, dir)
	})
	g.Go(func() error { return r.collectResults(gctx, fn) })
	err = g.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return r.res, fmt.Errorf("measure %q: %w", dir, err)
	}
	r.res.Tree = r.tree.sum()
	return r.res, nil
}

// compareWalk merges the walk with the release.
func (r *run) compareWalk(ctx context.Context, dir string) (err error) {
	if r.entry, err = r.entries(); err != nil {
		return err
	}
	skip := func(path string, isDir bool) bool {
		return path == manifest.StateDir || r.o.Patterns != nil && r.o.Patterns.Skip(path, isDir)
	}
	err = scan.Walk(ctx, dir, scan.WalkOptions{Skip: skip, Workers: 2}, func(it scan.Item) error { return r.handleItem(ctx, it) })
	for err == nil && r.entry != nil {
		err = r.sendJob(ctx, &job{entry: r.entry})
		if err == nil {
			r.entry, err = r.entries()
		}
	}
	return err
}

// handleItem handles the release up to and including the item's path.
func (r *run) handleItem(ctx context.Context, it scan.Item) error {
	if scan.Vanished(it.Err) {
		return nil // the release's entry there follows with the next path, as gone
	}
	for r.entry != nil {
		d := scan.Compare(r.entry.Path, it.Path)
		if d > 0 {
			break
		}
		j := &job{entry: r.entry}
		if d == 0 {
			j.item, j.here = it, true
		}
		if err := r.sendJob(ctx, j); err != nil {
			return err
		}
		var err error
		if r.entry, err = r.entries(); err != nil || d == 0 {
			return err
		}
	}
	if r.o.SkipLinks && it.Err == nil && (it.Kind == scan.Link || it.Kind == scan.Special) {
		return nil
	}
	return r.sendJob(ctx, &job{item: it, here: true})
}

// sendJob compares an entry with the walk's data, and queues files that must be read.
func (r *run) sendJob(ctx context.Context, j *job) error {
	j.found = r.judgeJob(j)
	if j.found == nil && j.entry.Kind == manifest.File {
		j.done = make(chan struct{})
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

func (r *run) judgeJob(j *job) *Finding {
	it, e := &j.item, j.entry
	switch {
	case !j.here && r.blind != "" && strings.HasPrefix(e.Path, r.blind+"/"):
		return &Finding{Path: e.Path, Outcome: runs.FileFailed, Size: e.Size, Cause: fmt.Sprintf("the folder %q cannot be listed", r.blind)}
	case !j.here:
		return &Finding{Path: e.Path, Outcome: runs.FileRemoved, Size: e.Size, Cause: "it is no longer in the source"}
	case it.Err != nil:
		r.blind = it.Path
		return &Finding{Path: it.Path, Outcome: runs.FileFailed, Size: it.Stat.Size, Cause: it.Err.Error()}
	case e == nil:
		return &Finding{Path: it.Path, Outcome: runs.FileAdded, Size: it.Stat.Size, Cause: fmt.Sprintf("a %s that is not in the release", it.Kind)}
	case e.Kind == manifest.Dir && it.Kind != scan.Dir, e.Kind == manifest.File && it.Kind != scan.File:
		return &Finding{Path: it.Path, Outcome: runs.FileChanged, Size: it.Stat.Size, Cause: fmt.Sprintf("it is a %s now, a %s in the release", it.Kind, e.Kind)}
	case e.Kind == manifest.File && (it.Stat.Size != e.Size || it.Stat.MTime != e.MTime):
		return movedFinding(e, it.Stat.Size, it.Stat.MTime)
	}
	return nil
}

func movedFinding(e *manifest.Entry, size, mtime int64) *Finding {
	return &Finding{Path: e.Path, Outcome: runs.FileChanged, Size: size, Cause: fmt.Sprintf("%d bytes of %s now, %d of %s in the release", size, formatStamp(mtime), e.Size, formatStamp(e.MTime))}
}

func formatStamp(ns int64) string {
	return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.999999999Z")
}

// collectResults counts the paths in path order.
func (r *run) collectResults(ctx context.Context, fn func(Finding)) error {
	for j := range r.order {
		if j.done != nil {
			select {
			case <-j.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			// If the measurement was stopped, this file was not read completely. That proves nothing about the file.
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		r.countJob(j)
		if j.found != nil {
			fn(*j.found)
		}
		if r.o.OnProgress != nil {
			r.o.OnProgress(r.res)
		}
	}
	return nil
}

func (r *run) countJob(j *job) {
	if j.here && j.item.Err == nil {
		if j.item.Kind != scan.Dir {
			r.res.Files++
			r.res.Bytes += j.item.Stat.Size
		}
	}
	r.res.Read += j.read
	sum, outcome := j.sum, runs.FileUnchanged
	if j.found != nil {
		outcome = j.found.Outcome
	}
	r.res.Add(outcome)
	e := j.entry
	if e == nil {
		return
	}
	if j.found != nil {
		sum = e.Digest
	}
	if e.Kind == manifest.Dir {
		r.tree.addDir(e.Path)
		return
	}
	size := e.Size
	if j.found == nil {
		size = j.item.Stat.Size
	}
	r.res.WantFiles++
	r.res.WantBytes += size
	r.tree.addFile(e.Path, sum)
}

func (r *run) readJobs(ctx context.Context) error {
	buf := make([]byte, bufferSize)
	for j := range r.work {
		if ctx.Err() == nil {
			r.readFile(ctx, j, buf)
		}
		close(j.done)
	}
	return nil
}
