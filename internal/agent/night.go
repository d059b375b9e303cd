package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/spool"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// night holds the windows and rates from the Core. The site obeys them by its
// own clock, however long the Core is unreachable.
type night struct {
	place   window.Place
	rates   window.Timetable
	limit   *window.Timetable // an operator's, instead of rates and flat; nil: none
	until   time.Time         // when limit ends; zero: when it is lifted
	rules   map[string]window.Rule
	motion  window.Motion // the clock of a rehearsal; all inputs and results are real time
	flat    int64         // bytes per second of the whole site; 0: no limit
	refused error         // part of the state is unreadable: nothing moves
}

// readNight never fails. If a part is unreadable, nothing may move: moving at
// the wrong time does harm, while a waiting site is noticed.
func readNight(s *wire.State) *night {
	n := &night{rules: map[string]window.Rule{}, flat: s.Rate}
	bad := func(err error) *night {
		n.refused = fmt.Errorf("the Core's windows cannot be read here: %w: nothing moves until nightferry-agent is upgraded, or they are put right", err)
		return n
	}
	if len(s.Rehearsal) != 0 && (len(s.Rehearsal) != 3 || s.Rehearsal[2] < 1 || s.Rehearsal[2] > window.MaxSpeed) {
		return bad(fmt.Errorf("a rehearsal of %v", s.Rehearsal))
	}
	if len(s.Rehearsal) == 3 {
		n.motion = window.Motion{From: time.UnixMilli(s.Rehearsal[0]), To: time.UnixMilli(s.Rehearsal[1]), Speed: s.Rehearsal[2]}
	}
	var err error
	if n.place.Zone, err = time.LoadLocation(s.Zone); err != nil {
		return bad(err)
	}
	if len(s.Where) == 2 {
		lat, long := float64(s.Where[0])/1e6, float64(s.Where[1])/1e6
		n.place.Latitude, n.place.Longitude = &lat, &long
	}
	if s.Rates != "" {
		if n.rates, err = window.ParseTimetable(s.Rates, bucket.ParseRate); err != nil {
			return bad(err)
		}
	}
	if s.Limit != "" {
		t, err := window.ParseTimetable(s.Limit, bucket.ParseRate)
		if err != nil {
			return bad(err)
		}
		n.limit = &t
		if s.LimitUntil != 0 {
			n.until = time.Unix(s.LimitUntil, 0).In(n.place.Zone)
		}
	}
	for _, d := range s.Desired {
		if d.Windows == "" {
			continue
		}
		r, err := window.ParseRule(d.Windows)
		if err == nil {
			err = r.Check(n.place)
		}
		if err != nil {
			return bad(err)
		}
		n.rules[d.Channel] = r
	}
	return n
}

// currentRate returns the bytes per second of the whole site (0: nothing moves, or
// window.Unlimited), and when to ask again; zero: it does not change.
func (n *night) currentRate(now time.Time) (bytesPerSecond int64, again time.Time) {
	now = n.motion.At(now)
	if n.limit != nil && (n.until.IsZero() || now.Before(n.until)) {
		r, again := n.limit.Rate(now, n.place.Zone)
		return r, n.motion.When(earlierTime(again, n.until))
	}
	r, again := n.rates.Rate(now, n.place.Zone)
	if n.flat > 0 {
		r = min(r, n.flat)
	}
	return r, n.motion.When(again)
}

// windowOf returns a channel's open or next window, in real time; the zero
// Window never opens. always reports that the channel needs none.
func (n *night) windowOf(now time.Time, channel string, ordered bool) (w window.Window, always bool) {
	rule, has := n.rules[channel]
	if !has || ordered {
		return w, true
	}
	shown := n.motion.At(now)
	w, ok := window.Open(shown, n.place, rule)
	if !ok {
		w, _ = window.Next(shown, n.place, rule)
	}
	return window.Window{Start: n.motion.When(w.Start), End: n.motion.When(w.End)}, false
}

// isOpen reports whether a channel may move, and when to ask again; zero: it does
// not change. With ordered, windows are ignored, but the rate is not.
func (n *night) isOpen(now time.Time, channel string, ordered bool) (ok bool, again time.Time) {
	if n.refused != nil {
		return false, time.Time{}
	}
	w, always := n.windowOf(now, channel, ordered)
	if !always && !w.Contains(now) {
		return false, w.Start
	}
	r, change := n.currentRate(now)
	return r > 0, earlierTime(w.End, change)
}

// earlierTime returns the earlier of two times. The zero time means never.
func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// watch is how long the agent trusts its timers. After that it reads the wall
// clock, which people may set and which advances while a machine sleeps.
const watch = time.Minute

// closedError ends a run because nothing may move now.
type closedError struct {
	next    time.Time // on the displayed clock; zero: none is foreseen
	zero    bool      // the rate is 0, the window has not ended
	limited bool      // by an operator's limit, not by the configuration
}

