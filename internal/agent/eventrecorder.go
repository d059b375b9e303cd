package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/runs"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

const (
	// tellAt is how many outcomes are kept before they are spooled.
	tellAt = 2000
	// maxExtra bounds the site's own files that a run names; the rest is
	// counted. A target may hold any number of them, and the WAN is narrow.
	maxExtra = 1000
	// recordEvery is how many fetched bytes a killed agent may forget.
	recordEvery = 1 << 20
	// progressEvery is the most often that progress is told.
	progressEvery = time.Second
)

// eventRecorder takes apply's events: outcomes that no commit stands for go into the
// spool, progress to the Core.
type eventRecorder struct {
	a      *agent
	ctx    context.Context // apply's callbacks have none
	run    *spool.Run
	told   []spool.File
	extras int
	moved  *atomic.Int64 // bytes that the run has fetched; nil: it fetches none

	mu  sync.Mutex
	bad error // why no more can be kept

	fetched, received int64 // by this attempt, as the spool has it

	progress wire.Progress
	last     time.Time
}

// handleEvent is called by one goroutine at a time.
func (t *eventRecorder) handleEvent(e apply.Event) {
	switch e.Kind {
	case apply.FileEvent:
		if e.Committed || t.flushError() != nil {
			return // the spool has it from Intend and Settle
		}
		if e.Outcome == runs.FileExtra {
			if t.extras++; t.extras > maxExtra {
				return
			}
		}
		if t.told = append(t.told, outcomeOf(&e)); len(t.told) >= tellAt {
			_ = t.flushOutcomes() // the gate stops the run
		}
	case apply.PhaseEvent:
		t.progress.Phase = e.Phase
		t.sendProgress()
	case apply.ProgressEvent:
		_ = t.recordFetched(e.Fetched, e.Wire, recordEvery) // the last call reports it
		p := &t.progress
		if e.Phase != "" {
			p.Phase = e.Phase
		}
		p.FilesDone, p.FilesTotal, p.BytesDone, p.BytesTotal = e.FilesDone, e.FilesTotal, e.BytesDone, e.BytesTotal
		if t.moved != nil {
			p.BytesWire = t.moved.Load()
		}
		t.sendProgress()
	case apply.RetryEvent:
		t.a.logNote(Info, t.run.Channel, "tried again", e.Cause)
	}
}

// recordFetched adds the attempt's fetched bytes to the run, if at least so many are new. If that fails, the next
// call adds them.
func (t *eventRecorder) recordFetched(content, received, least int64) error {
	d, w := content-t.fetched, received-t.received
	if d < least && w < least || d <= 0 && w <= 0 {
		return nil
	}
	if err := t.a.spool.AddFetched(t.ctx, t.run.Channel, max(0, d), max(0, w)); err != nil {
		return err
	}
	t.fetched, t.received = t.fetched+max(0, d), t.received+max(0, w)
	t.run.Fetched, t.run.Wire = t.run.Fetched+max(0, d), t.run.Wire+max(0, w)
	return nil
}

func (t *eventRecorder) sendProgress() {
	now := t.a.o.Now()
	if now.Sub(t.last) < progressEvery {
		return
	}
	t.last = now
	t.progress.Run, t.progress.Channel = t.run.ID, t.run.Channel
	if err := dropTransient(t.a.publishSigned(wire.VerbProgress, &t.progress)); err != nil {
		t.a.logNote(Warning, t.run.Channel, "tell progress", err)
	}
}

// flushOutcomes spools what is told; it is called once more when apply has returned.
func (t *eventRecorder) flushOutcomes() error {
	if err := t.flushError(); err != nil || len(t.told) == 0 {
		return err
	}
	err := t.a.spool.Tell(t.ctx, t.run.Channel, t.run.Pass, t.told)
	t.told = t.told[:0]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bad = err
	return err
}

// flushError is asked by many goroutines.
func (t *eventRecorder) flushError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad
}

// outcomeOf returns an event's outcome for the spool.
func outcomeOf(e *apply.Event) spool.File {
	o := spool.File{Path: e.Path, File: wire.File{Outcome: e.Outcome, From: e.From, Held: e.Held, Fetched: e.Fetched}}
	if e.Entry > 0 {
		o.Ordinal = e.Entry - 1
	} else {
		o.File.Path = e.Path
	}
	if e.Cause != nil && !errors.Is(e.Cause, context.Canceled) {
		o.Cause = e.Cause.Error()
	}
	return o
}
