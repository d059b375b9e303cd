package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nightferry/internal/trust"
	"nightferry/internal/window"
)

func TestForecast(t *testing.T) {
	berlin := window.Place{Zone: zoneOf(t, "Europe/Berlin")}
	night := mustRule(t, "20:00-06:00")
	half, err := window.ParseTimetable("20:00-00:00 1MB; 00:00-06:00 0; 06:00-20:00 0", testRate)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d window.Date, hour int) time.Time {
		return time.Date(d.Year, d.Month, d.Day, hour, 0, 0, 0, berlin.Zone)
	}
	friday := window.Date{Year: 2026, Month: 3, Day: 27}
	site := func(name string, rate int64) Site {
		return Site{Name: name, Place: berlin, Rate: rate, Channels: []Channel{{"image", night, 0}, {"package", night, 0}}}
	}
	halved := site("halved", 2e6)
	halved.Rates = half
	q := Question{
		From: at(friday, 12), Days: 3,
		Sites: []Site{site("plain", 1e6), site("never-measured", 0), halved, site("halted", 1e6), site("tiny", 1e3)},
		Halts: []Halt{{Site: "halted"}},
		Coming: []Coming{{Channel: "package", Release: 8, At: at(friday, 36), Bytes: 0, Requests: 3},
			{Channel: "package", Release: 9, At: at(friday, 99), Bytes: 1, Requests: 3}},
		Prices: Prices{PerGB: 0.09, PerThousandRequest: 0.0004},
	}
	for _, s := range q.Sites {
		q.Due = append(q.Due, Due{Site: s.Name, Channel: "image", Release: 5, Bytes: 72e9, Requests: 5000, Since: at(friday, 11)},
			Due{Site: s.Name, Channel: "package", Release: 7, Bytes: 3_600_000_000, Requests: 250, Since: at(friday, 11)})
	}
	text := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.In(berlin.Zone).Format("Mon 15:04")
	}
	var got []string
	for _, i := range Forecast(q) {
		got = append(got, fmt.Sprintf("%s %s %d: %s to %s, %s, %d nights, tonight %v, %.4f halted %v assumed %v", i.Site, i.Channel, i.Release, text(i.Start), text(i.End),
			i.Active, i.Nights, i.Tonight(), i.Cost, i.Halted, i.Assumed))
	}
	// The night to Sunday has nine hours. On Friday both share the line until the package is complete.
	want := []string{
		"plain image 5: Fri 20:00 to Sun 22:00, 21h0m0s, 3 nights, tonight false, 6.4820 halted false assumed false",
		"plain package 7: Fri 20:00 to Fri 22:00, 2h0m0s, 1 nights, tonight true, 0.3241 halted false assumed false",
		"plain package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed false",
		"never-measured image 5: Fri 20:00 to Sun 22:00, 21h0m0s, 3 nights, tonight false, 6.4820 halted false assumed true",
		"never-measured package 7: Fri 20:00 to Fri 22:00, 2h0m0s, 1 nights, tonight true, 0.3241 halted false assumed true",
		"never-measured package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed true",
		"halved image 5: Fri 20:00 to -, 12h0m0s, 6 nights, tonight false, 6.4820 halted false assumed false",
		"halved package 7: Fri 20:00 to Fri 22:00, 2h0m0s, 1 nights, tonight true, 0.3241 halted false assumed false",
		"halved package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed false",
		"halted image 5: - to -, 0s, 0 nights, tonight false, 6.4820 halted true assumed false",
		"halted package 7: - to -, 0s, 0 nights, tonight false, 0.3241 halted true assumed false",
		"halted package 8: - to -, 0s, 0 nights, tonight false, 0.0000 halted true assumed false",
		"tiny image 5: Fri 20:00 to -, 29h0m0s, 4138 nights, tonight false, 6.4820 halted false assumed false",
		"tiny package 7: Fri 20:00 to -, 29h0m0s, 207 nights, tonight false, 0.3241 halted false assumed false",
		"tiny package 8: - to -, 0s, 0 nights, tonight false, 0.0000 halted false assumed false",
	}
	// The days end on Monday noon, which also cuts the last window.
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// lived is the simulated course of one release.
type lived struct {
	start, end time.Time
	nights     int
}

