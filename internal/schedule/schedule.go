// Package schedule decides which channel a site starts when, and forecasts
// duration and cost. It is pure: it reads no clock and does no I/O, so that a
// year of a fleet is simulated in seconds.
//
// Next is the only planner. An agent starts the runs that Next returns,
// Forecast iterates Next, and the tests check it over a simulated year.
package schedule

import (
	"time"

	"nightferry/internal/trust"
	"nightferry/internal/window"
)

// MaxRuns is the number of channels of a site that run at once: more would
// only share the line.
const MaxRuns = 2

// Patience is the maximum wait of a channel before it precedes every
// priority.
const Patience = 72 * time.Hour

// Site is the forecast's view of a target server.
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
	Priority int // the higher goes first, after channels that have waited too long; if equal, the smaller need
}

// Due is a release that a site lacks.
type Due struct {
	Site, Channel   string
	Release         trust.ReleaseNumber
	Bytes, Requests int64 // that it still needs
	Since           time.Time
}

// Halt stops the named scope; empty fields match everything.
type Halt struct {
	Domain, Region, Site, Channel string
}

func (h *Halt) coversChannel(s *Site, channel string) bool {
	return (h.Domain == "" || h.Domain == s.Domain) && (h.Region == "" || h.Region == s.Region) &&
		(h.Site == "" || h.Site == s.Name) && (h.Channel == "" || h.Channel == channel)
}
