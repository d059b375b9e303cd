package schedule

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"nightferry/internal/window"
)

// Planner is Plan with a memory of windows computed before, which changes no
// answer. The zero Planner is ready. It is for one goroutine at a time.
type Planner struct {
	open map[placeRule]opening
}

// placeRule names a rule at a place by value: each site may have loaded its
// own copy of a zone.
type placeRule struct {
	zone                string
	offset              int // tells zones apart that have no name
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

// opening is what holds from from up to until: a window, or none.
type opening struct {
	from, until time.Time
	window      window.Window
	open        bool
}

const maxMemory = 200_000

func (p *Planner) openAt(now time.Time, at window.Place, rule window.Rule) (window.Window, bool) {
	key := keyOf(at, rule, now)
	if o, ok := p.open[key]; ok && !now.Before(o.from) && now.Before(o.until) {
		return o.window, o.open
	}
	var o opening
	if o.window, o.open = window.Open(now, at, rule); o.open {
		o.from, o.until = o.window.Start, o.window.End
	} else {
		// Closed until the next one opens. Look no further than two days: a
		// look is cheap, and a search through years is not.
		o.from, o.until = now, now.Add(48*time.Hour)
		for _, w := range window.Between(now, o.until, at, rule) {
			o.until = w.Start
			break
		}
	}
	if p.open == nil || len(p.open) > maxMemory { // rules of configurations long gone
		p.open = map[placeRule]opening{}
	}
	p.open[key] = o
	return o.window, o.open
}

// Turn is what decides which of two due runs goes first, in the plan and at a
// site, which starts its own.
type Turn struct {
	Site, Channel string
	Priority      int
	Bytes         int64 // that it still needs
	Waited        time.Duration
}

// Compare orders turns. What waited longer than patience goes before all, the
// longest first, so that no stream of smaller or dearer runs can keep it
// waiting for ever. Then priority, then the smallest need: it frees its place
// soonest.
func (t *Turn) Compare(u *Turn, patience time.Duration) int {
	if starving := t.Waited > patience; starving != (u.Waited > patience) {
		if starving {
			return -1
		}
		return 1
	} else if starving && t.Waited != u.Waited {
		return cmp.Compare(u.Waited, t.Waited)
	}
	return cmp.Or(
		cmp.Compare(u.Priority, t.Priority),
		cmp.Compare(t.Bytes, u.Bytes),
		cmp.Compare(u.Waited, t.Waited),
		cmp.Compare(t.Site, u.Site),
		cmp.Compare(t.Channel, u.Channel),
	)
}

// candidate is a due run that may start now.
type candidate struct {
	Turn
	due    *Due
	site   int
	window window.Window
}

// newCandidate weighs a due run. What waits is counted from its last try, so
// that a run of many nights takes its turn like any other.
func newCandidate(d *Due, site int, c *Channel, w window.Window, now time.Time) candidate {
	since := d.Since
	if d.Tried.After(since) {
		since = d.Tried
	}
	return candidate{Turn{d.Site, d.Channel, c.Priority, d.Bytes, now.Sub(since)}, d, site, w}
}

type siteChannel struct{ site, channel string }

// Plan returns what to start now, in the order in which to start it.
func (p *Planner) Plan(in Input) []Start {
	in.Options.defaults()
	sites := make(map[string]int, len(in.Sites))
	for i := range in.Sites {
		sites[in.Sites[i].Name] = i
	}
	running, busy := map[siteChannel]bool{}, map[int]int{}
	for _, r := range in.Running {
		running[siteChannel{r.Site, r.Channel}] = true
		if i, ok := sites[r.Site]; ok {
			busy[i]++
		}
	}
	var list []candidate
	for i := range in.Due {
		d := &in.Due[i]
		at, ok := sites[d.Site]
		if !ok {
			continue
		}
		if c, ok := p.ready(&in, d, at); ok {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b candidate) int { return a.Compare(&b.Turn, in.Options.Patience) })
	var starts []Start
	for _, c := range list {
		if in.Options.Cap > 0 && len(in.Running)+len(starts) >= in.Options.Cap {
			break
		}
		key := siteChannel{c.due.Site, c.due.Channel}
		if busy[c.site] >= max(1, in.Sites[c.site].Slots) || running[key] {
			continue
		}
		busy[c.site]++
		running[key] = true
		starts = append(starts, Start{c.due.Site, c.due.Channel, c.due.Release, c.window})
	}
	return starts
}

// ready says whether a due run may start now, places aside.
func (p *Planner) ready(in *Input, d *Due, at int) (candidate, bool) {
	site := &in.Sites[at]
	i := slices.IndexFunc(site.Channels, func(c Channel) bool { return c.Name == d.Channel })
	if i < 0 {
		return candidate{}, false
	}
	channel := &site.Channels[i]
	w, open := p.openAt(in.Now, site.Place, channel.Windows)
	if !open || !d.Tried.IsZero() && !d.Tried.Before(w.Start) {
		return candidate{}, false
	}
	for j := range in.Halts {
		h := &in.Halts[j]
		if h.covers(site, d.Channel) && (h.Lifted.IsZero() || in.Now.Before(h.resumes(d, w, in.Options.Spread))) {
			return candidate{}, false
		}
	}
	if rate, _ := site.Rates.Rate(in.Now, site.Place.Zone); rate == 0 {
		return candidate{}, false
	}
	return newCandidate(d, at, channel, w, in.Now), true
}

// resumes returns when a run that a halt stopped may start again. A halt of
// the whole fleet that is lifted at night must not make every site ask at
// once: each has its own delay, always the same, and never beyond the middle
// of what is left of its window.
func (h *Halt) resumes(d *Due, w window.Window, spread time.Duration) time.Time {
	if d.Since.After(h.Lifted) {
		return h.Lifted
	}
	spread = min(spread, w.End.Sub(h.Lifted)/2)
	if spread <= 0 {
		return h.Lifted
	}
	hash := fnv.New64a()
	hash.Write([]byte(d.Site)) // never fails
	return h.Lifted.Add(time.Duration(hash.Sum64() % uint64(spread)))
}
