package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"

	"nightferry/internal/window"
)

// Prices are the store's prices for transfers.
type Prices struct {
	PerGB              float64 // 1e9 bytes
	PerThousandRequest float64
}

// Coming is an expected release: its channel's cadence gives the time, the
// previous releases its size.
type Coming struct {
	Channel         string
	Release         uint64 // 0: its number is not known yet
	At              time.Time
	Bytes, Requests int64 // for each site
}

// Question is the input of a forecast.
type Question struct {
	From   time.Time
	Days   int // at least 1, at most 366
	Sites  []Site
	Due    []Due
	Coming []Coming
	Halts  []Halt // lifted halts have no effect here
	Prices Prices
	// AssumedRate applies to sites that were never measured, in bytes per
	// second; 0: 1 MB/s.
	AssumedRate int64
	Options     Options // Cap is ignored, see Forecast
}

const defaultAssumedRate = 1_000_000

// Item is the forecast of one release at one site.
type Item struct {
	Site, Channel string
	Release       uint64
	Ready         time.Time     // when it is due
	Start         time.Time     // of its first run; zero: not within the days
	End           time.Time     // when it is complete; zero: not within the days
	Active        time.Duration // transfer time, within the days
	// Nights is the number of windows that it needs. If it takes longer than
	// the days, the number is extrapolated; 0 if it would never complete.
	Nights  int
	Halted  bool // by an active halt: then nothing else is forecast
	Assumed bool // the site was never measured

	Bytes, Requests int64
	Cost            float64 // in the currency of the prices
}

// Tonight reports whether the release completes in the window in which it
// starts.
func (i *Item) Tonight() bool { return i.Nights == 1 && !i.End.IsZero() }

// Forecast simulates the fleet's runs for some days, in Plan's order. It
// returns one item for each site and release, in the order of the sites, then
// of time. A site's runs share its line, so Forecast runs them one after the
// other, whatever the site's slots. It assumes that the cap on the whole
// fleet is not reached; otherwise runs start later.
func Forecast(q Question) []Item {
	q.Options.defaults()
	if q.AssumedRate <= 0 {
		q.AssumedRate = defaultAssumedRate
	}
	f := &forecast{q: &q, to: q.From.AddDate(0, 0, max(1, min(q.Days, 366))),
		windows: map[placeRule][]window.Window{}, steps: map[placeRule][]window.Step{}}
	q.Coming = slices.Clone(q.Coming)
	slices.SortStableFunc(q.Coming, func(a, b Coming) int { return a.At.Compare(b.At) })
	due := make(map[string][]*Due, len(q.Due))
	for i := range q.Due {
		due[q.Due[i].Site] = append(due[q.Due[i].Site], &q.Due[i])
	}
	items := make([]Item, 0, len(q.Due)+len(q.Coming)*len(q.Sites))
	for i := range q.Sites {
		items = f.site(items, &q.Sites[i], due[q.Sites[i].Name])
	}
	return items
}

type forecast struct {
	q       *Question
	to      time.Time
	windows map[placeRule][]window.Window
	steps   map[placeRule][]window.Step
}

// lane is the queue of one channel at one site.
type lane struct {
	channel *Channel
	windows []window.Window // past windows are removed
	jobs    []job           // in order of time; finished jobs are removed
}

type job struct {
	due  Due // Bytes counts down
	item int
}

func (f *forecast) site(items []Item, s *Site, due []*Due) []Item {
	first := len(items)
	var lanes []lane
	for i := range s.Channels {
		c := &s.Channels[i]
		halted := slices.ContainsFunc(f.q.Halts, func(h Halt) bool { return h.Lifted.IsZero() && h.covers(s, c.Name) })
		l := lane{channel: c}
		add := func(d Due) {
			items = append(items, Item{Site: s.Name, Channel: c.Name, Release: d.Release, Ready: d.Since, Halted: halted, Assumed: s.Rate <= 0,
				Bytes: d.Bytes, Requests: d.Requests,
				Cost: float64(d.Bytes)/1e9*f.q.Prices.PerGB + float64(d.Requests)/1e3*f.q.Prices.PerThousandRequest})
			if !halted {
				l.jobs = append(l.jobs, job{d, len(items) - 1})
			}
		}
		for _, d := range due {
			if d.Channel == c.Name {
				add(*d)
			}
		}
		for _, r := range f.q.Coming {
			if r.Channel == c.Name && r.At.Before(f.to) {
				add(Due{Site: s.Name, Channel: c.Name, Release: r.Release, Bytes: r.Bytes, Requests: r.Requests, Since: r.At})
			}
		}
		if len(l.jobs) > 0 {
			l.windows = f.windowsOf(s.Place, c.Windows)
			lanes = append(lanes, l)
		}
	}
	f.follow(items, s, lanes)
	for i := range lanes {
		for _, j := range lanes[i].jobs {
			f.extend(&items[j.item], j.due.Bytes)
		}
	}
	mine := items[first:]
	slices.SortStableFunc(mine, func(a, b Item) int {
		return cmp.Or(a.Ready.Compare(b.Ready), cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Release, b.Release))
	})
	return items
}

