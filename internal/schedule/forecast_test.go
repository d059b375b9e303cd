package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

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
		Halts: []Halt{{Site: "halted"}, {Lifted: at(friday, 1)}},
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
	// The night to Sunday has nine hours. On Friday the package takes the first.
	want := []string{
		"plain image 5: Fri 21:00 to Sun 22:00, 20h0m0s, 3 nights, tonight false, 6.4820 halted false assumed false",
		"plain package 7: Fri 20:00 to Fri 21:00, 1h0m0s, 1 nights, tonight true, 0.3241 halted false assumed false",
		"plain package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed false",
		"never-measured image 5: Fri 21:00 to Sun 22:00, 20h0m0s, 3 nights, tonight false, 6.4820 halted false assumed true",
		"never-measured package 7: Fri 20:00 to Fri 21:00, 1h0m0s, 1 nights, tonight true, 0.3241 halted false assumed true",
		"never-measured package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed true",
		"halved image 5: Fri 21:00 to -, 11h0m0s, 6 nights, tonight false, 6.4820 halted false assumed false",
		"halved package 7: Fri 20:00 to Fri 21:00, 1h0m0s, 1 nights, tonight true, 0.3241 halted false assumed false",
		"halved package 8: Sat 20:00 to Sat 20:00, 0s, 1 nights, tonight true, 0.0000 halted false assumed false",
		"halted image 5: - to -, 0s, 0 nights, tonight false, 6.4820 halted true assumed false",
		"halted package 7: - to -, 0s, 0 nights, tonight false, 0.3241 halted true assumed false",
		"halted package 8: - to -, 0s, 0 nights, tonight false, 0.0000 halted true assumed false",
		"tiny image 5: - to -, 0s, 0 nights, tonight false, 6.4820 halted false assumed false",
		"tiny package 7: Fri 20:00 to -, 29h0m0s, 104 nights, tonight false, 0.3241 halted false assumed false",
		"tiny package 8: - to -, 0s, 0 nights, tonight false, 0.0000 halted false assumed false",
	}
	// The days end on Monday noon, which also cuts the last window.
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestForecastIsWhatPlanDoes runs one site by Plan, minute by minute, and
// compares it with the forecast.
func TestForecastIsWhatPlanDoes(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"}
	rules := []string{"20:00-06:00", "dark 6h..9h", "mon-fri 22:00-02:00, sat-sun all", "01:00-03:00 12:00-13:00", "20:00-21:00; freeze 03-27..03-29"}
	rates := []string{"else unlimited", "22:00-01:00 0; else unlimited", "mon-wed all 1MB; 06:00-12:00 0; else 3MB"}
	const minute = 60_000_000 // bytes, at 1 MB/s
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		lat, long := 47.0, 0.0
		if _, offset := time.Date(2026, 1, 1, 0, 0, 0, 0, zone).Zone(); true {
			long = float64(offset) / 240
		}
		site := Site{Name: "s", Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: 1e6}
		if site.Rates, err = window.ParseTimetable(rapid.SampledFrom(rates).Draw(t, "rates"), testRate); err != nil {
			t.Fatal(err)
		}
		from := time.Date(2026, 3, 24, 12, 0, 0, 0, time.UTC)
		q := Question{From: from, Days: 7, Options: Options{Patience: 30 * time.Hour}}
		for c := range 3 {
			rule, err := window.ParseRule(rapid.SampledFrom(rules).Draw(t, "rule"))
			if err != nil {
				t.Fatal(err)
			}
			name := string(rune('a' + c))
			site.Channels = append(site.Channels, Channel{name, rule, rapid.IntRange(0, 1).Draw(t, "priority")})
			for r := range rapid.IntRange(0, 4).Draw(t, "releases") {
				ready := from.Add(time.Duration(r)*40*time.Hour + time.Duration(rapid.IntRange(0, 39*60).Draw(t, "ready"))*time.Minute)
				q.Coming = append(q.Coming, Coming{Channel: name, Release: uint64(r + 1), At: ready, Bytes: rapid.Int64Range(0, 900).Draw(t, "minutes") * minute})
			}
		}
		q.Sites = []Site{site}
		type seen struct {
			start, end time.Time
			nights     int
		}
		got := map[string]seen{}
		for _, i := range Forecast(q) {
			s := seen{i.Start, i.End, i.Nights}
			if i.End.IsZero() {
				s.nights = 0 // an extrapolation
			}
			got[fmt.Sprint(i.Channel, i.Release)] = s
		}
		// The same week, simulated with Plan.
		want := map[string]seen{}
		queue := map[string][]Due{}
		for _, c := range q.Coming {
			if c.At.Before(from.AddDate(0, 0, 7)) {
				queue[c.Channel] = append(queue[c.Channel], Due{Site: "s", Channel: c.Channel, Release: c.Release, Bytes: c.Bytes, Since: c.At})
				want[fmt.Sprint(c.Channel, c.Release)] = seen{}
			}
		}
		var p Planner
		var run *Start
		for now := from; now.Before(from.AddDate(0, 0, 7)); now = now.Add(time.Minute) {
			for again := true; again; { // a run of no bytes takes no time
				again = false
				if run != nil {
					d := &queue[run.Channel][0]
					key := fmt.Sprint(run.Channel, run.Release)
					s := want[key]
					switch {
					case d.Bytes <= 0:
						s.end, again = now, true
						want[key] = s
						queue[run.Channel] = queue[run.Channel][1:]
						run = nil
					case !now.Before(run.Window.End):
						run, again = nil, true
					}
				}
				if run == nil {
					in := Input{Now: now, Sites: []Site{site}, Options: q.Options}
					for _, list := range queue {
						if len(list) > 0 && !list[0].Since.After(now) {
							in.Due = append(in.Due, list[0])
						}
					}
					for _, s := range p.Plan(in) {
						run, again = &s, true
						queue[s.Channel][0].Tried = now
						key := fmt.Sprint(s.Channel, s.Release)
						w := want[key]
						if w.nights++; w.start.IsZero() {
							w.start = now
						}
						want[key] = w
					}
				}
			}
			if run != nil {
				rate, _ := site.Rates.Rate(now, zone)
				queue[run.Channel][0].Bytes -= min(rate, site.Rate) * 60
			}
		}
		for key, w := range want {
			if w.end.IsZero() {
				w.nights = 0
				want[key] = w
			}
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(seen{}), cmp.Comparer(time.Time.Equal)); d != "" {
			t.Fatal(d)
		}
	})
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

func BenchmarkPlanOfTenThousandSites(b *testing.B) {
	q := bigQuestion(b)
	in := Input{Sites: q.Sites}
	for _, s := range q.Sites {
		for _, c := range s.Channels {
			in.Due = append(in.Due, Due{Site: s.Name, Channel: c.Name, Release: 1, Bytes: 1e9, Since: q.From})
		}
	}
	var p Planner
	in.Now = utc(3, 12, 0)
	for b.Loop() {
		in.Now = in.Now.Add(10 * time.Second)
		p.Plan(in)
	}
}
