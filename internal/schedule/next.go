package schedule

import (
	"cmp"
	"slices"
	"time"

	"nightferry/internal/window"
)

// Moment is the input for deciding which runs a site starts now.
type Moment struct {
	Now      time.Time
	Rate     int64         // allowed bytes per second of the site; 0: nothing starts
	Change   time.Time     // when Rate changes; zero: never
	Running  int           // number of running channels
	Patience time.Duration // 0: the constant
	Waiting  []Candidate   // due channels that are not running
}

// Candidate is a channel that is due.
type Candidate struct {
	Channel  string
	Priority int
	Bytes    int64     // that it still needs
	Since    time.Time // start of its wait

	Window window.Window // that is open, or opens next; zero: it never opens
	Always bool          // windows do not apply
	Held   bool          // by a condition other than time, such as a halt
	After  time.Time     // it does not start earlier, as after a failure; zero: no limit
}

// Verdict is the reason why a candidate does not start, or Starts.
type Verdict uint8

// The verdicts.
const (
	Starts  Verdict = iota
	Held            // see Candidate.Held
	Shut            // its window is not open
	Stopped         // the rate is 0
	Later           // see Candidate.After
	Turn            // others go first
)

// Next returns a verdict for each waiting channel, the order of the channels
// that start, and the time of the next call if nothing else changes (zero:
// never).
func Next(m Moment) (verdicts []Verdict, starts []int, again time.Time) {
	verdicts = make([]Verdict, len(m.Waiting))
	ask := func(at time.Time) {
		if at.After(m.Now) && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	for i := range m.Waiting {
		c := &m.Waiting[i]
		switch {
		case c.Held:
			verdicts[i] = Held
		case !c.Always && !c.Window.Contains(m.Now):
			verdicts[i] = Shut
			ask(c.Window.Start)
		case m.Rate == 0:
			verdicts[i] = Stopped
			ask(m.Change)
		case m.Now.Before(c.After):
			verdicts[i] = Later
			ask(c.After)
		default:
			starts = append(starts, i)
		}
	}
	patience := m.Patience
	if patience <= 0 {
		patience = Patience
	}
	slices.SortStableFunc(starts, func(i, j int) int { return m.Waiting[i].compareTo(&m.Waiting[j], m.Now, patience) })
	places := max(0, MaxRuns-m.Running)
	for _, i := range starts[min(len(starts), places):] {
		verdicts[i] = Turn
	}
	return verdicts, starts[:min(len(starts), places)], again
}

// compareTo orders candidates. Channels that waited longer than patience come
// first, the longest first, so that smaller or more important runs cannot
// delay them forever. Then the higher priority wins, then the smaller need,
// which frees its place soonest.
func (c *Candidate) compareTo(d *Candidate, now time.Time, patience time.Duration) int {
	waited, other := now.Sub(c.Since), now.Sub(d.Since)
	if starving := waited > patience; starving != (other > patience) {
		if starving {
			return -1
		}
		return 1
	} else if starving && waited != other {
		return cmp.Compare(other, waited)
	}
	return cmp.Or(cmp.Compare(d.Priority, c.Priority), cmp.Compare(c.Bytes, d.Bytes), cmp.Compare(other, waited), cmp.Compare(c.Channel, d.Channel))
}
