package core

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/heads"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/publishing"
	"nightferry/internal/push"
	"nightferry/internal/reports"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/text"
	"nightferry/internal/wire"
)

// Publisher publishes channels.
type Publisher struct {
	o           *Options
	settings    *atomic.Pointer[Settings]
	ledger      runReader
	book        *runBook
	storage     *storage
	newest      *heads.Service
	publishing  *publishing.Service
	files       ownFiles
	ended       func() // a run has ended, so that a log is to be written
	notices     *notices
	healing     *atomic.Bool // something was published since the bucket was checked
	adopt       func(ctx context.Context, channel string, run ledger.RunID) (news bool, err error)
	desire      func(context.Context, desired.Change) error
	measureSoon func(channel string)
	// checkIncarnation fails if another Core has taken over, or if that is unknown.
	checkIncarnation func(context.Context) error
}

// Channels returns the names of the configured channels, sorted.
func (pb *Publisher) Channels() []string {
	var names []string
	for _, ch := range pb.settings.Load().Fleet.Channels {
		names = append(names, ch.Name)
	}
	slices.Sort(names)
	return names
}

// ErrPublishing says that the channel is being published already.
var ErrPublishing = errors.New("it is being published already: wait for that to end")

// Publish publishes a channel's source and states the release to its sites. Two of
// the same channel do not run at once. Whatever its end, there is a run in the
// ledger, and a log.
//
// Errors are those of push.Run, and ErrPublishing.
func (pb *Publisher) Publish(ctx context.Context, channel string, o PublishOptions) (*Published, error) {
	return pb.publishUnless(ctx, channel, o, func(error) bool { return false })
}

// publishUnless is Publish that opens no incident for an error of which quiet returns
// true: the caller tries again.
func (pb *Publisher) publishUnless(ctx context.Context, channel string, o PublishOptions, quiet func(error) bool) (*Published, error) {
	f := pb.settings.Load().Fleet
	ch := f.Channel(channel)
	if ch == nil {
		_, err := f.Select(fleet.Scope{Channel: channel})
		if err == nil {
			err = fmt.Errorf("no channel %q is configured", channel)
		}
		return nil, err
	}
	ctx, end, ok := pb.publishing.Begin(ctx, publishing.Publish, channel)
	if !ok {
		return nil, ErrPublishing
	}
	defer pb.measureSoon(channel) // once it is free
	defer end()
	p, err := pb.publishChannel(ctx, ch, o)
	err = withCause(ctx, err)
	if err != nil && ctx.Err() == nil && !o.DryRun && o.Reviewed.IsZero() && !errors.As(err, new(*halt.Error)) && !quiet(err) { // else who asked, or who gave the order, knows
		pb.notices.incidents.Raise(kinds.Publishes, ch.Name, wire.Address{}, fmt.Sprintf("channel %s: %v", ch.Name, err))
	}
	return p, err
}

// withCause adds the halt order, or the newer Core, that stopped a publish to its error.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == ctx.Err() || errors.As(err, new(*halt.Error)) || errors.As(err, new(*incarnation.OlderError)) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

