package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// heldBack returns why a due channel does not start whatever its window, its rate
// and its turn, the most decisive reason first; Why 0: nothing holds it. It is
// called with a.mu held.
func (a *agent) heldBack(want *wire.Desired, night *night, skew time.Duration) wire.Wait {
	w := wire.Wait{Channel: want.Channel}
	halted, failing := a.halts.haltOrder(want.Channel), a.halts.failSafeReason()
	switch {
	case night.refused != nil:
		w.Why, w.Text = wire.WhyUnreadable, night.refused.Error()
	case !wire.ValidName(want.Channel):
		w.Why, w.Text = wire.WhyRefused, "the channel's name is not valid"
	case a.refused[want.Channel] == refusalKey(want):
		w.Why, w.Text = wire.WhyRefused, a.failures[want.Channel]
	case skew == unknownSkew:
		w.Why, w.Text = wire.WhyClock, "no clock was compared since the agent started: neither the Core nor the store has answered"
	case skew > wrong:
		_, whose := a.clockSkew()
		w.Why, w.Text = wire.WhyClock, fmt.Sprintf("this site's clock and %s are %s apart", whose, skew.Round(time.Second))
	case halted != nil:
		w.Why, w.Text = wire.WhyHalted, fmt.Sprintf("by order %s of %s: %s", halted.ID.Short(), halted.By, halted.Reason)
		if halted.ID.IsZero() {
			w.Text = fmt.Sprintf("on the site, by %s: %s", halted.By, halted.Reason)
		}
	case failing != nil:
		w.Why, w.Text = wire.WhySilent, failing.Error()
	}
	return w
}

// waitReason translates the planner's verdict on a candidate that nothing holds back.
func (a *agent) waitReason(v schedule.Verdict, c *schedule.Candidate, m *schedule.Moment) wire.Wait {
	w := wire.Wait{Channel: c.Channel, Why: wire.WhyTurn}
	until := time.Time{}
	switch v {
	case schedule.Shut:
		w.Why, until = wire.WhyWindow, c.Window.Start
	case schedule.Stopped:
		w.Why, until = wire.WhyRate, m.Change
	case schedule.Later:
		w.Why, until = wire.WhyLifted, c.After
		if n := a.next[c.Channel]; n.at.Equal(c.After) {
			w.Why, w.Text = cmp.Or(n.reason, wire.WhyRetry), a.failures[c.Channel]
		}
	default:
		if ahead := slices.Sorted(maps.Keys(a.running)); len(ahead) > 0 {
			w.Text = "behind " + strings.Join(ahead, ", ")
		}
	}
	if !until.IsZero() {
		w.Until = until.Unix()
	}
	return w
}

// retryReason names why a run that ended with err is tried again.
func retryReason(err error) wire.Why {
	var space *apply.SpaceError
	switch {
	case errors.As(err, &space), errors.Is(err, spool.ErrFull), durable.IsDiskFull(err):
		return wire.WhySpace
	case errors.Is(err, errNotLent), errors.Is(err, bus.ErrAway):
		return wire.WhyURL
	}
	return wire.WhyRetry
}

// noteStuck notes why a run that is under way waits; nil: it continues.
func noteStuck(a *agent, channel string, w *wire.Wait) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if delete(a.stuck, channel); w != nil {
		a.stuck[channel] = *w
	}
	a.work.wake()
}

// sendWaiting takes what the due channels wait for, and sends it to the Core at once
// when it has changed or the Core does not know that its newest state was
// accepted. It is called when what is due was started.
func (a *agent) sendWaiting(due []dueChannel, verdicts []schedule.Verdict, m schedule.Moment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []wire.Wait
	for i := range due {
		w := due[i].held
		j := a.running[due[i].Channel]
		if stuck, ok := a.stuck[due[i].Channel]; ok {
			w = stuck
		} else if j != nil && j.movesContent() {
			continue
		}
		if w.Why == 0 {
			w = a.waitReason(verdicts[i], &m.Waiting[i], &m)
		}
		w.Text = strings.ToValidUTF8(w.Text[:min(len(w.Text), wire.MaxWaitText)], "")
		all = append(all, w)
	}
	slices.SortFunc(all, func(x, y wire.Wait) int { return strings.Compare(x.Channel, y.Channel) })
	all = all[:min(len(all), wire.MaxWaits)]
	if !slices.Equal(all, a.waits) || a.beaten != a.revision {
		a.waits, a.beaten = all, a.revision
		a.beat.wake()
	}
}
