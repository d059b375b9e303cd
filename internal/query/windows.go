package query

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/window"
)

// WindowsRequest asks when channels may move at sites.
type WindowsRequest struct {
	Scope fleet.Scope
	From  time.Time // zero: now, by the calendar
	To    time.Time // zero: a day after From; at most maxWindowDays after it
}

// Opening is one window of a channel at a site.
type Opening struct {
	Site    string    `json:"site"`
	Domain  string    `json:"domain"`
	Region  string    `json:"region"`
	Channel string    `json:"channel"`
	Start   time.Time `json:"start"` // may lie before the time that was asked for
	End     time.Time `json:"end"`   // may lie after it
	// Always: the configuration gives no window, so that the channel may move at any time. Start and End are those that
	// were asked for.
	Always bool `json:"always,omitempty"`
}

const maxWindowDays = 31

// Windows lists the windows of the sites of a scope that are open at some time within the period, in the order of the
// sites, their channels and time.
func (v *Service) Windows(_ context.Context, r WindowsRequest) ([]Opening, error) {
	if r.From.IsZero() {
		r.From = v.o.Wall()
	}
	if r.To.IsZero() {
		r.To = r.From.AddDate(0, 0, 1)
	}
	if !r.From.Before(r.To) || r.To.After(r.From.AddDate(0, 0, maxWindowDays)) {
		return nil, fmt.Errorf("windows from %s until %s: want a period of at most %d days", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), maxWindowDays)
	}
	s := v.o.World()
	list, err := s.Fleet.Select(r.Scope)
	if err != nil {
		return nil, err
	}
	type night struct {
		zone, rule string
		place      window.Place
	}
	computed := map[night][]window.Window{} // most sites share their rule, and many their zone
	var out []Opening
	for i := range list {
		x := &list[i]
		for _, p := range x.Placements {
			at := Opening{Site: x.Name, Domain: x.Domain, Region: x.Region, Channel: p.Channel}
			rule, ok := s.Nights.Rule(x.Name, p.Channel)
			if !ok {
				at.Start, at.End, at.Always = r.From, r.To, true
				out = append(out, at)
				continue
			}
			key := night{x.Zone, rule.String(), s.Nights.Place(x.Name)}
			windows, ok := computed[key]
			if !ok {
				windows = window.Between(r.From, r.To, key.place, rule)
				computed[key] = windows
			}
			for _, w := range windows {
				at.Start, at.End = w.Start, w.End
				out = append(out, at)
			}
		}
	}
	return out, nil
}
