package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
)

// timeline holds the runs, plans and windows of the sites between a day ago and a day ahead.
type timeline struct {
	now, at time.Time
	runs    map[string][]ledger.Run // by site, the newest first
	plans   map[string][]query.PlanItem
	windows map[string][]query.Opening
}

// bySite groups the runs of sites. Dry runs move nothing.
func bySite(list []ledger.Run) map[string][]ledger.Run {
	out := map[string][]ledger.Run{}
	for _, r := range list {
		if r.Site != "" && !r.DryRun {
			out[r.Site] = append(out[r.Site], r)
		}
	}
	return out
}

// stateOf returns the mark of a site at the time that is looked at, and its state in words.
func (t *timeline) stateOf(s *query.SiteStatus) (mark, string) {
	switch {
	case t.at.After(t.now):
		return t.planned(s)
	case t.at.Before(t.now):
		return t.recorded(s)
	}
	m := markOf(siteState(s))
	var parts []string
	for _, c := range s.Channels {
		if c.State == m.Word && c.State != query.Current {
			text := c.Channel
			if c.Why != "" {
				text += ": " + c.Why
			} else if p := c.Progress; p != nil && p.BytesTotal > 0 {
				text += fmt.Sprintf(": %d %%", percent(p.BytesDone, p.BytesTotal))
			}
			parts = append(parts, text)
		}
	}
	return m, strings.Join(parts, "; ")
}

// recorded is the state of a site in the past, as its runs have it.
func (t *timeline) recorded(s *query.SiteStatus) (mark, string) {
	var last *ledger.Run
	for i := range t.runs[s.Site] {
		r := &t.runs[s.Site][i]
		if r.Started.After(t.at) {
			continue
		}
		if r.Finished.IsZero() || r.Finished.After(t.at) {
			return markOf(query.Running), fmt.Sprintf("%s release %d was under way", r.Channel, r.Number)
		}
		if last == nil || r.Finished.After(last.Finished) {
			last = r
		}
	}
	if last == nil {
		return mark{"ring", "idle", "no run"}, "no run of the last hours had started"
	}
	m := runMark(string(last.State))
	return m, fmt.Sprintf("%s release %d had ended %s", last.Channel, last.Number, last.State)
}

// planned is the state of a site in the future, as the forecast has it.
func (t *timeline) planned(s *query.SiteStatus) (mark, string) {
	moving, waits, done := []string{}, []string{}, []string{}
	for _, p := range t.plans[s.Site] {
		name := p.Channel
		switch {
		case p.Halted || p.Blocked != "":
			if p.Blocked != "" {
				return mark{"diamond", "warn", "blocked"}, name + ": " + p.Blocked
			}
			return markOf("halted"), name + ": its halt must be lifted first"
		case p.Start.IsZero() || p.Start.After(t.at):
			waits = append(waits, name)
		case p.End.IsZero() || p.End.After(t.at):
			moving = append(moving, name)
		default:
			done = append(done, name)
		}
	}
	switch {
	case len(moving) > 0:
		return mark{"arrow", "moving", "planned"}, strings.Join(moving, ", ") + " would move"
	case len(waits) > 0:
		return mark{"ring", "idle", "waiting"}, strings.Join(waits, ", ") + " would wait"
	case len(done) > 0:
		return mark{"disc", "good", "arrived"}, strings.Join(done, ", ") + " would have arrived"
	case siteState(s) == query.Current:
		return markOf(query.Current), "nothing is planned"
	}
	m := markOf(siteState(s))
	return m, "nothing is planned; now it is " + m.Word
}

