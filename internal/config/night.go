package config

import (
	"errors"
	"strings"

	"nightferry/internal/bucket"
	"nightferry/internal/fleet"
	"nightferry/internal/window"
)

// pace is a rate for the whole day, or a timetable in canonical text.
type pace string

func (p *pace) parseText(text string) error {
	if text == "0" {
		return errors.New(`0: write "else 0" for a site that is to fetch nothing, and nothing for no limit`)
	}
	var r rate
	err := r.parseText(text)
	if err == nil || !isTimetable(text) {
		*p = pace(text)
		return err
	}
	t, err := window.ParseTimetable(text, bucket.ParseRate)
	*p = pace(t.String())
	return err
}

// isTimetable reports whether text is a timetable and not a plain rate.
func isTimetable(text string) bool {
	return strings.ContainsAny(text, ";:") || strings.HasPrefix(text, "else ")
}

func (p pace) splitRate() (bytesPerSecond int64, table string) {
	if isTimetable(string(p)) {
		return 0, string(p)
	}
	var r rate
	_ = r.parseText(string(p)) // it was parsed before, or refused with an error
	return int64(r), ""
}

// always is the rule that removes a window set by a wider level.
const always = "always"

// rule is a window in canonical text.
type rule string

func (r *rule) parseText(text string) error {
	if text == always {
		*r = always
		return nil
	}
	w, err := window.ParseRule(text)
	*r = rule(w.String())
	return err
}

// cadence is a cadence in canonical text.
type cadence string

func (c *cadence) parseText(text string) error {
	v, err := window.ParseCadence(text)
	*c = cadence(v.String())
	return err
}

// maxPriority bounds the absolute value of a channel's priority.
const maxPriority = 1000

// weekly lists the channels that are published once a week by default,
// because their content is large and changes seldom.
var weekly = map[string]bool{"image": true}

// setCadences sets the default cadence of channels that have windows somewhere
// but no cadence. Channels without windows are not published automatically.
func (b *builder) setCadences(f *fleet.Fleet) {
	windows := map[string]bool{}
	for i := range f.Sites {
		for _, p := range f.Sites[i].Placements {
			windows[p.Channel] = windows[p.Channel] || p.Windows != ""
		}
	}
	for i := range f.Channels {
		ch := &f.Channels[i]
		text := "daily before first window"
		if weekly[ch.Name] {
			text = "weekly sun before first window"
		}
		if given := b.f.Channels[ch.Name].Cadence; given != nil {
			ch.Cadence = string(*given)
		} else if c, err := window.ParseCadence(text); err == nil && windows[ch.Name] {
			ch.Cadence = c.String()
		}
	}
}

// setWindows sets a placement's rule, if it is valid at the site.
func (b *builder) setWindows(s *fleet.Site, p *fleet.Placement, r *rule) {
	if r == nil || *r == always || *r == "" {
		return
	}
	p.Windows = string(*r)
	w, err := window.ParseRule(p.Windows)
	if err != nil {
		return // reported at its own level
	}
	key := "sites." + s.Name
	if err := w.Check(window.Place{Zone: s.Location, Latitude: s.Latitude, Longitude: s.Longitude}); err != nil && !b.refused[key] {
		b.addError(b.at["#"+key], key, "windows of channel %s: %v", p.Channel, err)
	}
}

// Prices are the store's prices for transfers, in a currency that is never
// converted.
type Prices struct {
	GB, ThousandRequests float64
	Currency             string
}

func (b *builder) buildPrices() Prices {
	f, p := b.f.Prices, Prices{Currency: "USD"}
	for _, n := range []struct {
		key   string
		given *float64
		to    *float64
	}{{"prices.gb", f.GB, &p.GB}, {"prices.thousand_requests", f.ThousandRequests, &p.ThousandRequests}} {
		if n.given == nil {
			continue
		}
		if *n.to = *n.given; *n.to < 0 {
			b.reportBad(n.key, "%v: want no negative price", *n.to)
		}
	}
	if f.Currency != nil {
		p.Currency = *f.Currency
		if len(p.Currency) != 3 || strings.ToUpper(p.Currency) != p.Currency {
			b.reportBad("prices.currency", "%s: want its three capital letters, such as EUR", quoteShort(p.Currency))
		}
	}
	return p
}