func (e *closedError) Error() string {
	const kept = ": fetched data is kept"
	next := e.next.Format("2006-01-02 15:04 MST")
	switch {
	case e.limited && e.next.IsZero():
		return "nightferry limit has set the rate to 0" + kept + ", and the channel continues when that is lifted (nightferry limit --off)"
	case e.limited:
		return "nightferry limit has set the rate to 0" + kept + ", and the channel continues when that changes, on " + next + ", or is lifted before (nightferry limit --off)"
	case e.zero && e.next.IsZero():
		return "the configuration's rate is 0 at all hours" + kept
	case e.zero:
		return "the configuration's rate is 0 at this hour" + kept + ", and the channel continues when that changes, on " + next
	case e.next.IsZero():
		return "the window has closed, and no other is foreseen" + kept
	}
	return "the window has closed" + kept + ", and the channel continues in the next, on " + next
}

// closedReason returns the reason why a channel that is not open may not move now.
func (n *night) closedReason(now time.Time, channel string, ordered bool) error {
	if n.refused != nil {
		return n.refused
	}
	shown := n.motion.At(now)
	if rule, has := n.rules[channel]; has && !ordered {
		if _, ok := window.Open(shown, n.place, rule); !ok {
			next, _ := window.Next(shown, n.place, rule)
			return &closedError{next: next.Start}
		}
	}
	_, change := n.currentRate(now)
	return &closedError{next: n.motion.At(change), zero: true, limited: n.limit != nil && (n.until.IsZero() || shown.Before(n.until))}
}

// realTime converts a calendar duration to real time, which is shorter in a rehearsal.
func (n *night) realTime(d time.Duration) time.Duration { return n.motion.Real(d) }

// applyWindows applies the present rate and stops jobs that may no longer move. It
// returns the time until that may change.
func (a *agent) applyWindows(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.night == nil {
		return time.Hour
	}
	soon := time.Hour
	ask := func(at time.Time) {
		if !at.IsZero() {
			soon = min(soon, watch, max(at.Sub(now), time.Millisecond))
		}
	}
	r, again := a.night.currentRate(now)
	ask(again)
	switch {
	case r == window.Unlimited:
		setRate(a.rate, 0)
		a.receive.Set(0)
	case r > 0:
		setRate(a.rate, r)
		a.receive.Set(bufferSize(r))
	}
	for channel, j := range a.running {
		if findDesired(a.state, channel) == nil {
			continue // it is being ended, see bury
		}
		ok, again := a.night.isOpen(now, channel, j.ordered)
		if j.prepares {
			ok = a.night.mayAsk(now)
		}
		if ok {
			ask(again)
			continue
		}
		j.stop(a.night.closedReason(now, channel, j.ordered || j.prepares)) // preparations need no window
	}
	return soon
}

// bufferSize returns how many bytes each connection may buffer ahead of a rate.
// The buffer is small, so that the line follows the rate. Eight connections can
// still reach the rate over a round trip of an eighth of a second.
func bufferSize(bytesPerSecond int64) int {
	return int(min(max(bytesPerSecond/64, 16<<10), 1<<20))
}

// turns records since when channels wait for their turn.
type turns struct {
	mu      sync.Mutex
	since   map[string]time.Time // by channel
	changed bool                 // since has changed and is not durable yet
}

// waitsSince returns since when a channel waits; the zero time if it does not.
func (t *turns) waitsSince(channel string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.since[channel]
}

// takeTurn notes that a waiting channel has its turn.
func (t *turns) takeTurn(channel string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, waits := t.since[channel]; waits {
		t.since[channel], t.changed = now, true
	}
}

// recordWaiting records since when each channel that lacks its desired release waits
// for its turn: since it last held its desired release, or last had its turn.
// The time is durable, and neither a newer release nor a restart resets it.
// Otherwise a channel with daily releases would wait for ever.
func (t *turns) recordWaiting(ctx context.Context, store *spool.Spool, s *wire.State, have []spool.Held, now time.Time) error {
	t.mu.Lock()
	next, changed := map[string]time.Time{}, false
	for i := range s.Desired {
		d := &s.Desired[i]
		if d.Number == 0 || holdsDesired(findHeld(have, d.Channel), d) {
			continue
		}
		since, known := t.since[d.Channel]
		if !known || since.After(now) { // the clock was set back
			since, changed = now, true
		}
		next[d.Channel] = since
	}
	changed = changed || t.changed || len(next) != len(t.since)
	t.since, t.changed = next, false
	kept := maps.Clone(next)
	t.mu.Unlock()
	if !changed {
		return nil
	}
	if err := store.SetWaiting(ctx, kept); err != nil && !errors.Is(err, spool.ErrFull) {
		return err
	}
	return nil
}
