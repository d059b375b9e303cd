// Package nights parses the windows, rates and cadences of a fleet once, for
// everything that asks when a channel moves or is published.
package nights

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/fleet"
	"nightferry/internal/window"
)

// Table holds the windows, rates and cadences of a fleet. It is immutable.
type Table struct {
	places   map[string]window.Place   // by site
	rules    map[[2]string]window.Rule // by site and channel; absent: always
	cadences map[string]window.Cadence // by channel
	openings map[string][]window.Opening
}

// Parse reads the texts of a fleet. It returns all errors.
func Parse(f *fleet.Fleet) (*Table, error) {
	n := &Table{places: map[string]window.Place{}, rules: map[[2]string]window.Rule{},
		cadences: map[string]window.Cadence{}, openings: map[string][]window.Opening{}}
	var errs []error
	for _, ch := range f.Channels {
		if ch.Cadence == "" {
			continue
		}
		c, err := window.ParseCadence(ch.Cadence)
		if err != nil {
			errs = append(errs, fmt.Errorf("channel %q: %w", ch.Name, err))
		}
		n.cadences[ch.Name] = c
	}
	for i := range f.Sites {
		s := &f.Sites[i]
		at := window.Place{Zone: s.Location, Latitude: s.Latitude, Longitude: s.Longitude}
		n.places[s.Name] = at
		if s.Rates != "" {
			if _, err := window.ParseTimetable(s.Rates, bucket.ParseRate); err != nil {
				errs = append(errs, fmt.Errorf("site %q: %w", s.Name, err))
			}
		}
		for _, p := range s.Placements {
			if p.Windows == "" {
				continue
			}
			r, err := window.ParseRule(p.Windows)
			if err == nil {
				err = r.Check(at)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("site %q: channel %q: %w", s.Name, p.Channel, err))
			}
			n.rules[[2]string{s.Name, p.Channel}] = r
			n.openings[p.Channel] = append(n.openings[p.Channel], window.Opening{At: at, Rule: r})
		}
	}
	return n, errors.Join(errs...)
}

// Place returns where a site is.
func (n *Table) Place(site string) window.Place { return n.places[site] }

// Rule returns when a channel may move at a site. Without a rule it may move at
// any time.
func (n *Table) Rule(site, channel string) (window.Rule, bool) {
	r, ok := n.rules[[2]string{site, channel}]
	return r, ok
}

// Any reports whether any channel has a rule at any site.
func (n *Table) Any() bool { return len(n.rules) > 0 }

// Cadence returns when a channel is published.
func (n *Table) Cadence(channel string) window.Cadence { return n.cadences[channel] }

// Openings returns the windows of a channel at all sites.
func (n *Table) Openings(channel string) []window.Opening { return n.openings[channel] }

// Opens returns when a channel may move at a site. It is zero if the channel may
// move now, or never.
func (n *Table) Opens(site, channel string, now time.Time) time.Time {
	rule, ok := n.rules[[2]string{site, channel}]
	if !ok {
		return time.Time{}
	}
	if _, ok := window.Open(now, n.places[site], rule); ok {
		return time.Time{}
	}
	next, _ := window.Next(now, n.places[site], rule)
	return next.Start
}

// ParseLimit reads a rate, 0, unlimited or a timetable.
func ParseLimit(text string) (window.Timetable, error) {
	if !strings.ContainsAny(text, ";:") && !strings.HasPrefix(text, "else ") {
		text = "else " + strings.ReplaceAll(text, " ", "")
	}
	return window.ParseTimetable(text, bucket.ParseRate)
}

// Configured is the rate that the configuration gives a site.
func Configured(s *fleet.Site) string {
	switch {
	case s.Rates != "":
		return s.Rates
	case s.Rate > 0:
		return fmt.Sprintf("else %dB", s.Rate)
	}
	return "else unlimited"
}
