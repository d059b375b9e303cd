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

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// job is a channel's run in this process.
type job struct {
	rate    *rate.Limiter
	stop    context.CancelCauseFunc
	moved   atomic.Int64 // bytes that came from the store
	stops   []pending    // orders to stop that end it; guarded by agent.mu
	ordered bool         // it obeys an order that windows do not hold back
	scrub   bool         // it only reads what lies here, and makes way for any run
	ahead   bool         // it only prepares a run: no content moves
}

// converge starts what is due, as long as ctx lasts.
func (a *agent) converge(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	err := a.start(ctx, gctx, g)
	return errors.Join(err, g.Wait())
}

func (a *agent) start(ctx, gctx context.Context, g *errgroup.Group) error {
	for {
		soon, err := a.startDue(gctx, g)
		if err != nil {
			return ended(ctx, err)
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

// startDue starts what is due and returns how long until that is to be asked
// again.
func (a *agent) startDue(ctx context.Context, g *errgroup.Group) (time.Duration, error) {
	// Whatever runs now may end between the reading of the spool and the launch: what was read of its channel is old then.
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
	soon := a.nightfall(a.o.Now())
	if state == nil {
		return soon, nil
	}
	now := a.o.Now()
	d, err := a.clocksAgain(ctx, now)
	if err != nil {
		return 0, err
	}
	if d > wrong {
		soon = min(soon, clockRetries*a.o.Retry)
	}
	for _, want := range a.inOrder(state, holds, now) {
		left := leftover(runs, want.Channel)
		obeyed, err := a.spool.Obeyed(ctx, want.Channel)
		if err != nil {
			return 0, err
		}
		at, due := a.due(want, held(holds, want.Channel), obeyed, now)
		at, due = a.dueBesides(want, held(holds, want.Channel), obeyed, now, at, due)
		if !due && left == nil {
			soon = min(soon, max(time.Second, at.Sub(now)))
			continue
		}
		a.mu.Lock()
		next := a.next[want.Channel].at
		if after := a.after[want.Channel]; after.After(next) {
			next = after
		}
		a.mu.Unlock()
		if now.Before(next) {
			soon = min(soon, next.Sub(now))
			continue
		}
		ordered := want.Now && want.Start > obeyed
		open, again := night.open(now, want.Channel, ordered)
		if !again.IsZero() {
			soon = min(soon, watch, max(again.Sub(now), time.Millisecond))
		}
		if !open {
			if d <= wrong && wire.ValidName(want.Channel) {
				soon = min(soon, a.prepare(ctx, g, busy, *want, left, now))
			}
			continue
		}
		if d > wrong || a.halted(want.Channel) != nil || !wire.ValidName(want.Channel) {
			continue
		}
		a.launch(ctx, g, busy, *want, left, ordered)
	}
	// A run whose channel the Core no longer wants here is brought to its end.
	for i := range runs {
		if desired(state, runs[i].Channel) == nil {
			a.launch(ctx, g, busy, wire.Desired{Channel: runs[i].Channel}, &runs[i], false)
		}
	}
	if d <= wrong {
		soon = min(soon, a.startScrub(ctx, g, state, night, holds, now))
	}
	return soon, nil
}

// due reports whether something is to be done for a channel; else when.
func (a *agent) due(want *wire.Desired, have *spool.Held, obeyed uint64, now time.Time) (time.Time, bool) {
	if want.Number == 0 {
		return now.Add(time.Hour), false
	}
	a.mu.Lock()
	refused := a.refused[want.Channel] == refusal(want)
	a.mu.Unlock()
	if refused {
		return now.Add(time.Hour), false
	}
	if have == nil || have.Number != want.Number || have.Release != want.Release || have.Target != want.Target || want.Start > obeyed {
		return now, true
	}
	at := time.Unix(have.Verified, 0).Add(a.shortened(a.o.Recheck))
	return at, !now.Before(at)
}

// shortened is how long what a calendar counts takes really, which is less in a
// rehearsal.
func (a *agent) shortened(d time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.night == nil {
		return d
	}
	return a.night.motion.Real(d)
}

func refusal(want *wire.Desired) string { return fmt.Sprintf("%s\x00%d", want.Target, want.Start) }

func held(all []spool.Held, channel string) *spool.Held {
	for i := range all {
		if all[i].Channel == channel {
			return &all[i]
		}
	}
	return nil
}

func leftover(runs []spool.Run, channel string) *spool.Run {
	for i := range runs {
		if runs[i].Channel == channel {
			return &runs[i]
		}
	}
	return nil
}

// launch runs one channel, if it is not running and there is room. busy are the
// jobs that ran when the spool was read for it: the end of one wakes us, to read
// it again.
func (a *agent) launch(ctx context.Context, g *errgroup.Group, busy map[string]*job, want wire.Desired, left *spool.Run, ordered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.yield(want.Channel) {
		return
	}
	if j := a.running[want.Channel]; j != nil || len(a.running) >= maxRuns {
		if j == nil {
			j = a.preparing()
		}
		if j != nil && j.ahead {
			j.stop(errOpened) // what prepares gives way; its end wakes us
		}
		return
	}
	if busy[want.Channel] != nil || a.haltedNow(want.Channel) != nil || a.failSafe != nil {
		return
	}
	rctx, stop := context.WithCancelCause(ctx)
	j := &job{rate: newLimiter(want.Rate), stop: stop, ordered: ordered}
	a.running[want.Channel] = j
	g.Go(func() error {
		again, err := a.bring(ctx, rctx, j, want, left)
		stop(nil)
		a.mu.Lock()
		a.still(j)
		delete(a.running, want.Channel)
		if again {
			a.next[want.Channel] = a.retryAfter(a.next[want.Channel], want.Channel)
		} else {
			delete(a.next, want.Channel)
		}
		idle := len(a.running) == 0
		a.work.wake()
		a.mu.Unlock()
		if idle {
			// What a run needed, an agent that waits for the next night does not: the
			// runtime by itself would keep it for as long as little is allocated.
			debug.FreeOSMemory()
		}
		return ended(ctx, err)
	})
}

// attempt is when a channel whose run failed may be tried again.
type attempt struct {
	at     time.Time
	wait   time.Duration
	why    string // how the last run ended; empty: in a way that ends by itself
	before string // how the one before ended
}

// unchangedWait is when an unchanged failure of a channel without windows is
// tried again.
const unchangedWait = 24 * time.Hour

// retryAfter returns when a failed run is tried again: after a wait that doubles
// up to maxRetry, and then, while the failure is unchanged, once a window. A new
// state forgets all of it. It is called with a.mu held.
func (a *agent) retryAfter(n attempt, channel string) attempt {
	now := a.o.Now()
	settled := n.wait >= maxRetry && n.why != "" && n.why == n.before
	n.before = n.why
	n.wait = min(max(2*n.wait, a.o.Retry), maxRetry)
	n.at = now.Add(n.wait)
	if settled && a.night != nil {
		n.at = now.Add(unchangedWait)
		if end := a.night.closes(now, channel); !end.IsZero() {
			n.at = end
		}
	}
	return n
}
