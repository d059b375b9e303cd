package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// job is a channel's run in this process.
type job struct {
	rate     *rate.Limiter
	stop     context.CancelCauseFunc
	moved    atomic.Int64 // bytes received from the store
	stops    []pending    // halt orders that end it; guarded by haltState.mu
	ordered  bool         // it obeys a sync request that windows do not delay
	scrub    bool         // it only reads local files and yields to any run
	prepares bool         // it only prepares a run: no content moves
}

// movesContent reports whether content moves; other jobs yield to such jobs.
func (j *job) movesContent() bool { return !j.prepares && !j.scrub }

// startDueJobs starts due jobs until ctx ends.
func (a *agent) startDueJobs(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	err := a.startJobs(ctx, gctx, g)
	return errors.Join(err, g.Wait())
}

func (a *agent) startJobs(ctx, gctx context.Context, g *errgroup.Group) error {
	for {
		soon, err := a.startDue(gctx, g)
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		wait := time.NewTimer(soon)
		select {
		case <-gctx.Done():
			wait.Stop()
			return nil
		case <-a.work:
		case <-wait.C:
		}
		wait.Stop()
	}
}

// startDue starts due jobs and returns the time until the next call.
func (a *agent) startDue(ctx context.Context, g *errgroup.Group) (time.Duration, error) {
	// A running job may end between the reading of the spool and the launch. The data read for its
	// channel is stale then.
	a.mu.Lock()
	busy := maps.Clone(a.running)
	a.mu.Unlock()
	holds, err := a.spool.Holds(ctx)
	if err != nil {
		return 0, err
	}
	runs, err := a.spool.Runs(ctx)
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	state, night := a.state, a.night
	a.mu.Unlock()
	soon := a.applyWindows(a.o.Now())
	if state == nil {
		return soon, nil
	}
	now := a.o.Now()
	skew, err := a.clocksAgain(ctx, now)
	if err != nil {
		return 0, err
	}
	if skew > wrong {
		soon = min(soon, clockRetries*a.o.Retry)
	}
	if err := a.turns.recordWaiting(ctx, a.spool, state, holds, now); err != nil {
		return 0, err
	}
	due, at, err := a.dueNow(ctx, state, holds, runs, night.realTime(a.o.Recheck), now)
	if err != nil {
		return 0, err
	}
	soon = min(soon, at)
	m := a.planMoment(night, due, skew, now)
	verdicts, starts, again := schedule.Next(m)
	if !again.IsZero() {
		soon = min(soon, watch, max(again.Sub(now), time.Millisecond))
	}
	for _, i := range starts {
		a.launchChannel(ctx, g, busy, due[i])
	}
	for i, v := range verdicts {
		if (v == schedule.Shut || v == schedule.Stopped) && wire.ValidName(due[i].Channel) {
			soon = min(soon, a.startPreparation(ctx, g, busy, due[i].Desired, due[i].left, now))
		}
	}
	// If the Core no longer wants a run's channel here, the run is ended.
	for i := range runs {
		if findDesired(state, runs[i].Channel) == nil {
			a.launchChannel(ctx, g, busy, dueChannel{Desired: wire.Desired{Channel: runs[i].Channel}, left: &runs[i]})
		}
	}
	if skew <= wrong {
		soon = min(soon, a.startScrub(ctx, g, state, night, holds, now))
	}
	a.sendWaiting(due, verdicts, m)
	return soon, nil
}

// dueChannel is a channel with a run that is due.
type dueChannel struct {
	wire.Desired
	left    *spool.Run // started by an earlier process; nil: none
	ordered bool       // it obeys a sync request that windows do not delay
	held    wire.Wait  // why it does not start, apart from windows, rates and turns; Why 0: no reason
}

// dueNow returns the due channels, and the time until another may be due.
func (a *agent) dueNow(ctx context.Context, state *wire.State, holds []spool.Held, runs []spool.Run, recheck time.Duration, now time.Time) (list []dueChannel, soon time.Duration, err error) {
	soon = never
	for i := range state.Desired {
		want := &state.Desired[i]
		d := dueChannel{Desired: *want, left: findLeftover(runs, want.Channel)}
		obeyed, err := a.spool.Obeyed(ctx, want.Channel)
		if err != nil {
			return nil, 0, err
		}
		refused := a.isRefused(want)
		at, due := dueTime(want, findHeld(holds, want.Channel), obeyed, now, recheck, refused)
		at, due = a.scrubs.dueBesides(want, findHeld(holds, want.Channel), obeyed, now, at, due, recheck)
		if !due && d.left == nil && !refused {
			soon = min(soon, max(time.Second, at.Sub(now)))
			continue
		}
		d.ordered = want.Now && want.Start > obeyed
		list = append(list, d)
	}
	return list, soon, nil
}

