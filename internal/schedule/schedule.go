// Package schedule decides which site starts which channel when, and foretells
// how long and how dear that will be. It is pure: it reads no clock and does
// no I/O, so that a year of a fleet is simulated in seconds.
//
// Plan is level-triggered. It keeps nothing: each call is told all that is
// due, running and halted, and says what to start now. A call too many starts
// nothing twice, and a call that was missed loses nothing.
package schedule

import (
	"time"

	"nightferry/internal/window"
)

// Site is a target server as a plan sees it.
type Site struct {
	Name, Domain, Region string

	Place    window.Place
	Rates    window.Timetable
	Rate     int64 // measured bytes per second; 0: never measured
	Slots    int   // runs at the same time; 0 is 1
	Channels []Channel
}

// Channel is a channel at a site.
type Channel struct {
	Name     string
	Windows  window.Rule
	Priority int // the higher goes first; with the same, the smaller need does
}

// Due is a release that a site lacks. A site has at most one for each channel.
type Due struct {
	Site, Channel   string
	Release         uint64
	Bytes, Requests int64 // that it still needs

	Since time.Time // when it became due
	// Tried is when a run toward this release last started. It starts once in
	// a window, and goes on in the next. Zero when no run has, or when the last
	// was cut short by a halt or a crash, so that it starts again tonight.
	Tried time.Time
}

// Run is a run that is going on.
type Run struct {
	Site, Channel string
}

// Halt stops what it names; empty fields stop all.
type Halt struct {
	Domain, Region, Site, Channel string

	// Lifted is when it was lifted; zero while it is active. A plan should be
	// told of lifted halts for a day: what they stopped starts spread over
	// some time, not all at once.
	Lifted time.Time
}

func (h *Halt) covers(s *Site, channel string) bool {
	return (h.Domain == "" || h.Domain == s.Domain) && (h.Region == "" || h.Region == s.Region) &&
		(h.Site == "" || h.Site == s.Name) && (h.Channel == "" || h.Channel == channel)
}

// Options are what a plan is bounded by. Zero fields have the defaults.
type Options struct {
	Cap      int           // runs in the whole fleet at the same time; 0: no bound
	Patience time.Duration // what waited longer goes before every priority; default 72 h
	Spread   time.Duration // what a halt stopped starts within this time after it, and within half of what is left of its window; default 30 min
}

// Patience is the default of [Options].
const Patience = 72 * time.Hour

const defaultSpread = 30 * time.Minute

func (o *Options) defaults() {
	if o.Patience <= 0 {
		o.Patience = Patience
	}
	if o.Spread <= 0 {
		o.Spread = defaultSpread
	}
}

// Input is all that a plan depends on.
type Input struct {
	Now     time.Time
	Sites   []Site
	Due     []Due // of unknown sites and channels: left out
	Running []Run
	Halts   []Halt
	Options Options
}

// Start is a run to start now.
type Start struct {
	Site, Channel string
	Release       uint64
	Window        window.Window // it must have stopped at its end
}

// Plan returns what to start now, in the order in which to start it.
func Plan(in Input) []Start { return new(Planner).Plan(in) }
