package reports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// RenderOptions of a Renderer. All are required.
type RenderOptions struct {
	Ledger   RunEvents
	Logs     *record.Logs
	Releases *releases.Reader
	Notices  Notices
	// Unchanged reports whether the logs of a channel name unchanged files, too.
	Unchanged func(channel string) bool
	Incidents Incidents
}

// Renderer writes the log files of ended runs. It owns the queue of what is still to
// be written. It is safe for concurrent use.
type Renderer struct {
	o                 RenderOptions
	wake              chan struct{}
	rendered, backlog atomic.Int64
}

// NewRenderer returns a Renderer; Run starts it.
func NewRenderer(o RenderOptions) *Renderer {
	return &Renderer{o: o, wake: make(chan struct{}, 1)}
}

// Rendered returns how many log files were written, and how many wait.
func (r *Renderer) Rendered() (written, waiting int64) { return r.rendered.Load(), r.backlog.Load() }

// RunEvents reads the events of runs. *ledger.Ledger is one.
type RunEvents interface {
	Unrendered(ctx context.Context) ([]ledger.Run, error)
	MarkRendered(ctx context.Context, id ledger.RunID) error
	RunEvents(ctx context.Context, id ledger.RunID, fn func(ledger.Event) error) error
	Release(ctx context.Context, channel string, number trust.ReleaseNumber) (ledger.Release, error)
	Append(ctx context.Context, domain, site string, events []ledger.Event) (ledger.Committed, error)
}

// Kick makes the renderer check for work immediately.
func (r *Renderer) Kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// renderRetry is the renderer's delay after a failure.
const renderRetry = 30 * time.Second

// Run writes the log file of each ended run that has none, one at a time, until ctx ends.
// After a crash between writing the file and marking the run in the ledger, the same file is
// written again.
func (r *Renderer) Run(ctx context.Context) error {
	retry := time.NewTimer(renderRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-retry.C:
		}
		runs, err := r.o.Ledger.Unrendered(ctx)
		bad := err
		r.backlog.Store(int64(len(runs)))
		for i := range runs {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := r.renderLog(ctx, &runs[i]); err != nil {
				bad = fmt.Errorf("log of run %s: %w", runs[i].ID, err)
				continue
			}
			r.rendered.Add(1)
			r.backlog.Add(-1)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case bad != nil:
			r.o.Incidents.Raise(kinds.Rendering, "", wire.Address{}, fmt.Sprintf("%v; it is kept in the ledger and tried again", bad))
			r.o.Notices.ReportFailure("log", bad)
		default:
			r.o.Incidents.Resolve(kinds.Rendering, "", wire.Address{})
		}
		retry.Reset(renderRetry)
	}
}

func (r *Renderer) renderLog(ctx context.Context, run *ledger.Run) (err error) {
	if run.Site != "" && run.Trigger == "" {
		if kept, err := r.keptLog(ctx, run); kept || err != nil {
			return err
		}
	}
	w, err := r.o.Logs.Create(PlaceOf(run), r.Header(ctx, run))
	if err != nil {
		return err
	}
	defer w.Abort()
	all := run.Site != "" && run.State.Accounted() && r.o.Unchanged(run.Channel)
	if err := r.Lines(ctx, run, all, w.Line); err != nil {
		return err
	}
	if err := w.Close(endOf(run)); err != nil {
		return err
	}
	return r.o.Ledger.MarkRendered(ctx, run.ID)
}