// TestForecastIsWhatHappens simulates random weeks of one site, and compares them with the forecast.
func TestForecastIsWhatHappens(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"}
	rules := []string{"20:00-06:00", "dark 6h..9h", "mon-fri 22:00-02:00, sat-sun all", "01:00-03:00 12:00-13:00", "20:00-21:00; freeze 03-27..03-29"}
	rates := []string{"else unlimited", "22:00-01:00 0; else unlimited", "mon-wed all 1MB; 06:00-12:00 0; else 3MB"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		_, offset := time.Date(2026, 1, 1, 0, 0, 0, 0, zone).Zone()
		lat, long := 47.0, float64(offset)/240
		site := Site{Name: "s", Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: 1e6}
		if site.Rates, err = window.ParseTimetable(rapid.SampledFrom(rates).Draw(t, "rates"), testRate); err != nil {
			t.Fatal(err)
		}
		q := Question{From: time.Date(2026, 3, 24, 12, 0, 0, 0, time.UTC), Days: 7, Patience: 30 * time.Hour}
		for c := range 4 {
			rule, err := window.ParseRule(rapid.SampledFrom(rules).Draw(t, "rule"))
			if err != nil {
				t.Fatal(err)
			}
			name := string(rune('a' + c))
			site.Channels = append(site.Channels, Channel{name, rule, rapid.IntRange(0, 1).Draw(t, "priority")})
			for r := range rapid.IntRange(0, 4).Draw(t, "releases") {
				ready := q.From.Add(time.Duration(r)*40*time.Hour + time.Duration(rapid.IntRange(0, 39*60).Draw(t, "ready"))*time.Minute)
				q.Coming = append(q.Coming, Coming{Channel: name, Release: trust.ReleaseNumber(r + 1), At: ready, Bytes: rapid.Int64Range(0, 900).Draw(t, "minutes") * 60e6})
			}
		}
		q.Sites = []Site{site}
		got := map[string]lived{}
		for _, i := range Forecast(q) {
			s := lived{i.Start, i.End, i.Nights}
			if i.End.IsZero() {
				s.nights = 0 // an extrapolation
			}
			got[fmt.Sprint(i.Channel, i.Release)] = s
		}
		about := func(x, y time.Time) bool { return x.IsZero() == y.IsZero() && x.Sub(y).Abs() < time.Second }
		if d := cmp.Diff(live(&q), got, cmp.AllowUnexported(lived{}), cmp.Comparer(about)); d != "" {
			t.Fatal(d)
		}
	})
}

// week simulates one site of a Question.
type week struct {
	q     *Question
	site  *Site
	queue map[string][]Due
	left  map[string]float64 // bytes of the first of each queue
	turn  map[string]time.Time
	runs  map[string]window.Window
	night map[string]window.Window
	open  map[string]window.Window // or next
	seen  map[string]lived
}

// upcoming returns the window that is open or opens next. It returns last as long as that has not ended.
func upcoming(last window.Window, now time.Time, at window.Place, rule window.Rule) window.Window {
	if now.Before(last.End) {
		return last
	}
	w, open := window.Open(now, at, rule)
	if !open {
		w, _ = window.Next(now, at, rule)
	}
	return w
}

// live simulates minute by minute, and also stops whenever a run ends.
func live(q *Question) map[string]lived {
	w := &week{q: q, site: &q.Sites[0], queue: map[string][]Due{}, left: map[string]float64{}, turn: map[string]time.Time{},
		runs: map[string]window.Window{}, night: map[string]window.Window{}, open: map[string]window.Window{}, seen: map[string]lived{}}
	end := q.From.AddDate(0, 0, q.Days)
	for _, c := range q.Coming {
		if c.At.Before(end) {
			w.queue[c.Channel] = append(w.queue[c.Channel], Due{Channel: c.Channel, Release: c.Release, Bytes: c.Bytes, Since: c.At})
			w.seen[fmt.Sprint(c.Channel, c.Release)] = lived{}
		}
	}
	for now := q.From; now.Before(end); {
		rate, _ := w.site.Rates.Rate(now, w.site.Place.Zone)
		w.look(now, rate)
		if len(w.runs) == 0 {
			now = now.Truncate(time.Minute).Add(time.Minute)
			continue
		}
		now = w.move(now, float64(min(rate, w.site.Rate))/float64(len(w.runs)))
	}
	for key, s := range w.seen {
		if s.end.IsZero() {
			s.nights = 0
			w.seen[key] = s
		}
	}
	return w.seen
}