// planMoment collects the input for the decision which due channels start now. If
// the bytes to fetch are not known yet, it uses the release's size. It sets each
// channel's reason to wait.
func (a *agent) planMoment(night *night, due []dueChannel, skew time.Duration, now time.Time) schedule.Moment {
	m := schedule.Moment{Now: now, Patience: night.realTime(schedule.Patience)}
	m.Rate, m.Change = night.currentRate(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.running {
		if j.movesContent() {
			m.Running++
		}
	}
	for i := range due {
		d := &due[i]
		c := schedule.Candidate{Channel: d.Channel, Priority: int(d.Priority), Bytes: d.Bytes, Since: now}
		if needed := a.preparing.neededBytes(&d.Desired); needed >= 0 {
			c.Bytes = min(d.Bytes, needed)
		}
		if since := a.turns.waitsSince(d.Channel); !since.IsZero() {
			c.Since = since
		}
		c.Window, c.Always = night.windowOf(now, d.Channel, d.ordered)
		c.After = a.next[d.Channel].at
		if after := a.halts.startsAfter(d.Channel); after.After(c.After) {
			c.After = after
		}
		d.held = a.heldBack(&d.Desired, night, skew)
		j := a.running[d.Channel]
		c.Held = d.held.Why != 0 || j != nil && j.movesContent()
		m.Waiting = append(m.Waiting, c)
	}
	return m
}

// dueTime reports whether a channel has work to do now, or else when it will. recheck is how long a verified target is
// trusted.
func dueTime(want *wire.Desired, have *spool.Held, obeyed uint64, now time.Time, recheck time.Duration, refused bool) (time.Time, bool) {
	if want.Number == 0 || refused {
		return now.Add(time.Hour), false
	}
	if have == nil || have.Number != want.Number || have.Release != want.Release || have.Target != want.Target || want.Start > obeyed {
		return now, true
	}
	at := time.Unix(have.Verified, 0).Add(recheck)
	return at, !now.Before(at)
}

// isRefused reports whether the target was refused and nothing has changed since.
func (a *agent) isRefused(want *wire.Desired) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused[want.Channel] == refusalKey(want)
}

func refusalKey(want *wire.Desired) string { return fmt.Sprintf("%s\x00%d", want.Target, want.Start) }

func findHeld(all []spool.Held, channel string) *spool.Held {
	for i := range all {
		if all[i].Channel == channel {
			return &all[i]
		}
	}
	return nil
}

func findLeftover(runs []spool.Run, channel string) *spool.Run {
	for i := range runs {
		if runs[i].Channel == channel {
			return &runs[i]
		}
	}
	return nil
}

// launchChannel runs one channel, if it is not running and there is room. busy has the
// jobs that ran when the spool was read. When one ends, it wakes the planner,
// which reads the spool again.
func (a *agent) launchChannel(ctx context.Context, g *errgroup.Group, busy map[string]*job, due dueChannel) {
	want, left := due.Desired, due.left
	a.mu.Lock()
	defer a.mu.Unlock()
	if stopScrubs(a.running, want.Channel) {
		return
	}
	if j := a.running[want.Channel]; j != nil || len(a.running) >= schedule.MaxRuns {
		if j == nil {
			j = preparationJob(a.running)
		}
		if j != nil && j.prepares {
			j.stop(errOpened) // the preparation yields; its end wakes the planner
		}
		return
	}
	if busy[want.Channel] != nil {
		return
	}
	j := &job{rate: newLimiter(want.Rate), ordered: due.ordered}
	var again bool
	started := a.spawnJob(ctx, g, want.Channel, j, func(rctx context.Context) (err error) {
		again, err = a.bringChannel(ctx, rctx, j, want, left)
		return err
	}, func() {
		if !again {
			delete(a.next, want.Channel)
			return
		}
		a.next[want.Channel] = a.next[want.Channel].retryAfter(a.o.Now(), a.o.Retry, a.night, want.Channel)
	})
	if started {
		a.turns.takeTurn(want.Channel, a.o.Now())
	}
}

// spawnJob starts a job of a channel, unless a halt order or the fail-safe stops it. work must end with its context. done is
// called afterwards with a.mu held, before the end wakes the planner. An error
// of work ends the agent. The caller holds a.mu.
func (a *agent) spawnJob(ctx context.Context, g *errgroup.Group, channel string, j *job, work func(rctx context.Context) error, done func()) bool {
	rctx, stop := context.WithCancelCause(ctx)
	j.stop = stop
	if !a.halts.beginJob(channel, j) {
		stop(nil)
		return false
	}
	a.running[channel] = j
	g.Go(func() error {
		err := work(rctx)
		stop(nil)
		a.halts.endJob(channel, j)
		a.mu.Lock()
		delete(a.running, channel)
		done()
		idle := len(a.running) == 0
		a.work.wake()
		a.mu.Unlock()
		if idle {
			// An agent that waits for the next window does not need a run's
			// memory. By itself, the runtime would keep it while few
			// allocations happen.
			debug.FreeOSMemory()
		}
		return ignoreEnd(ctx, err)
	})
	return true
}

// attempt is when a channel may retry its failed run.
type attempt struct {
	at     time.Time
	wait   time.Duration
	why    string   // error of the last run; empty: it ends by itself
	before string   // error of the run before
	reason wire.Why // of why
}

// unchangedWait is the delay before an unchanged failure is retried, for a
// channel without windows.
const unchangedWait = 24 * time.Hour

// retryAfter returns when a failed run is retried. The wait doubles up to
// maxRetry. After that, while the failure is unchanged, the run is retried once
// per window. A new state resets all of it.
func (n attempt) retryAfter(now time.Time, first time.Duration, night *night, channel string) attempt {
	settled := n.wait >= maxRetry && n.why != "" && n.why == n.before
	n.before = n.why
	n.wait = min(max(2*n.wait, first), maxRetry)
	n.at = now.Add(n.wait)
	if settled && night != nil {
		n.at = now.Add(unchangedWait)
		if end := night.closeTime(now, channel); !end.IsZero() {
			n.at = end
		}
	}
	return n
}