// keptLog handles a run whose start event is missing because the ledger was restored from a backup.
// The site may report the end of such a run again. If a complete log of the run exists, keptLog
// keeps it unchanged, restores the start event from its header, and marks the run as rendered.
func (r *Renderer) keptLog(ctx context.Context, run *ledger.Run) (kept bool, err error) {
	at := ""
	f := record.Filter{Domain: run.Domain, Site: run.Site, Channel: run.Channel, Run: run.ID.String()}
	if err := r.o.Logs.List(f, func(l record.Log) error { at = l.Path; return nil }); err != nil || at == "" {
		return false, err
	}
	h, _, err := r.o.Logs.Scan(at, func(record.File) error { return nil })
	if err != nil {
		return false, nil // a partial log is no better than the ledger's data
	}
	start := ledger.Start{Number: h.Release, Release: h.Digest, Parent: h.Parent, Trigger: h.Trigger, DryRun: h.DryRun}
	start.Tree, _ = digest.Parse(h.Tree)
	if _, err := r.o.Ledger.Append(ctx, run.Domain, run.Site, []ledger.Event{{Run: run.ID, Channel: run.Channel, Kind: ownStart, At: h.Started, Start: &start}}); err != nil {
		return false, err
	}
	return true, r.o.Ledger.MarkRendered(ctx, run.ID)
}

func PlaceOf(run *ledger.Run) record.Place {
	return record.Place{Domain: run.Domain, Site: run.Site, Channel: run.Channel, Date: run.Started, Run: run.ID.String()}
}

func (r *Renderer) Header(ctx context.Context, run *ledger.Run) record.Header {
	h := record.Header{Run: run.ID.String(), Domain: run.Domain, Site: run.Site, Channel: run.Channel, Release: run.Number, Digest: run.Release,
		Parent: run.Parent, Files: run.Totals.Files, Bytes: run.Totals.Bytes, Trigger: run.Trigger, DryRun: run.DryRun, Started: run.Started}
	tree := run.Tree
	if rel, err := r.o.Ledger.Release(ctx, run.Channel, run.Number); err == nil && rel.Digest == run.Release {
		// Also if the run ended before it counted them.
		tree, h.Files, h.Bytes = rel.Tree, rel.Files, rel.Bytes
	}
	if !tree.IsZero() {
		h.Tree = tree.String()
	}
	return h
}

func endOf(run *ledger.Run) record.End {
	e := record.End{State: run.State, Cause: run.Cause, Finished: run.Finished, Totals: run.Totals}
	if !run.Attestation.IsZero() {
		e.Attestation = run.Attestation.String()
	}
	return e
}

// outcome is a file's outcome with the time of the event that reported it.
type outcome struct {
	wire.File
	at time.Time
}

// maxHeld bounds, in bytes, the texts held in memory while a run's outcomes are sorted. It suffices
// for a million moved or deleted files. The bound is needed because a site can report any number of
// paths.
const maxHeld = 128 << 20

// Lines calls fn for each file that the run changed or failed to change; with all, also for the
// release's unchanged files. Files of the release come first, in path order, followed by files that
// are not in it. Of the latter, those beyond maxHeld come last, in the order in which they were
// reported.
func (r *Renderer) Lines(ctx context.Context, run *ledger.Run, all bool, fn func(record.File) error) error {
	return r.LinesWithin(ctx, run, all, maxHeld, fn)
}

// LinesWithin is Lines that holds texts of at most so many bytes in memory.
func (r *Renderer) LinesWithin(ctx context.Context, run *ledger.Run, all bool, most int, fn func(record.File) error) error {
	if run.Site == "" {
		return r.ownLines(ctx, run, fn)
	}
	k, known, err := r.releaseOf(ctx, run)
	if err != nil {
		return err
	}
	err = r.siteLines(ctx, run, k, known, all, most, fn)
	if known && isGone(err) {
		err = r.siteLines(ctx, run, k, false, all, most, fn)
	}
	return err
}

// isGone reports whether the store no longer has the release or one of its pages: gc removed it
// before the site could report. The log then has ordinals instead of names.
func isGone(err error) bool {
	missing := (*repo.MissingError)(nil)
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, &missing)
}

