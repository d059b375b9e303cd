package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"nightferry/internal/trust"
	"nightferry/internal/window"
)

func mustRule(t testing.TB, text string) window.Rule {
	t.Helper()
	r, err := window.ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// seventy lists the zones of seventy sites: every inhabited offset, and every
// kind of clock change.
var seventy = []string{
	"Pacific/Kiritimati", "Pacific/Apia", "Pacific/Tongatapu", "Pacific/Chatham", "Pacific/Auckland", "Pacific/Fiji", "Asia/Kamchatka",
	"Pacific/Norfolk", "Pacific/Guadalcanal", "Australia/Lord_Howe", "Australia/Sydney", "Australia/Brisbane", "Australia/Adelaide", "Australia/Darwin",
	"Asia/Tokyo", "Asia/Seoul", "Asia/Pyongyang", "Australia/Eucla", "Australia/Perth", "Asia/Shanghai", "Asia/Singapore", "Asia/Manila",
	"Asia/Bangkok", "Asia/Jakarta", "Asia/Yangon", "Asia/Dhaka", "Asia/Urumqi", "Asia/Kathmandu", "Asia/Kolkata", "Asia/Colombo",
	"Asia/Karachi", "Asia/Tashkent", "Asia/Kabul", "Asia/Dubai", "Asia/Tehran", "Europe/Moscow", "Europe/Istanbul", "Africa/Nairobi",
	"Africa/Cairo", "Asia/Beirut", "Asia/Jerusalem", "Europe/Kyiv", "Europe/Helsinki", "Africa/Johannesburg", "Europe/Berlin", "Europe/Paris",
	"Africa/Lagos", "Antarctica/Troll", "Europe/London", "Europe/Dublin", "Africa/Casablanca", "UTC", "Atlantic/Azores", "Atlantic/Cape_Verde",
	"America/Nuuk", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "America/St_Johns", "America/Halifax", "America/Caracas",
	"America/New_York", "America/Havana", "America/Bogota", "America/Chicago", "America/Mexico_City", "America/Denver", "America/Phoenix",
	"America/Los_Angeles", "America/Anchorage", "Pacific/Marquesas",
}

// kinds are the rules of the year's sites, each with an independent check of
// whether a transfer may run now. local is the time on the site's clock,
// solar the hour by its sun; hours after midnight count to the evening
// before.
var kinds = []struct {
	rule string
	may  func(local time.Time, solar float64) bool
}{
	{"20:00-06:00", func(l time.Time, _ float64) bool { return l.Hour() >= 20 || l.Hour() < 6 }},
	{"mon-fri 19:30-05:15, sat-sun all", func(l time.Time, _ float64) bool {
		m := l.Hour()*60 + l.Minute()
		weekend := l.Weekday() == time.Saturday || l.Weekday() == time.Sunday
		return weekend || m >= 19*60+30 || m < 5*60+15 && l.Weekday() != time.Monday
	}},
	{"01:00-05:30 12:00-13:00", func(l time.Time, _ float64) bool {
		m := l.Hour()*60 + l.Minute()
		return m >= 60 && m < 330 || l.Hour() == 12
	}},
	{"22:00-05:00; freeze 12-24..12-26", func(l time.Time, _ float64) bool {
		evening := l.Add(-5 * time.Hour)
		frozen := l.Month() == time.December && (l.Day() >= 24 && l.Day() <= 26 || evening.Day() >= 24 && evening.Day() <= 26)
		return (l.Hour() >= 22 || l.Hour() < 5) && !frozen
	}},
	{"dark 6h..14h", func(_ time.Time, solar float64) bool { return solar > 16.5 || solar < 7.5 }},
}

// year simulates a fleet.
type year struct {
	t     *testing.T
	sites []*yearSite
	halts []Halt

	starts  map[string]int // by site, channel and release
	cut     map[string]int // of them, before they were done
	arrived int
	longest time.Duration // that a release waited for its first start
}

// yearSite is a site with the state of its agent.
type yearSite struct {
	Site
	may   func(time.Time, float64) bool
	long  float64
	lanes map[string]*yearLane
}

type yearLane struct {
	due    *Due
	since  time.Time     // start of its wait
	after  time.Time     // it does not start earlier
	wait   time.Duration // before a retry after a failure
	window window.Window // of the present run; zero: not running
	next   window.Window // that is open, or opens next
	was    bool          // whether it was halted at the last step
}

func id(site, channel string, release trust.ReleaseNumber) string {
	return fmt.Sprintf("%s %s %d", site, channel, release)
}

const (
	tick = 15 * time.Minute
	// retry and spread are those of an agent.
	retry, maxRetry = 15 * time.Second, 30 * time.Minute
	spread          = 30 * time.Second
)

// TestAYearOfSeventySites checks that each due run starts once, and again
// only after a window's end, a failure or a halt. No run starts or continues
// outside its window or under a halt, and no channel is starved.
func TestAYearOfSeventySites(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 70))
	y := &year{t: t, starts: map[string]int{}, cut: map[string]int{}}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, name := range seventy {
		zone := zoneOf(t, name)
		_, offset := from.In(zone).Zone()
		long, lat := min(180, max(-180, float64(offset)/240)), []float64{-52, -20, 0, 35, 60, 78}[i%6]
		kind := kinds[i%len(kinds)]
		rule := mustRule(t, kind.rule)
		s := &yearSite{may: kind.may, long: long, lanes: map[string]*yearLane{}, Site: Site{Name: fmt.Sprintf("site-%02d", i), Region: []string{"ap", "emea", "amer"}[i*3/70],
			Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: int64(1+i%4) * 1_000_000,
			Channels: []Channel{{"driver", rule, 0}, {"image", rule, 0}, {"package", rule, 1}, {"patch", rule, 0}}}}
		for _, c := range s.Channels {
			s.lanes[c.Name] = &yearLane{}
		}
		y.sites = append(y.sites, s)
	}
	for now := from; now.Before(from.AddDate(1, 0, 0)); now = now.Add(tick) {
		if now.Equal(now.Truncate(24 * time.Hour).Add(10 * time.Hour)) {
			day := trust.ReleaseNumber(now.YearDay())
			for _, s := range y.sites {
				for channel, bytes := range map[string]int64{"driver": 200e6, "package": 900e6, "patch": 2e9} {
					y.publish(s, channel, day, random.Int64N(bytes), now)
				}
				if now.Weekday() == time.Tuesday {
					y.publish(s, "image", day, 20e9+random.Int64N(40e9), now)
				}
			}
		}
		y.halt(random)
		for _, s := range y.sites {
			y.live(s, now, random)
		}
	}
	for key, n := range y.starts {
		if n != y.cut[key]+1 && n != y.cut[key] { // the last may still wait for its next night
			t.Errorf("%s started %d times, and was cut %d times", key, n, y.cut[key])
		}
	}
	t.Logf("%d releases arrived in %d runs; the longest wait was %s", y.arrived, sum(y.starts), y.longest)
	// Patience is three days, and so is the freeze.
	if y.arrived < 70*3*350 || y.longest > 6*24*time.Hour {
		t.Error("that is not a healthy fleet, or not a busy one")
	}
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// publish makes a release due if the previous one has arrived. Otherwise the
// previous one stays due, because each must start.
func (y *year) publish(s *yearSite, channel string, release trust.ReleaseNumber, bytes int64, now time.Time) {
	l := s.lanes[channel]
	if l.due != nil {
		if y.starts[id(s.Name, channel, l.due.Release)] == 0 {
			y.longest = max(y.longest, now.Sub(l.due.Since))
		}
		return
	}
	l.due, l.since = &Due{Release: release, Bytes: bytes, Since: now}, now
}

