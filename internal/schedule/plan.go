package schedule

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"nightferry/internal/window"
)

// Planner is Plan with a cache of computed windows, which changes no result.
// The zero Planner is ready. It is for one goroutine at a time.
type Planner struct {
	open map[placeRule]opening
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

// opening is the window that is open between from and until, or none.
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
		// Closed until the next window opens. Search two days at most: that
		// is cheap, while a search through years is not.
		o.from, o.until = now, now.Add(48*time.Hour)
		for _, w := range window.Between(now, o.until, at, rule) {
			o.until = w.Start
			break
		}
	}
	if p.open == nil || len(p.open) > maxMemory { // drop the rules of old configurations
		p.open = map[placeRule]opening{}
	}
	p.open[key] = o
	return o.window, o.open
}

// Turn holds the fields that decide which of two due runs goes first, in the
// plan and at a site, which starts its own runs.
type Turn struct {
	Site, Channel string
	Priority      int
	Bytes         int64 // that it still needs
	Waited        time.Duration
}

// Compare orders turns. Runs that waited longer than patience come first, the
// longest first, so that smaller or more urgent runs cannot delay them
// forever. Then the higher priority wins, then the smaller need, which frees
// its place soonest.
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

// newCandidate computes the turn of a due run. Its waiting time counts from
// its last try, so that a run of many nights takes turns like any other.
func newCandidate(d *Due, site int, c *Channel, w window.Window, now time.Time) candidate {
	since := d.Since
	if d.Tried.After(since) {
		since = d.Tried
	}
	return candidate{Turn{d.Site, d.Channel, c.Priority, d.Bytes, now.Sub(since)}, d, site, w}
}

type siteChannel struct{ site, channel string }

// Plan returns the runs to start now, in this order.
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

// ready reports whether a due run may start now, ignoring the cap and the
// slots.
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

// resumes returns when a run stopped by a halt may start again. When a halt
// of the whole fleet is lifted at night, the sites must not all send requests
// at once. So each site has its own constant delay, at most half of the rest
// of its window.
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