// siteLines calls fn for each line of a site's run. If known is set, the release supplies the names
// of entries, and fn is first called after the whole release was found.
func (r *Renderer) siteLines(ctx context.Context, run *ledger.Run, k releases.Key, known, all bool, most int, fn func(record.File) error) error {
	x := ordered{paths: map[string]outcome{}, most: most}
	err := r.eachOutcome(ctx, run, func(o outcome) error {
		if o.Path == "" && !known { // a site can name any release; only published ones have a manifest
			f := fileOf(o, nil)
			f.Path = fmt.Sprintf("entry %d", o.Ordinal)
			return fn(f)
		}
		if o.Path == "" && x.bound == 0 {
			rel, err := r.o.Releases.Release(ctx, k)
			if err != nil {
				return err
			}
			for _, p := range rel.Pages {
				x.bound += uint64(p.Entries)
			}
		}
		x.addOutcome(o)
		return nil
	})
	if err != nil {
		return err
	}
	left := maps.Clone(x.paths)
	if known && (len(x.entries) > 0 || all || len(left) > 0) {
		if err := r.mergeOutcomes(ctx, run, k, x.sortedOutcomes(), left, all, fn); err != nil {
			return err
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(left), manifest.ComparePaths) {
		if err := fn(fileOf(left[p], nil)); err != nil {
			return err
		}
	}
	if !x.more {
		return nil
	}
	return r.eachOutcome(ctx, run, func(o outcome) error {
		if _, told := x.paths[o.Path]; told || o.Path == "" {
			return nil
		}
		return fn(fileOf(o, nil))
	})
}

// eachOutcome calls fn for each outcome that a site reported for a run, in order of arrival.
func (r *Renderer) eachOutcome(ctx context.Context, run *ledger.Run, fn func(outcome) error) error {
	return r.o.Ledger.RunEvents(ctx, run.ID, func(e ledger.Event) error {
		if wire.EventKind(e.Kind) != wire.OutcomesEvent {
			return nil
		}
		list, err := wire.DecodeOutcomes(e.Body)
		if err != nil {
			return nil // it has an incident already, and no more data can be read from it
		}
		for _, o := range list {
			if err := fn(outcome{o, e.At}); err != nil {
				return err
			}
		}
		return nil
	})
}

// ordered holds a run's outcomes and keeps only the last one of each file. A correct site sends one
// per file.
type ordered struct {
	bound   uint64    // entries of the release
	entries []outcome // sorted by ordinal after sortedOutcomes(); at most two of each
	paths   map[string]outcome
	more    bool // some paths did not fit
	texts   int  // bytes held
	most    int  // maximum of texts, in bytes
}

// perPath is the memory overhead of one path, in bytes.
const perPath = 200

func (x *ordered) addOutcome(o outcome) {
	if o.Path == "" && o.Ordinal >= x.bound {
		return
	}
	size := len(o.Path) + len(o.From) + len(o.Cause)
	if o.Path != "" {
		size += perPath
	}
	if x.texts+size > x.most {
		if _, twice := x.paths[o.Path]; o.Path != "" && !twice {
			x.more = true
			return
		}
		o.From, o.Cause, size = "", "", 0
	}
	x.texts += size
	if o.Path != "" {
		x.paths[o.Path] = o
		return
	}
	if uint64(len(x.entries)) >= 2*x.bound {
		x.sortedOutcomes()
	}
	x.entries = append(x.entries, o)
}

// sortedOutcomes returns the entries by ordinal.
func (x *ordered) sortedOutcomes() []outcome {
	slices.SortStableFunc(x.entries, func(a, b outcome) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	last := x.entries[:0]
	for i, o := range x.entries {
		if i+1 == len(x.entries) || x.entries[i+1].Ordinal != o.Ordinal {
			last = append(last, o)
		}
	}
	x.entries = last
	return last
}

// releaseOf returns the release of a run. Known is set if the Core has published it.
func (r *Renderer) releaseOf(ctx context.Context, run *ledger.Run) (k releases.Key, known bool, err error) {
	k = releases.Key{Channel: run.Channel, Number: run.Number, Digest: run.Release}
	rel, err := r.o.Ledger.Release(ctx, run.Channel, run.Number)
	if errors.Is(err, ledger.ErrNotFound) {
		return k, false, nil
	}
	return k, err == nil && rel.Digest == run.Release, err
}

// mergeOutcomes walks the release and the outcomes side by side, by ordinal. It removes from paths the
// outcomes that it has passed to fn.
func (r *Renderer) mergeOutcomes(ctx context.Context, run *ledger.Run, k releases.Key, entries []outcome, paths map[string]outcome, all bool, fn func(record.File) error) error {
	_, next, err := r.o.Releases.Entries(ctx, k)
	if err != nil {
		return err
	}
	for ordinal := uint64(0); ; ordinal++ {
		e, err := next()
		if err != nil {
			return err
		}
		if e == nil {
			return nil
		}
		told := false
		if len(entries) > 0 && entries[0].Ordinal == ordinal {
			told = true
			if err := fn(fileOf(entries[0], e)); err != nil {
				return err
			}
			entries = entries[1:]
		}
		if o, ok := paths[e.Path]; ok && !told && o.Outcome != runs.FileDeleted && o.Outcome != runs.FileExtra {
			told = true
			delete(paths, e.Path)
			if err := fn(fileOf(o, e)); err != nil {
				return err
			}
		}
		if all && !told {
			if err := fn(r.Untold(run, e)); err != nil {
				return err
			}
		}
	}
}

// Untold returns the line of an entry that has no outcome. Folders get one too, because a site's
// counts of added and unchanged entries include folders.
func (r *Renderer) Untold(run *ledger.Run, e *manifest.Entry) record.File {
	f := record.File{Path: e.Path, Outcome: runs.FileUnreached, Size: e.Size}
	if run.State.Accounted() {
		f.Outcome, f.Held = runs.FileUnchanged, e.Size
	}
	if e.Kind == manifest.File {
		f.SHA256 = e.Digest.String()
	}
	return f
}

func fileOf(o outcome, e *manifest.Entry) record.File {
	f := record.File{Path: o.Path, Outcome: o.Outcome, Held: o.Held, Fetched: o.Fetched, From: o.From, Cause: o.Cause, At: o.at}
	if e != nil {
		f.Path, f.Size = e.Path, e.Size
		if e.Kind == manifest.File {
			f.SHA256 = e.Digest.String()
		}
	}
	return f
}

// OwnFile is the line of one file in a run of the Core itself.
type OwnFile struct {
	_       struct{} `cbor:",toarray"`
	Path    string
	Outcome runs.Outcome
	Size    int64
	Digest  digest.Digest
	Cause   string
}

// The kinds of the Core's own events, distinct from the kinds in wire: OwnEvent holds files,
// ownStart holds only a run's start.
const (
	OwnEvent = 64
	ownStart = 65
)

func (r *Renderer) ownLines(ctx context.Context, run *ledger.Run, fn func(record.File) error) error {
	return r.OwnFiles(ctx, run.ID, func(o *OwnFile, at time.Time) error {
		f := record.File{Path: o.Path, Outcome: o.Outcome, Size: o.Size, Cause: o.Cause, At: at}
		if !o.Digest.IsZero() {
			f.SHA256 = o.Digest.String()
		}
		return fn(f)
	})
}

// OwnFiles calls fn for each file that a run of the Core has recorded.
func (r *Renderer) OwnFiles(ctx context.Context, id ledger.RunID, fn func(f *OwnFile, at time.Time) error) error {
	return r.o.Ledger.RunEvents(ctx, id, func(e ledger.Event) error {
		if e.Kind != OwnEvent {
			return nil
		}
		var list []OwnFile
		if err := wire.Decode(e.Body, &list); err != nil {
			return err
		}
		for i := range list {
			if err := fn(&list[i], e.At); err != nil {
				return err
			}
		}
		return nil
	})
}
