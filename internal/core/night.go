package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// nights is what a fleet says of when, read once.
type nights struct {
	places   map[string]window.Place // by site
	rates    map[string]window.Timetable
	rules    map[[2]string]window.Rule // by site and channel; absent: always
	cadences map[string]window.Cadence // by channel
	openings map[string][]window.Opening
}

func readNights(f *fleet.Fleet) (*nights, error) {
	n := &nights{places: map[string]window.Place{}, rates: map[string]window.Timetable{}, rules: map[[2]string]window.Rule{},
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
			t, err := window.ParseTimetable(s.Rates, bucket.ParseRate)
			if err != nil {
				errs = append(errs, fmt.Errorf("site %q: %w", s.Name, err))
			}
			n.rates[s.Name] = t
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

// opens returns when a channel may move at a site: the zero time when it may
// now, or never may.
func (n *nights) opens(site, channel string, now time.Time) time.Time {
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

// LimitRequest bounds how fast sites move, from now on.
type LimitRequest struct {
	Scope fleet.Scope   `json:"scope"` // without a channel
	Rate  string        `json:"rate"`  // a rate, 0, unlimited or a timetable; empty: the configuration's counts again
	For   time.Duration `json:"for"`   // 0: until it is lifted
}

// Limited is one site's answer to a LimitRequest.
type Limited struct {
	Domain    string    `json:"domain"`
	Site      string    `json:"site"`
	Rate      string    `json:"rate"` // the timetable in force
	Until     time.Time `json:"until,omitzero"`
	Connected bool      `json:"connected"` // false: it obeys when it comes back
}

// maxLimit bounds how long a limit may last.
const maxLimit = 366 * 24 * time.Hour

// Limit changes how fast sites move. Those that are moving follow at once.
func (c *Core) Limit(ctx context.Context, r LimitRequest) ([]Limited, error) {
	if r.Scope.Channel != "" {
		return nil, errors.New("limit: a limit is a site's: leave the channel out")
	}
	if r.For < 0 || r.For > maxLimit {
		return nil, fmt.Errorf("limit: %v: want a time up to %v, or none", r.For, maxLimit)
	}
	list, err := c.settings.Load().Fleet.Select(r.Scope)
	if err != nil {
		return nil, err
	}
	var limit desired.Limit
	if r.Rate != "" {
		t, err := ParseLimit(r.Rate)
		if err != nil {
			return nil, fmt.Errorf("limit: %w", err)
		}
		limit.Timetable = t.String()
		if r.For > 0 {
			limit.Until = c.wall().Add(r.For).Unix()
		}
	}
	ch := desired.Change{Limits: map[wire.Address]desired.Limit{}}
	for _, s := range list {
		ch.Only = append(ch.Only, s.Name)
		ch.Limits[wire.Address{Domain: s.Domain, Site: s.Name}] = limit
	}
	if len(list) == 0 {
		return nil, errors.New("limit: there is no such site")
	}
	what := r.Rate // as it was written
	if what == "" {
		what = "the configuration's"
	}
	if limit.Until != 0 {
		what += " until " + unixTime(limit.Until).Format(time.RFC3339)
	}
	if err := c.audit(ctx, "limit", scopeText(r.Scope), what); err != nil {
		return nil, err
	}
	if err := c.desire(ctx, ch); err != nil {
		return nil, err
	}
	var out []Limited
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		st := c.desired.Of(a)
		l := Limited{Domain: s.Domain, Site: s.Name, Rate: st.Limit, Connected: c.connected(a)}
		if st.LimitUntil != 0 {
			l.Until = unixTime(st.LimitUntil)
		}
		if l.Rate == "" {
			l.Rate = configured(&s)
		}
		out = append(out, l)
	}
	return out, nil
}

// ParseLimit reads a rate, 0, unlimited or a timetable.
func ParseLimit(text string) (window.Timetable, error) {
	if !strings.ContainsAny(text, ";:") && !strings.HasPrefix(text, "else ") {
		text = "else " + strings.ReplaceAll(text, " ", "")
	}
	return window.ParseTimetable(text, bucket.ParseRate)
}

// configured is the rate that the configuration gives a site.
func configured(s *fleet.Site) string {
	switch {
	case s.Rates != "":
		return s.Rates
	case s.Rate > 0:
		return fmt.Sprintf("else %dB", s.Rate)
	}
	return "else unlimited"
}