// openText describes whether a window of a site is open, and until when, by its own clock.
func (t *timeline) openText(s *query.SiteStatus) string {
	var opens, closes time.Time
	for _, w := range t.windows[s.Site] {
		switch {
		case w.Always:
			return "always open"
		case !w.Start.After(t.at) && w.End.After(t.at):
			closes = later(closes, w.End)
		case w.Start.After(t.at) && (opens.IsZero() || w.Start.Before(opens)):
			opens = w.Start
		}
	}
	switch {
	case !closes.IsZero():
		return "open until " + inZone(closes, s.Zone).Format("15:04")
	case !opens.IsZero():
		return "opens " + inZone(opens, s.Zone).Format("15:04")
	}
	return "closed"
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const (
	slots     = 192 // quarters of an hour in two days
	barWidth  = 960.0
	barHeight = 36.0
)

// regionBar is the two days of a region: how many transfers were, are and will be under way, quarter by quarter.
type regionBar struct {
	Region        string
	Sites         int
	Current, Open int
	Bad           int
	Width, Height float64
	Windows       []span
	Bars          []bar
	Most          int // transfers in the fullest quarter
	NowX, AtX     float64
	Ended, Failed int // transfers of the last day
	Planned       int

	spans  [][2]time.Time
	levels [slots][4]int // good, bad, moving, planned
}

type span struct{ X, Width float64 }

type bar struct {
	X, Y, Width, Height float64
	Tone                string
}

var levelTones = [...]string{"good", "bad", "moving", "planned"}

// add counts a site.
func (b *regionBar) add(s *query.SiteStatus, m mark, t *timeline) {
	b.Sites++
	if siteState(s) == query.Current {
		b.Current++
	}
	if m.Tone == "bad" || m.Tone == "warn" {
		b.Bad++
	}
	open := false
	for _, w := range t.windows[s.Site] {
		open = open || w.Always || !w.Start.After(t.at) && w.End.After(t.at)
		b.spans = append(b.spans, [2]time.Time{w.Start, w.End})
	}
	if open {
		b.Open++
	}
	for _, r := range t.runs[s.Site] {
		end, level := r.Finished, 0
		switch {
		case end.IsZero():
			end, level = t.now, 2
		case r.State != runs.Verified:
			level = 1
		}
		if end.Before(t.now.Add(-reach)) {
			continue
		}
		switch level {
		case 0:
			b.Ended++
		case 1:
			b.Failed++
		}
		b.count(r.Started, end, level, t)
	}
	for _, p := range t.plans[s.Site] {
		if p.Start.IsZero() || p.Halted || p.Blocked != "" {
			continue
		}
		b.Planned++
		end := p.End
		if end.IsZero() {
			end = p.Start.Add(time.Duration(p.Active))
		}
		b.count(p.Start, end, 3, t)
	}
}

// count adds a transfer to the quarters that it touches.
func (b *regionBar) count(from, to time.Time, level int, t *timeline) {
	slot := func(x time.Time) int { return int(x.Sub(t.now.Add(-reach)) * slots / (2 * reach)) }
	for i := max(0, slot(from)); i <= min(slots-1, slot(to)); i++ {
		b.levels[i][level]++
	}
}

func (t *timeline) x(at time.Time) float64 {
	return min(barWidth, max(0, barWidth*float64(at.Sub(t.now.Add(-reach)))/float64(2*reach)))
}

// draw computes the shapes.
func (b *regionBar) draw(t *timeline) {
	b.Width, b.Height, b.NowX, b.AtX = barWidth, barHeight, t.x(t.now), t.x(t.at)
	slices.SortFunc(b.spans, func(x, y [2]time.Time) int { return x[0].Compare(y[0]) })
	var whole [][2]time.Time
	for _, s := range b.spans {
		if n := len(whole); n > 0 && !s[0].After(whole[n-1][1]) {
			whole[n-1][1] = later(whole[n-1][1], s[1])
			continue
		}
		whole = append(whole, s)
	}
	for _, s := range whole {
		b.Windows = append(b.Windows, span{t.x(s[0]), t.x(s[1]) - t.x(s[0])})
	}
	for _, l := range b.levels {
		b.Most = max(b.Most, l[0]+l[1]+l[2]+l[3])
	}
	w := barWidth / slots
	for i, l := range b.levels {
		y := barHeight
		for level, n := range l {
			if n == 0 {
				continue
			}
			h := max(3, (barHeight-4)*float64(n)/float64(b.Most))
			y = max(0, y-h)
			if k := len(b.Bars) - 1; k >= 0 && b.Bars[k].Tone == levelTones[level] && b.Bars[k].Y == y && b.Bars[k].Height == h && b.Bars[k].X+b.Bars[k].Width == w*float64(i) {
				b.Bars[k].Width += w
				continue
			}
			b.Bars = append(b.Bars, bar{w * float64(i), y, w, h, levelTones[level]})
		}
	}
}
