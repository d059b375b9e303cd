// Package schedule decides which site starts which channel when, and
// forecasts duration and cost. It is pure: it reads no clock and does no I/O,
// so that a year of a fleet is simulated in seconds.
//
// Plan is level-triggered and stateless: each call gets all due, running and
// halted items, and returns the runs to start now. An extra call starts
// nothing twice, and a missed call loses nothing.
package schedule

import (
	"time"

	"nightferry/internal/window"
)

// Site is the planner's view of a target server.
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
	Priority int // the higher goes first; if equal, the smaller need
}

// Due is a release that a site lacks. A site has at most one for each channel.
type Due struct {
	Site, Channel   string
	Release         uint64
	Bytes, Requests int64 // that it still needs

	Since time.Time // when it became due
	// Tried is the start of the last run toward this release. A release
	// starts once per window, and continues in the next. It is zero if there
	// was no run, or if a halt or a crash ended the last one, so that it
	// starts again tonight.
	Tried time.Time
}

// Run is an active run.
type Run struct {
	Site, Channel string
}

// Halt stops the named scope; empty fields match everything.
type Halt struct {
	Domain, Region, Site, Channel string

	// Lifted is when it was lifted; zero while it is active. Callers should
	// pass lifted halts for a day, because the runs that they stopped restart
	// spread over some time and not all at once.
	Lifted time.Time
}

func (h *Halt) covers(s *Site, channel string) bool {
	return (h.Domain == "" || h.Domain == s.Domain) && (h.Region == "" || h.Region == s.Region) &&
		(h.Site == "" || h.Site == s.Name) && (h.Channel == "" || h.Channel == channel)
}

// Options are the limits of a plan. Zero fields have the defaults.
type Options struct {
	Cap      int           // runs in the whole fleet at the same time; 0: no limit
	Patience time.Duration // runs that waited longer go before every priority; default 72 h
	Spread   time.Duration // runs stopped by a halt restart within this time after it, and within half of the rest of their window; default 30 min
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

// Input is everything that a plan depends on.
type Input struct {
	Now     time.Time
	Sites   []Site
	Due     []Due // unknown sites and channels are ignored
	Running []Run
	Halts   []Halt
	Options Options
}

// Start is a run to start now.
type Start struct {
	Site, Channel string
	Release       uint64
	Window        window.Window // the run must stop at its end
}

// Plan returns the runs to start now, in this order.
func Plan(in Input) []Start { return new(Planner).Plan(in) }
