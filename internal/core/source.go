package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/halting"
	"nightferry/internal/heads"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/measure"
	"nightferry/internal/publishing"
	"nightferry/internal/releases"
	"nightferry/internal/reports"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/tasks"
	"nightferry/internal/text"
	"nightferry/internal/wire"
)

const (
	// measureTrigger marks the runs of the Core that measure a source.
	measureTrigger = "measure"
	measureRetry   = 15 * time.Minute // after one that failed
	// measureAgain is the period for measuring a damaged source again.
	measureAgain = 23*time.Hour + 30*time.Minute
	// maxNamed bounds the paths in an incident's text, in bytes; the run's log has all of them.
	maxNamed = 500
)

// sources is what measures the Core's own sources: each channel's newest release
// once, each channel by itself. Of what was measured the ledger knows; the rest may be
// forgotten by a restart, which begins a measurement that it broke off anew.
type sources struct {
	wake  chan struct{}
	mu    sync.Mutex
	retry map[string]time.Time // channels whose last measurement failed
	again map[string]bool      // channels that were published since, which may have mended the damage
}

// measurer measures the Core's own sources, and compares them with what sites
// attest.
type measurer struct {
	o          *Options
	settings   *atomic.Pointer[Settings]
	measured   measurementRecords
	ledger     attested
	book       *runBook
	newest     *heads.Service
	halting    *halting.Service
	publishing *publishing.Service
	tasks      *tasks.Service
	releases   *releases.Reader
	ended      func() // a run has ended, so that a log is to be written
	notices    *notices
	clock      *clocks
	asides     *sync.WaitGroup

	sources sources
}

// measurementRecords keeps measurements. *ledger.Measurements is one.
type measurementRecords interface {
	measure.Records
	Set(ctx context.Context, m ledger.Measurement) error
}

// attested reads runs and what sites attest. *ledger.Ledger is one.
type attested interface {
	Holdings(ctx context.Context, f ledger.Filter) ([]ledger.Holding, error)
	Run(ctx context.Context, id ledger.RunID) (ledger.Run, error)
}

// measureSoon makes the measurer check a channel immediately.
func (me *measurer) measureSoon(channel string) {
	me.sources.mu.Lock()
	if me.sources.again == nil {
		me.sources.again = map[string]bool{}
	}
	me.sources.again[channel] = true
	me.sources.mu.Unlock()
	select {
	case me.sources.wake <- struct{}{}:
	default:
	}
}

