package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"

	"nightferry/internal/trust"
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
	Release         trust.ReleaseNumber // 0: its number is not known yet
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
	Halts  []Halt // the active ones
	Prices Prices
	// AssumedRate applies to sites that were never measured, in bytes per
	// second; 0: 1 MB/s.
	AssumedRate int64
	Patience    time.Duration // 0: the constant
}

const defaultAssumedRate = 1_000_000

// Item is the forecast of one release at one site.
type Item struct {
	Site, Channel string
	Release       trust.ReleaseNumber
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

// Forecast simulates the fleet's runs for some days with Next. It returns one
// item for each site and release, in the order of the sites, then of time.
// Concurrent runs of a site share its line evenly. It assumes that no run
// fails.
func Forecast(q Question) []Item {
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
		items = f.forecastSite(items, &q.Sites[i], due[q.Sites[i].Name])
	}
	return items
}

type forecast struct {
	q       *Question
	to      time.Time
	windows map[placeRule][]window.Window
	steps   map[placeRule][]window.Step
}

// lane is one channel of a site.
type lane struct {
	channel *Channel
	windows []window.Window // past windows are removed
	jobs    []job           // in order of time; finished jobs are removed
	moves   bool
	since   time.Time     // start of its wait, or of its last turn
	counted window.Window // the last that counts as a night of the first job
}

type job struct {
	due  Due // Bytes counts down
	item int
}

func (f *forecast) forecastSite(items []Item, s *Site, due []*Due) []Item {
	first := len(items)
	var lanes []lane
	for i := range s.Channels {
		c := &s.Channels[i]
		halted := slices.ContainsFunc(f.q.Halts, func(h Halt) bool { return h.coversChannel(s, c.Name) })
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
	f.simulateSite(items, s, lanes)
	for i := range lanes {
		for _, j := range lanes[i].jobs {
			f.extendNights(&items[j.item], j.due.Bytes)
		}
	}
	mine := items[first:]
	slices.SortStableFunc(mine, func(a, b Item) int {
		return cmp.Or(a.Ready.Compare(b.Ready), cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Release, b.Release))
	})
	return items
}

// simulateSite simulates one site, from one moment at which something changes to
// the next.
func (f *forecast) simulateSite(items []Item, s *Site, lanes []lane) {
	steps := f.stepsOf(s)
	for t := f.q.From; t.Before(f.to); {
		for len(steps) > 1 && !steps[1].From.After(t) {
			steps = steps[1:]
		}
		m := Moment{Now: t, Rate: steps[0].Bytes, Patience: f.q.Patience}
		next := f.to
		if len(steps) > 1 {
			m.Change = steps[1].From
			next = earlierTime(next, m.Change)
		}
		waiting := f.findCandidates(&m, lanes, &next)
		_, starts, again := Next(m)
		next = earlierTime(next, again)
		for _, i := range starts {
			waiting[i].startJob(items, t)
		}
		t = f.advanceTo(items, s, lanes, t, next, m.Rate)
	}
}

// findCandidates fills in the running count and the candidates of m, and returns the
// candidates' lanes. It sets next to the next moment at which these change.
func (f *forecast) findCandidates(m *Moment, lanes []lane, next *time.Time) (waiting []*lane) {
	for i := range lanes {
		l := &lanes[i]
		for len(l.windows) > 0 && !l.windows[0].End.After(m.Now) {
			l.windows, l.moves = l.windows[1:], false
		}
		switch {
		case len(l.windows) == 0 || len(l.jobs) == 0:
			l.moves = false
			continue
		case l.moves && m.Rate > 0:
			m.Running++
			*next = earlierTime(*next, l.windows[0].End)
			continue
		}
		l.moves = false
		d := &l.jobs[0].due
		if d.Since.After(m.Now) {
			*next = earlierTime(*next, d.Since)
			continue
		}
		since := d.Since
		if l.since.After(since) {
			since = l.since
		}
		m.Waiting = append(m.Waiting, Candidate{Channel: l.channel.Name, Priority: l.channel.Priority, Bytes: d.Bytes, Since: since, Window: l.windows[0]})
		waiting = append(waiting, l)
	}
	return waiting
}

// startJob starts, or continues, the lane's first job.
func (l *lane) startJob(items []Item, t time.Time) {
	l.moves, l.since = true, t
	item := &items[l.jobs[0].item]
	if item.Start.IsZero() {
		item.Start = t
	}
	if l.counted != l.windows[0] {
		l.counted = l.windows[0]
		item.Nights++
	}
}

// advanceTo moves the running transfers forward to next, or to the first end of
// a run if that is earlier, and returns that time.
func (f *forecast) advanceTo(items []Item, s *Site, lanes []lane, t, next time.Time, limit int64) time.Time {
	rate, moving := s.Rate, 0
	if rate <= 0 {
		rate = f.q.AssumedRate
	}
	rate = min(rate, limit)
	for i := range lanes {
		if lanes[i].moves {
			moving++
			next = earlierTime(next, lanes[i].windows[0].End)
		}
	}
	share := float64(rate) / float64(max(1, moving))
	takes := func(l *lane) time.Duration { return secondsOf(float64(max(0, l.jobs[0].due.Bytes)) / share) }
	for i := range lanes {
		if l := &lanes[i]; l.moves && takes(l) < next.Sub(t) {
			next = t.Add(takes(l))
		}
	}
	spent := next.Sub(t)
	for i := range lanes {
		l := &lanes[i]
		if !l.moves {
			continue
		}
		j := &l.jobs[0]
		item := &items[j.item]
		item.Active += spent
		if takes(l) > spent {
			j.due.Bytes -= int64(share * spent.Seconds())
			continue
		}
		item.End = next
		l.jobs, l.moves, l.since, l.counted = l.jobs[1:], false, time.Time{}, window.Window{}
	}
	return next
}

// earlierTime returns the earlier of two times; a zero time means never.
func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// secondsOf converts to a duration without overflow.
func secondsOf(s float64) time.Duration {
	if s > math.MaxInt64/2/float64(time.Second) {
		return math.MaxInt64 / 2
	}
	return time.Duration(s * float64(time.Second))
}

// extendNights extrapolates the nights of an item that does not complete within the
// days.
func (f *forecast) extendNights(item *Item, left int64) {
	moved := item.Bytes - left
	if moved <= 0 || item.Nights == 0 {
		item.Nights = 0
		return
	}
	item.Nights += int(math.Ceil(float64(left) / (float64(moved) / float64(item.Nights))))
}

// placeRule identifies a rule at a place by value, because each site may have
// loaded its own copy of a zone.
type placeRule struct {
	zone                string
	offset              int // distinguishes zones without a name
	rule                string
	latitude, longitude float64
}

func keyOf(at window.Place, rule window.Rule, now time.Time) placeRule {
	k := placeRule{zone: "UTC", rule: rule.String()}
	if at.Zone != nil {
		k.zone = at.Zone.String()
		_, k.offset = now.In(at.Zone).Zone()
	}
	if rule.Dark() && at.Latitude != nil && at.Longitude != nil {
		k.latitude, k.longitude = *at.Latitude, *at.Longitude
	}
	return k
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