func (pb *Publisher) publishChannel(ctx context.Context, ch *fleet.Channel, o PublishOptions) (*Published, error) {
	old, _ := pb.newest.Of(ch.Name)
	w := pb.book.begin(ch.Name)
	id := w.id
	// The record is kept also of a run that was broken off.
	always := context.WithoutCancel(ctx)
	if err := w.appendEvent(always, ledger.Event{Start: &ledger.Start{Number: old.Number, Parent: old.Number, Trigger: "publish", DryRun: o.DryRun}}); err != nil {
		pb.notices.LedgerFailed(err)
		return nil, fmt.Errorf("its run cannot be recorded: %w", err)
	}
	if err := pb.notices.Audit(always, "publish", "channel "+ch.Name, "run "+id.String()); err != nil {
		return nil, err
	}
	pb.notices.emitEvent(Event{Kind: RunStarted, Channel: ch.Name, Run: id.String()})
	res, err := pb.pushSource(ctx, ch, o, w)
	err = withCause(ctx, byChannelKey(err, ch.Name))
	p := &Published{Run: id.String(), Channel: ch.Name}
	end := ledger.Finish{State: runs.Failed}
	if err != nil {
		end.Totals.Counts = w.counts
		end.Cause = text.Bound(err.Error(), reports.MaxRunText)
		guard := (*push.GuardError)(nil)
		stop := (*halt.Error)(nil)
		switch {
		case errors.As(err, &guard):
			end.State = runs.Refused
		case errors.As(err, &stop), ctx.Err() != nil:
			end.State = runs.Stopped
		}
	} else {
		*p = Published{Run: id.String(), Channel: ch.Name, Number: res.Number, Digest: res.Digest, Tree: res.Tree, Unchanged: res.Unchanged, DryRun: res.DryRun,
			Files: res.Totals.Files, Dirs: res.Totals.Dirs, Bytes: res.Totals.Bytes, Added: res.Added, Changed: res.Changed, Touched: res.Touched, Removed: res.Removed, Skipped: res.Skipped,
			Read: res.Read, Sent: res.Sent}
		end.State = runs.Published
		switch {
		case res.DryRun:
			end.State = runs.Planned
		case res.Unchanged:
			end.State = runs.Nothing
		}
		// What a push counts are entries, of files and folders.
		end.Totals = runs.Totals{Files: res.Totals.Files, Bytes: res.Totals.Bytes, Counts: w.counts, Fetched: res.Sent}
		end.Totals.Unchanged = res.Totals.Files + res.Totals.Dirs - w.counts.Added - w.counts.Changed
		if !res.DryRun {
			w.appendEvent(always, ledger.Event{Start: &ledger.Start{Number: res.Number, Release: res.Digest, Tree: res.Tree, Parent: old.Number, Trigger: "publish"}}) //nolint:errcheck // the finish below fails too
			pb.notices.incidents.Resolve(kinds.Publishes, ch.Name, wire.Address{})
			pb.healing.Store(true)
		}
	}
	if err2 := errors.Join(w.flushFiles(always), w.appendEvent(always, ledger.Event{Finish: &end})); err2 != nil {
		pb.notices.LedgerFailed(err2)
		err = errors.Join(err, err2)
	}
	pb.ended()
	if run, err := pb.ledger.Run(always, id); err == nil {
		pb.notices.emitEvent(Event{Kind: RunEnded, Channel: ch.Name, Run: id.String(), Text: string(run.State), Ended: &run})
	}
	sites, serr := pb.settings.Load().Fleet.Select(fleet.Scope{Channel: ch.Name})
	p.Sites = len(sites)
	if err != nil || o.DryRun {
		return p, err
	}
	if _, err := pb.adopt(ctx, ch.Name, id); err != nil {
		return p, err
	}
	if err := pb.desire(ctx, desired.Change{}); err != nil {
		return p, err
	}
	return p, serr
}

// byChannelKey lets a guard name the configuration's key where push has a flag
// that publish lacks.
func byChannelKey(err error, channel string) error {
	guard := (*push.GuardError)(nil)
	if !errors.As(err, &guard) {
		return err
	}
	g := *guard
	key := "channels." + channel
	g.Why = strings.NewReplacer("use --allow-unportable-names", "set "+key+".unportable_names: allow", "with --links skip", "with "+key+".links: skip").Replace(g.Why)
	return &g
}

func (pb *Publisher) pushSource(ctx context.Context, ch *fleet.Channel, o PublishOptions, w *ownRun) (res *push.Result, err error) {
	patterns, err := scan.ParsePatterns(ch.Include, ch.Exclude)
	if err != nil {
		return nil, err
	}
	// A folder for each channel: no publish waits for another's caches.
	dir, err := pb.storage.openSubfolder("publish-" + ch.Name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	unlock, err := durable.Lock(dir, "lock")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	// A key may have been rotated since the last look, and the halt object be signed by it.
	r, err := pb.storage.reopenRepository(ctx, pb.storage.store.Load(), pb.storage.keys.Load())
	if err != nil {
		return nil, err
	}
	pb.storage.repo.Store(r)
	if err := pb.checkIncarnation(ctx); err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // only for halt orders that name it as a site
	links := push.Refuse
	if ch.Links == fleet.Skip {
		links = push.Skip
	}
	var spoke time.Time
	return push.Run(ctx, r, ch.Source, push.Options{
		Channel: ch.Name, Patterns: patterns, Links: links, IgnoreInode: ch.IgnoreInode,
		MaxDelete: ch.MaxDelete, MaxDeleteFiles: ch.MaxDeleteFiles, AllowUnportable: ch.AllowUnportable,
		AllowDeletes: o.AllowDeletes, AllowEmpty: o.AllowEmpty, AllowUnmounted: o.AllowUnmounted, Rehash: o.Rehash, DryRun: o.DryRun, Reviewed: o.Reviewed,
		Key: pb.storage.keys.Load().release, State: dir, Subject: halt.Subject{Site: host, Channel: ch.Name}, Now: pb.o.Now,
		OnEvent: func(e push.Event) {
			p := e.Progress
			if p == nil {
				w.addFile(context.WithoutCancel(ctx), reports.OwnFile{Path: e.Path, Outcome: e.Outcome, Size: e.Size, Digest: e.Digest, Cause: e.Cause})
				return
			}
			if now := pb.o.Now(); now.Sub(spoke) >= time.Second {
				spoke = now
				rp := runs.Progress{Phase: p.Phase, FilesDone: p.Files, FilesTotal: p.TotalFiles, BytesDone: p.Read, BytesTotal: p.ToRead, BytesWire: p.Sent}
				if o.OnProgress != nil {
					o.OnProgress(rp)
				}
				pb.notices.emitEvent(Event{Kind: RunProgressed, Channel: ch.Name, Run: w.id.String(), Progress: &rp})
			}
		},
	})
}

// ownFiles reads the files of the Core's own runs. *reports.Renderer is one.
type ownFiles interface {
	OwnFiles(ctx context.Context, id ledger.RunID, fn func(f *reports.OwnFile, at time.Time) error) error
}

// runReader reads runs. *ledger.Ledger is one.
type runReader interface {
	Run(ctx context.Context, id ledger.RunID) (ledger.Run, error)
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
}

// runBook keeps the runs of the Core itself.
type runBook struct {
	ledger  runAppender
	clock   *clocks
	notices *notices

	mu    sync.Mutex
	begun map[ledger.RunID]bool // by this process, until the runs of the one before have been closed; nil afterwards
}

// begin makes a run that closeOwnRuns leaves alone: a client may order one before it.
func (b *runBook) begin(channel string) *ownRun {
	w := &ownRun{book: b, channel: channel}
	rand.Read(w.id[:]) // never fails (crypto/rand)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun != nil {
		b.begun[w.id] = true
	}
	return w
}