// look ends the runs that may not continue, and starts those that may.
func (w *week) look(now time.Time, rate int64) {
	for channel, win := range w.runs {
		if rate == 0 || !now.Before(win.End) {
			delete(w.runs, channel)
		}
	}
	m := Moment{Now: now, Rate: rate, Running: len(w.runs), Patience: w.q.Patience}
	for _, c := range w.site.Channels {
		list := w.queue[c.Name]
		_, runs := w.runs[c.Name]
		if len(list) == 0 || list[0].Since.After(now) || runs {
			continue
		}
		win := upcoming(w.open[c.Name], now, w.site.Place, c.Windows)
		w.open[c.Name] = win
		since := list[0].Since
		if t := w.turn[c.Name]; t.After(since) {
			since = t
		}
		if _, begun := w.left[c.Name]; !begun {
			w.left[c.Name] = float64(list[0].Bytes)
		}
		m.Waiting = append(m.Waiting, Candidate{Channel: c.Name, Priority: c.Priority, Bytes: int64(w.left[c.Name]), Since: since, Window: win})
	}
	_, starts, _ := Next(m)
	for _, i := range starts {
		c := m.Waiting[i]
		w.runs[c.Channel], w.turn[c.Channel] = c.Window, now
		key := fmt.Sprint(c.Channel, w.queue[c.Channel][0].Release)
		s := w.seen[key]
		if s.start.IsZero() {
			s.start = now
		}
		if w.night[c.Channel] != c.Window {
			w.night[c.Channel] = c.Window
			s.nights++
		}
		w.seen[key] = s
	}
}

// move advances all runs, each at a share of the rate, to the first end of a run or to the next minute, and returns
// that time.
func (w *week) move(now time.Time, share float64) time.Time {
	next := now.Truncate(time.Minute).Add(time.Minute)
	for channel := range w.runs {
		if at := now.Add(time.Duration(w.left[channel] / share * float64(time.Second))); at.Before(next) {
			next = at
		}
	}
	for channel := range w.runs {
		if w.left[channel] -= share * next.Sub(now).Seconds(); w.left[channel] > share/1e6 {
			continue
		}
		key := fmt.Sprint(channel, w.queue[channel][0].Release)
		s := w.seen[key]
		s.end = next
		w.seen[key] = s
		w.queue[channel] = w.queue[channel][1:]
		delete(w.runs, channel)
		delete(w.left, channel)
		delete(w.turn, channel)
		delete(w.night, channel)
	}
	return next
}

// bigQuestion is 10 000 sites with 4 channels for 7 days.
func bigQuestion(b *testing.B) Question {
	rules := []window.Rule{mustRule(b, "20:00-06:00"), mustRule(b, "mon-fri 22:00-05:00, sat-sun all"), mustRule(b, "dark 6h..12h")}
	limited, err := window.ParseTimetable("06:00-20:00 0; 20:00-22:00 2MB; else unlimited", testRate)
	if err != nil {
		b.Fatal(err)
	}
	q := Question{From: utc(3, 12, 0), Days: 7, Prices: Prices{0.09, 0.0004}}
	for i := range 10_000 {
		lat, long := float64(i%120-60), float64(0)
		zone := zoneOf(b, seventy[i%len(seventy)]) // each site has its own copy, as when sites are loaded one by one
		_, offset := q.From.In(zone).Zone()
		long = float64(offset)/240 + float64(i%7)
		s := Site{Name: fmt.Sprintf("site-%05d", i), Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: int64(1+i%5) * 1e6}
		if i%2 == 0 {
			s.Rates = limited
		}
		for c, name := range []string{"driver", "image", "package", "patch"} {
			s.Channels = append(s.Channels, Channel{name, rules[(i+c/2)%3], c % 2})
		}
		q.Sites = append(q.Sites, s)
	}
	for day := range 7 {
		for _, c := range []Coming{{Channel: "driver", Bytes: 200e6}, {Channel: "package", Bytes: 2e9}, {Channel: "patch", Bytes: 5e9}, {Channel: "image", Bytes: 40e9}} {
			if c.Channel == "image" && day > 0 {
				continue
			}
			c.At, c.Requests = q.From.AddDate(0, 0, day), c.Bytes/16e6
			q.Coming = append(q.Coming, c)
		}
	}
	return q
}

func BenchmarkForecastOfTenThousandSites(b *testing.B) {
	q := bigQuestion(b)
	var n int
	for b.Loop() {
		n = len(Forecast(q))
	}
	b.ReportMetric(float64(n), "items")
}
