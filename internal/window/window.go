// Package window decides when and how fast a channel may transfer at a site,
// and when the Core publishes. Its rules are wall-clock windows in the site's
// own zone, freezes and holidays, and the dark of the site's nights. It is
// pure: it reads no clock, no file and no network, so that the Core, the
// agent and a simulation of a year agree on every second.
//
// Wall-clock time is not continuous: it skips an hour in spring and repeats
// one in autumn. One rule settles every case: a wall-clock time means the
// first instant at which the site's clock shows it or has passed it. A window
// that starts in the skipped hour starts at the end of that hour. One in the
// doubled hour runs once, in the first of the two.
package window

import (
	"slices"
	"time"
	_ "time/tzdata" // Windows has no zones by IANA name, and a small Linux may have none
)

// Window is a period in which a channel may transfer: from Start up to but
// not including End. Both are in the site's zone.
type Window struct {
	Start, End time.Time
}

// Contains reports whether t is in the window.
func (w Window) Contains(t time.Time) bool { return !t.Before(w.Start) && t.Before(w.End) }

// Length returns the real duration of the window, which differs from the
// wall-clock time across a clock change.
func (w Window) Length() time.Duration { return w.End.Sub(w.Start) }

// Place holds the properties of a site that a rule needs.
type Place struct {
	Zone                *time.Location // nil is UTC
	Latitude, Longitude *float64       // degrees, north and east positive; both or neither are nil
}

func (p Place) timeZone() *time.Location {
	if p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

const (
	// maxStretch is the maximum length of a window. A longer one, as with the
	// rule all, is split at each Monday's 00:00, so that every window has an
	// end to plan with.
	maxStretch = 7 * 24 * time.Hour
	// horizon bounds the search for the next window. It exceeds the longest
	// time between leap days, so that no yearly rule is missed.
	horizon = 8*366 + 7
)

// Open returns the window that is open at now.
//
// Windows that overlap or touch are merged. A window longer than 7 days is
// split at each Monday, 00:00 at the site.
func Open(now time.Time, at Place, r Rule) (Window, bool) {
	for _, w := range Between(now, now.Add(1), at, r) {
		return w, true
	}
	return Window{}, false
}

// Next returns the first window that starts after now. It returns false if
// none opens within eight years: the rule never opens, or freezes cover it.
func Next(now time.Time, at Place, r Rule) (Window, bool) {
	if len(r.clauses) == 0 {
		return Window{}, false
	}
	from := now
	for days := 3; days <= 2*horizon; days *= 4 {
		to := now.AddDate(0, 0, min(days, horizon))
		for _, w := range Between(from, to, at, r) {
			if w.Start.After(now) {
				return w, true
			}
		}
		from = to
	}
	return Window{}, false
}

// Between returns the windows that are open at some time in [from, to), in
// order. They are complete, so they may start before from and end after to.
// None touches the next, except if a long one is split.
func Between(from, to time.Time, at Place, r Rule) []Window {
	if !from.Before(to) || len(r.clauses) == 0 {
		return nil
	}
	zone := at.timeZone()
	first, last := dateOf(from.In(zone)), dateOf(to.In(zone))
	// A day's windows extend at most into the next two days, so a few days
	// usually suffice. Only if a window may extend beyond them, as on
	// weekends or with the rule all, search a wider range.
	const near, far = 2, 11
	out, whole := r.windowsBetween(first.addDays(-near), last.addDays(near), from, to, at)
	if !whole {
		out, _ = r.windowsBetween(first.addDays(-far), last.addDays(far), from, to, at)
	}
	return out
}

// windowsBetween returns the windows of the days from first to last that overlap
// [from, to), and whether other days could not change any of them.
func (r *Rule) windowsBetween(first, last Date, from, to time.Time, at Place) (out []Window, whole bool) {
	zone := at.timeZone()
	var list []Window
	for d := first; !last.before(d); d = d.addDays(1) {
		list = r.appendDay(list, d, at)
	}
	slices.SortFunc(list, func(a, b Window) int { return a.Start.Compare(b.Start) })
	sure := Window{Start: wallTime(first.addDays(1), 0, zone), End: wallTime(last.addDays(1), 0, zone)}
	whole = true
	for i := 0; i < len(list); {
		w := list[i]
		for i++; i < len(list) && !list[i].Start.After(w.End); i++ {
			if list[i].End.After(w.End) {
				w.End = list[i].End
			}
		}
		if !w.End.After(from) || !w.Start.Before(to) {
			continue
		}
		whole = whole && !w.Start.Before(sure.Start) && w.End.Before(sure.End)
		for _, p := range splitAtMondays(w, zone) {
			if p.End.After(from) && p.Start.Before(to) {
				out = append(out, p)
			}
		}
	}
	return out, whole
}

// splitAtMondays splits a window that is too long at its Mondays.
func splitAtMondays(w Window, zone *time.Location) []Window {
	if w.Length() <= maxStretch {
		return []Window{w}
	}
	var out []Window
	d := dateOf(w.Start)
	for d = d.addDays(1); w.Length() > 0; d = d.addDays(1) {
		if d.weekday() != time.Monday {
			continue
		}
		end := wallTime(d, 0, zone)
		if !end.Before(w.End) {
			out = append(out, w)
			break
		}
		if end.After(w.Start) {
			out = append(out, Window{w.Start, end})
			w.Start = end
		}
	}
	return out
}

// appendDay appends the windows that start on d. The morning after belongs to the
// evening before: the evening's date decides whether a night is frozen or a
// holiday's.
func (r *Rule) appendDay(out []Window, d Date, at Place) []Window {
	if r.freeze.Contains(d) {
		return out
	}
	zone := at.timeZone()
	kind := daySet(1) << d.weekday()
	if r.holidayClause() && r.holidays.Contains(d) {
		kind = holidayBit
	}
	for i := range r.clauses {
		c := &r.clauses[i]
		if c.days&kind == 0 {
			continue
		}
		for _, s := range c.spans {
			w, ok := s.windowOn(d, at, zone)
			if !ok {
				continue
			}
			// A freeze also closes a window that is open when it starts.
			if r.freeze.Contains(d.addDays(1)) {
				if end := wallTime(d.addDays(1), 0, zone); end.Before(w.End) {
					w.End = end
				}
			}
			if w.Start.Before(w.End) {
				out = append(out, w)
			}
		}
	}
	return out
}

// windowOn returns the window of the span on a date.
func (s span) windowOn(d Date, at Place, zone *time.Location) (Window, bool) {
	if s.dark {
		if at.Latitude == nil || at.Longitude == nil {
			return Window{}, false
		}
		return nightWindow(wallTime(d.addDays(1), 0, zone), *at.Latitude, *at.Longitude, s.min, s.max), true
	}
	start, skipped := wallSkip(d, s.from, zone)
	end := wallTime(d, s.to, zone)
	if !start.Before(end) {
		// All of it is in skipped time. If the clocks skip an hour, the
		// window moves to the end of that hour and keeps its length. A whole
		// day that a zone skips, by crossing the date line, has no windows.
		if skipped >= 12*time.Hour {
			return Window{}, false
		}
		end = start.Add(time.Duration(s.to-s.from) * time.Minute)
	}
	return Window{start, end}, true
}
