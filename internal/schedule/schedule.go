// Package schedule decides which channel a site starts when, and forecasts how
// long and how expensive that will be. It is pure: it reads no clock and does no
// I/O, so a year of a fleet is simulated in seconds.
//
// Next is the one planner. An agent starts what Next returns, Forecast iterates
// it, and the simulated year of the tests proves it.
package schedule

import (
	"time"

	"nightferry/internal/window"
)

// MaxRuns is how many channels of a site move at once: more would only share the
// line.
const MaxRuns = 2

// Patience is how long a channel waits at most for its turn before it goes ahead
// of every priority.
const Patience = 72 * time.Hour

// Site is a target server as a forecast sees it.
type Site struct {
	Name, Domain, Region string

	Place    window.Place
	Rates    window.Timetable
	Rate     int64 // measured bytes per second; 0: never measured
	Channels []Channel
}

// Channel is a channel at a site.
type Channel struct {
	Name     string
	Windows  window.Rule
	Priority int // the higher goes first; with the same, the smaller need does
}

// Due is a release that a site lacks.
type Due struct {
	Site, Channel   string
	Release         uint64
	Bytes, Requests int64 // that it still needs
	Since           time.Time
}

// Halt stops what it names; empty fields stop all.
type Halt struct {
	Domain, Region, Site, Channel string
}

func (h *Halt) covers(s *Site, channel string) bool {
	return (h.Domain == "" || h.Domain == s.Domain) && (h.Region == "" || h.Region == s.Region) &&
		(h.Site == "" || h.Site == s.Name) && (h.Channel == "" || h.Channel == channel)
}