// follow simulates one site. Whenever its line is free, the first of the runs
// that may start does, until it completes or its window ends.
func (f *forecast) follow(items []Item, s *Site, lanes []lane) {
	steps := f.stepsOf(s)
	step := 0
	for t := f.q.From; t.Before(f.to); {
		for step+1 < len(steps) && !steps[step+1].From.After(t) {
			step++
		}
		if steps[step].Bytes == 0 { // nothing starts
			if step+1 == len(steps) {
				return
			}
			t = steps[step+1].From
			continue
		}
		var best candidate
		var chosen *lane
		var next time.Time // the next moment at which something can change
		for i := range lanes {
			l := &lanes[i]
			for len(l.windows) > 0 && !l.windows[0].End.After(t) {
				l.windows = l.windows[1:]
			}
			if len(l.windows) == 0 || len(l.jobs) == 0 {
				continue
			}
			d, w := &l.jobs[0].due, l.windows[0]
			at := d.Since
			if w.Start.After(at) {
				at = w.Start
			}
			if at.After(t) {
				if next.IsZero() || at.Before(next) {
					next = at
				}
				continue
			}
			c := newCandidate(d, 0, l.channel, w, t)
			if chosen == nil || c.Compare(&best.Turn, f.q.Options.Patience) < 0 {
				best, chosen = c, l
			}
		}
		if chosen == nil {
			if next.IsZero() {
				return
			}
			t = next
			continue
		}
		j := &chosen.jobs[0]
		item := &items[j.item]
		until := best.window.End
		if f.to.Before(until) {
			until = f.to
		}
		end, moved, active := f.move(s, steps[step:], t, until, j.due.Bytes)
		if item.Start.IsZero() {
			item.Start = t
		}
		item.Nights++
		item.Active += active
		j.due.Bytes -= moved
		j.due.Tried = t
		if j.due.Bytes <= 0 {
			item.End = end
			chosen.jobs = chosen.jobs[1:]
			t = end
			continue
		}
		t = until
	}
}

// move returns the bytes moved between from and until, at most need, and when
// the transfer ends. The first of the steps applies at from.
func (f *forecast) move(s *Site, steps []window.Step, from, until time.Time, need int64) (end time.Time, moved int64, active time.Duration) {
	measured := s.Rate
	if measured <= 0 {
		measured = f.q.AssumedRate
	}
	for t, i := from, 0; ; i++ {
		if need <= moved {
			return t, need, active
		}
		stop := until
		if i+1 < len(steps) && steps[i+1].From.Before(until) {
			stop = steps[i+1].From
		}
		if rate := min(measured, steps[i].Bytes); rate > 0 {
			takes := seconds(float64(need-moved) / float64(rate))
			if takes <= stop.Sub(t) {
				return t.Add(takes), need, active + takes
			}
			moved = min(need, moved+int64(float64(rate)*stop.Sub(t).Seconds()))
			active += stop.Sub(t)
		}
		if !stop.Before(until) {
			return until, moved, active
		}
		t = stop
	}
}

// seconds converts to a duration without overflow.
func seconds(s float64) time.Duration {
	if s > math.MaxInt64/2/float64(time.Second) {
		return math.MaxInt64 / 2
	}
	return time.Duration(s * float64(time.Second))
}

// extend extrapolates the nights of an item that does not complete within the
// days.
func (f *forecast) extend(item *Item, left int64) {
	moved := item.Bytes - left
	if moved <= 0 || item.Nights == 0 {
		item.Nights = 0
		return
	}
	item.Nights += int(math.Ceil(float64(left) / (float64(moved) / float64(item.Nights))))
}

func (f *forecast) windowsOf(at window.Place, rule window.Rule) []window.Window {
	key := keyOf(at, rule, f.q.From)
	list, ok := f.windows[key]
	if !ok {
		list = window.Between(f.q.From, f.to, at, rule)
		f.windows[key] = list
	}
	return list
}

func (f *forecast) stepsOf(s *Site) []window.Step {
	key := keyOf(window.Place{Zone: s.Place.Zone}, window.Rule{}, f.q.From)
	key.rule = s.Rates.String()
	list, ok := f.steps[key]
	if !ok {
		list = s.Rates.Steps(f.q.From, f.to, s.Place.Zone)
		f.steps[key] = list
	}
	return list
}