// halt sometimes halts a part of the fleet, for about two hours.
func (y *year) halt(random *rand.Rand) {
	y.halts = slices.DeleteFunc(y.halts, func(Halt) bool { return random.IntN(8) == 0 })
	if random.IntN(400) == 0 {
		y.halts = append(y.halts, []Halt{{}, {Region: "emea"}, {Channel: "patch"}, {Site: "site-07"}}[random.IntN(4)])
	}
}

// live simulates one step of a site.
func (y *year) live(s *yearSite, now time.Time, random *rand.Rand) {
	m := Moment{Now: now, Rate: s.Rate}
	for _, c := range s.Channels {
		l := s.lanes[c.Name]
		halted := slices.ContainsFunc(y.halts, func(h Halt) bool { return h.coversChannel(&s.Site, c.Name) })
		if l.was && !halted {
			l.after = now.Add(time.Duration(random.Int64N(int64(spread))))
		}
		l.was = halted
		if l.window.End.IsZero() {
			continue
		}
		l.due.Bytes -= s.Rate / MaxRuns * int64(tick/time.Second)
		switch {
		case l.due.Bytes <= 0:
			y.arrived++
			l.due, l.window, l.wait = nil, window.Window{}, 0
			continue
		case random.IntN(200) == 0: // it failed
			l.wait = min(max(2*l.wait, retry), maxRetry)
			l.after = now.Add(l.wait)
		case !halted && now.Before(l.window.End):
			y.check(s, now, c.Name+" continues")
			m.Running++
			continue
		}
		y.cut[id(s.Name, c.Name, l.due.Release)]++
		l.window = window.Window{}
	}
	for _, c := range s.Channels {
		if l := s.lanes[c.Name]; l.due != nil && l.window.End.IsZero() {
			l.next = upcoming(l.next, now, s.Place, c.Windows)
			m.Waiting = append(m.Waiting, Candidate{Channel: c.Name, Priority: c.Priority, Bytes: l.due.Bytes, Since: l.since, Window: l.next, Held: l.was, After: l.after})
		}
	}
	_, starts, _ := Next(m)
	for _, i := range starts {
		c := m.Waiting[i]
		l := s.lanes[c.Channel]
		if m.Running++; m.Running > MaxRuns {
			y.t.Errorf("%s %s: %d runs at the same time", now, s.Name, m.Running)
		}
		if slices.ContainsFunc(y.halts, func(h Halt) bool { return h.coversChannel(&s.Site, c.Channel) }) {
			y.t.Errorf("%s %s: %s started under a halt", now, s.Name, c.Channel)
		}
		y.check(s, now, c.Channel+" starts")
		key := id(s.Name, c.Channel, l.due.Release)
		if y.starts[key] == 0 {
			y.longest = max(y.longest, now.Sub(l.due.Since))
		}
		y.starts[key]++
		l.window, l.since = c.Window, now
	}
}

// check uses only the site's clock and sun.
func (y *year) check(s *yearSite, now time.Time, what string) {
	solar := float64(now.Hour()) + float64(now.Minute())/60 + s.long/15
	for solar < 0 {
		solar += 24
	}
	for solar >= 24 {
		solar -= 24
	}
	if local := now.In(s.Place.Zone); !s.may(local, solar) {
		y.t.Errorf("%s %s outside of its windows, at %s, sun's hour %.1f", s.Name, what, local, solar)
	}
}