// runDue runs the measurements that are due, each channel in its own goroutine, until ctx ends.
func (me *measurer) runDue(ctx context.Context) error {
	t := time.NewTicker(min(4*me.o.Poll, time.Minute))
	defer t.Stop()
	for {
		for _, ch := range me.settings.Load().Fleet.Channels {
			me.asides.Go(func() {
				if err := me.measureIfDue(ctx, &ch); err != nil && ctx.Err() == nil {
					me.reportUnmeasured(ch.Name, err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-me.sources.wake:
		case <-t.C:
		}
	}
}

// reportUnmeasured opens the incident of a failed measurement and schedules another try.
func (me *measurer) reportUnmeasured(channel string, err error) {
	me.notices.incidents.Raise(kinds.Unmeasured, channel, wire.Address{}, fmt.Sprintf("channel %s: its source could not be measured: %v; it is tried again", channel, err))
	me.notices.ReportFailure("measure", err)
	me.measureSoon(channel)
	me.sources.mu.Lock()
	defer me.sources.mu.Unlock()
	if me.sources.retry == nil {
		me.sources.retry = map[string]time.Time{}
	}
	me.sources.retry[channel] = me.o.Now().Add(measureRetry)
}

// measureIfDue measures a channel's source if its newest release needs that.
func (me *measurer) measureIfDue(ctx context.Context, ch *fleet.Channel) error {
	rel, ok := me.newest.Of(ch.Name)
	if !ok || me.publishing.Running(publishing.Publish, ch.Name) || me.publishing.Running(publishing.Measure, ch.Name) { // a publish comes first and wakes the measurer when it ends
		return nil
	}
	if me.haltedHere(ch.Name) {
		return nil
	}
	old, err := measure.Known(ctx, me.measured, ch.Name, rel.Number)
	if err != nil {
		return err
	}
	me.sources.mu.Lock()
	again, wait := me.sources.again[ch.Name], me.o.Now().Before(me.sources.retry[ch.Name])
	if !wait {
		delete(me.sources.again, ch.Name)
		delete(me.sources.retry, ch.Name)
	}
	me.sources.mu.Unlock()
	if wait {
		return nil
	}
	if old != nil && old.Release == rel.Digest {
		if measuredState(old, &rel) != runs.Damaged {
			me.notices.incidents.Resolve(kinds.Unmeasured, ch.Name, wire.Address{})
			return nil
		}
		if !again && !clock.Passed(old.At, me.clock.wallTime(), measureAgain) {
			return nil
		}
	}
	mctx, end, ok := me.publishing.Begin(ctx, publishing.Measure, ch.Name)
	if !ok {
		return nil
	}
	defer end()
	if me.haltedHere(ch.Name) { // an order that came before it could have stopped this
		return nil
	}
	err = me.tasks.Once(mctx, tasks.Task{Name: measureTask + ch.Name, Bound: lateLong, Do: func(ctx context.Context) error { return me.measureSource(ctx, ch, &rel) }})
	order := (*halt.Error)(nil)
	switch {
	case err == nil:
		me.notices.incidents.Resolve(kinds.Unmeasured, ch.Name, wire.Address{})
	case errors.As(context.Cause(mctx), &order), errors.As(context.Cause(mctx), new(*incarnation.OlderError)):
		return nil // due again when the halt order ends, or this Core acts again
	}
	return err
}

// haltedHere reports whether a halt order is in force for the channel at the Core.
func (me *measurer) haltedHere(channel string) bool {
	host, _ := os.Hostname() // only for halt orders that name this host as a site
	return me.halting.Current().Find(halt.Subject{Site: host, Channel: channel}) != nil
}

// measureSource measures a source, records the result, and compares it with the sites'
// attestations. It always leaves a run in the ledger and a log.
func (me *measurer) measureSource(ctx context.Context, ch *fleet.Channel, rel *ledger.Release) error {
	w := me.book.begin(ch.Name)
	always := context.WithoutCancel(ctx)
	start := &ledger.Start{Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, Parent: rel.Parent, Trigger: measureTrigger}
	if err := w.appendEvent(always, ledger.Event{Start: start}); err != nil {
		me.notices.LedgerFailed(err)
		return fmt.Errorf("its run cannot be recorded: %w", err)
	}
	me.notices.emitEvent(Event{Kind: RunStarted, Channel: ch.Name, Run: w.id.String()})
	began := me.o.Now()
	var bad []string
	res, err := me.readSource(ctx, ch, rel, w, func(f measure.Finding) {
		if f.Outcome.Exception() && len(bad) < maxNamed {
			bad = append(bad, f.Path)
		}
		w.addFile(always, reports.OwnFile{Path: f.Path, Outcome: f.Outcome, Size: f.Size, Digest: f.Digest, Cause: f.Cause})
	})
	end := ledger.Finish{State: runs.Failed, Totals: runs.Totals{Files: res.WantFiles, Bytes: res.WantBytes, Held: res.Read, Counts: res.Counts}}
	m := ledger.Measurement{Channel: ch.Name, Number: rel.Number, Release: rel.Digest, At: me.clock.wallTime(), Took: ledger.Seconds(me.o.Now().Sub(began)), Run: w.id, Tree: res.Tree, Files: res.WantFiles,
		Bytes: res.WantBytes, SourceFiles: res.Files, SourceBytes: res.Bytes, Same: res.Unchanged, Moved: res.MovedOn(), Damaged: res.Differs, Unreadable: res.Failed}
	switch {
	case err == nil:
		end.State = measuredState(&m, rel)
		// Before the run ends: a crash in between leaves a run without an end instead of a second
		// measurement.
		if err = me.measured.Set(always, m); err != nil {
			end.State = runs.Failed
		}
	case ctx.Err() != nil:
		end.State = runs.Stopped
	}
	if err != nil {
		end.Cause = text.Bound(err.Error(), reports.MaxRunText)
	}
	if err2 := errors.Join(w.flushFiles(always), w.appendEvent(always, ledger.Event{Finish: &end})); err2 != nil {
		me.notices.LedgerFailed(err2)
		err = errors.Join(err, err2)
	}
	me.ended()
	if run, err := me.ledger.Run(always, w.id); err == nil {
		me.notices.emitEvent(Event{Kind: RunEnded, Channel: ch.Name, Run: w.id.String(), Text: string(run.State), Ended: &run})
	}
	if err != nil {
		return err
	}
	me.judgeSource(&m, rel, bad)
	return me.compareAll(always, &m)
}

func (me *measurer) readSource(ctx context.Context, ch *fleet.Channel, rel *ledger.Release, w *ownRun, fn func(measure.Finding)) (res measure.Result, err error) {
	patterns, err := scan.ParsePatterns(ch.Include, ch.Exclude)
	if err != nil {
		return res, err
	}
	_, entries, err := me.releases.Entries(ctx, releases.Key{Channel: ch.Name, Number: rel.Number, Digest: rel.Digest})
	if err != nil {
		return res, err
	}
	var spoke time.Time
	return measure.Run(ctx, ch.Source, entries, measure.Options{Patterns: patterns, SkipLinks: ch.Links == fleet.Skip, Rate: ch.MeasureRate, OnProgress: func(r measure.Result) {
		if now := me.o.Now(); now.Sub(spoke) >= time.Second {
			spoke = now
			me.notices.emitEvent(Event{Kind: RunProgressed, Channel: ch.Name, Run: w.id.String(),
				Progress: &runs.Progress{Phase: measureTrigger, FilesDone: r.WantFiles, FilesTotal: rel.Files, BytesDone: r.Read, BytesTotal: rel.Bytes}})
		}
	}}, fn)
}

// measuredState returns the final state of a measurement that was completed.
func measuredState(m *ledger.Measurement, rel *ledger.Release) runs.State {
	switch {
	case m.Damaged+m.Unreadable > 0, m.Tree != rel.Tree, m.Files != rel.Files, m.Bytes != rel.Bytes:
		return runs.Damaged
	case m.Moved > 0:
		return runs.MovedOn
	}
	return runs.Same
}

// judgeSource opens or resolves the incident for a source whose bytes differ from the published
// ones.
func (me *measurer) judgeSource(m *ledger.Measurement, rel *ledger.Release, bad []string) {
	if measuredState(m, rel) != runs.Damaged {
		me.notices.incidents.Resolve(kinds.SourceDamage, m.Channel, wire.Address{})
		return
	}
	text := fmt.Sprintf("channel %s: in the source of release %d, ", m.Channel, m.Number)
	if m.Damaged > 0 {
		text += fmt.Sprintf("%s other bytes than were published, under the same size and time", haveBytes(m.Damaged))
	}
	if m.Unreadable > 0 {
		if m.Damaged > 0 {
			text += ", and "
		}
		text += fmt.Sprintf("%d cannot be read", m.Unreadable)
	}
	if m.Damaged+m.Unreadable == 0 {
		text += fmt.Sprintf("every file is the same, but they come to %d files, %d bytes, tree %s, and the release says %d, %d, %s: the publisher has a fault",
			m.Files, m.Bytes, m.Tree.Short(), rel.Files, rel.Bytes, rel.Tree.Short())
	}
	text += fmt.Sprintf(" (nightferry run show %s): %s", m.Run.String()[:8], namedPaths(bad, int(m.Damaged+m.Unreadable)))
	me.notices.incidents.Raise(kinds.SourceDamage, m.Channel, wire.Address{}, text)
}

func haveBytes(n int64) string {
	if n == 1 {
		return "1 file has"
	}
	return fmt.Sprintf("%d files have", n)
}

// namedPaths lists the first paths of all, as far as they fit into an incident's text.
func namedPaths(paths []string, all int) string {
	var b strings.Builder
	for i, p := range paths {
		if b.Len()+len(p) > maxNamed && i > 0 {
			fmt.Fprintf(&b, " and %d more", all-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", p)
	}
	return b.String()
}

// compareAll compares earlier attestations of the sites with the new measurement.
func (me *measurer) compareAll(ctx context.Context, m *ledger.Measurement) error {
	held, err := me.ledger.Holdings(ctx, ledger.Filter{Channel: m.Channel})
	if err != nil {
		return err
	}
	for i := range held {
		h := &held[i]
		at := wire.Address{Domain: h.Domain, Site: h.Site}
		switch why := measure.Contradicts(m, h); {
		case h.Number != m.Number || h.Release != m.Release:
		case why != nil:
			me.notices.incidents.Raise(kinds.BadProof, m.Channel, at, fmt.Sprintf("site %s, channel %s: %v", h.Site, m.Channel, why))
		default:
			me.notices.incidents.Resolve(kinds.BadProof, m.Channel, at)
		}
	}
	return nil
}