// takeBegun returns the runs of this process so far, and forgets them.
func (b *runBook) takeBegun() map[ledger.RunID]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	begun := b.begun
	b.begun = nil
	return begun
}

// runAppender adds events of runs. *ledger.Ledger is one.
type runAppender interface {
	Append(ctx context.Context, domain, site string, events []ledger.Event) (ledger.Committed, error)
}

// ownRun records a run of the Core itself.
type ownRun struct {
	book    *runBook
	id      ledger.RunID
	channel string
	files   []reports.OwnFile
	bytes   int
	counts  runs.Counts // of files
	err     error
}

const (
	ownBatch      = 2000
	ownBatchBytes = 256 << 10
)

func (w *ownRun) appendEvent(ctx context.Context, e ledger.Event) error {
	e.Run, e.Channel, e.At = w.id, w.channel, w.book.clock.wallTime()
	_, err := w.book.ledger.Append(ctx, "", "", []ledger.Event{e})
	if err == nil {
		w.book.notices.LedgerWorks()
	}
	return err
}

func (w *ownRun) addFile(ctx context.Context, f reports.OwnFile) {
	w.files = append(w.files, f)
	w.counts.Add(f.Outcome)
	if w.bytes += len(f.Path) + len(f.Cause); len(w.files) >= ownBatch || w.bytes > ownBatchBytes {
		w.err = errors.Join(w.err, w.flushFiles(ctx))
	}
}

// flushFiles hands what was collected to the ledger, and returns what went wrong so
// far.
func (w *ownRun) flushFiles(ctx context.Context) error {
	if len(w.files) == 0 {
		return w.err
	}
	body, err := wire.Encode(w.files)
	if err == nil {
		err = w.appendEvent(ctx, ledger.Event{Kind: reports.OwnEvent, Body: body})
	}
	w.files, w.bytes = nil, 0
	return errors.Join(w.err, err)
}

// closeOwnRuns ends the runs of the Core that a crash left open.
func (pb *Publisher) closeOwnRuns(ctx context.Context) error {
	open, err := pb.ledger.Runs(ctx, ledger.RunFilter{Core: true, Open: true})
	if err != nil {
		return err
	}
	begun := pb.book.takeBegun()
	for _, r := range open {
		if begun[r.ID] {
			continue
		}
		w := &ownRun{book: pb.book, id: r.ID, channel: r.Channel}
		if err := pb.files.OwnFiles(ctx, r.ID, func(f *reports.OwnFile, _ time.Time) error { w.counts.Add(f.Outcome); return nil }); err != nil {
			return err
		}
		cause := "the Core stopped while it ran; the next publish reuses the chunks that it had stored"
		if r.Trigger == measureTrigger {
			cause = "the Core stopped while it measured; the unfinished measurement starts anew"
		}
		if err := w.appendEvent(ctx, ledger.Event{Finish: &ledger.Finish{State: runs.Failed, Totals: runs.Totals{Counts: w.counts}, Cause: cause}}); err != nil {
			return err
		}
	}
	return nil
}

// stopPublishing ends the publishes, and the measurements of sources, that an
// order is for.
func (pb *Publisher) stopPublishing(o *halt.Orders) {
	host, _ := os.Hostname() // only for orders that name it as a site
	why := func(channel string) error {
		if order := o.Find(halt.Subject{Site: host, Channel: channel}); order != nil {
			return &halt.Error{Order: *order}
		}
		return nil
	}
	pb.publishing.Stop(why)
}
