package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

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
	t       *testing.T
	in      Input
	planner Planner
	may     map[string]func(time.Time, float64) bool
	long    map[string]float64
	due     map[siteChannel]*Due
	running map[siteChannel]*Start
	zone    map[string]*time.Location
	index   map[string]int

	lastWindow map[siteChannel]string // release and window of the last start
	starts     map[string]int         // by site, channel and release
	cut        map[string]int         // of them, before they were done
	arrived    int
	longest    time.Duration // that a release waited for its first start
	most       int           // runs at the same time
}

func id(key siteChannel, release uint64) string {
	return fmt.Sprintf("%s %s %d", key.site, key.channel, release)
}

const tick = 15 * time.Minute

// TestAYearOfSeventySites checks that each due run starts exactly once, and again
// only after a window's end, a failure or a halt. No run starts or continues
// outside its window, and no site is starved.
func TestAYearOfSeventySites(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 70))
	y := &year{t: t, may: map[string]func(time.Time, float64) bool{}, long: map[string]float64{}, due: map[siteChannel]*Due{},
		running: map[siteChannel]*Start{}, zone: map[string]*time.Location{}, index: map[string]int{},
		lastWindow: map[siteChannel]string{}, starts: map[string]int{}, cut: map[string]int{}}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, name := range seventy {
		zone := zoneOf(t, name)
		_, offset := from.In(zone).Zone()
		long, lat := min(180, max(-180, float64(offset)/240)), []float64{-52, -20, 0, 35, 60, 78}[i%6]
		site := fmt.Sprintf("site-%02d", i)
		kind := kinds[i%len(kinds)]
		rule := mustRule(t, kind.rule)
		y.may[site], y.long[site], y.zone[site], y.index[site] = kind.may, long, zone, i
		y.in.Sites = append(y.in.Sites, Site{Name: site, Region: []string{"ap", "emea", "amer"}[i*3/70],
			Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: int64(1+i%4) * 1_000_000,
			Channels: []Channel{{"driver", rule, 0}, {"image", rule, 0}, {"package", rule, 1}, {"patch", rule, 0}}})
	}
	y.in.Options.Cap = 12
	for now := from; now.Before(from.AddDate(1, 0, 0)); now = now.Add(tick) {
		if now.Equal(now.Truncate(24 * time.Hour).Add(10 * time.Hour)) {
			day := uint64(now.YearDay())
			for _, s := range y.in.Sites {
				for channel, bytes := range map[string]int64{"driver": 200e6, "package": 900e6, "patch": 2e9} {
					y.publish(siteChannel{s.Name, channel}, day, random.Int64N(bytes), now)
				}
				if now.Weekday() == time.Tuesday {
					y.publish(siteChannel{s.Name, "image"}, day, 20e9+random.Int64N(40e9), now)
				}
			}
		}
		y.halts(now, random)
		y.live(now, random)
	}
	for key, n := range y.starts {
		if n != y.cut[key]+1 && n != y.cut[key] { // the last may still wait for its next night
			t.Errorf("%s started %d times, and was cut %d times", key, n, y.cut[key])
		}
	}
	t.Logf("%d releases arrived in %d runs; at most %d at the same time; the longest wait was %s", y.arrived, sum(y.starts), y.most, y.longest)
	// Patience is three days, and so is the freeze.
	if y.arrived < 70*3*350 || y.most != 12 || y.longest > 6*24*time.Hour {
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
func (y *year) publish(key siteChannel, release uint64, bytes int64, now time.Time) {
	if old := y.due[key]; old != nil {
		if y.starts[id(key, old.Release)] == 0 {
			y.longest = max(y.longest, now.Sub(old.Since))
		}
		return
	}
	y.due[key] = &Due{Site: key.site, Channel: key.channel, Release: release, Bytes: bytes, Since: now}
}

// halts sometimes halts a part of the fleet, for two hours.
func (y *year) halts(now time.Time, random *rand.Rand) {
	keep := y.in.Halts[:0]
	for _, h := range y.in.Halts {
		if h.Lifted.IsZero() && random.IntN(8) == 0 {
			h.Lifted = now
		}
		if h.Lifted.IsZero() || now.Sub(h.Lifted) < 24*time.Hour {
			keep = append(keep, h)
		}
	}
	y.in.Halts = keep
	if random.IntN(400) == 0 {
		h := []Halt{{}, {Region: "emea"}, {Channel: "patch"}, {Site: "site-07"}}[random.IntN(4)]
		y.in.Halts = append(y.in.Halts, h)
		for key := range y.running {
			if h.covers(&y.in.Sites[y.index[key.site]], key.channel) {
				y.due[key].Tried = time.Time{}
				y.cut[id(key, y.due[key].Release)]++
				y.lastWindow[key] = ""
				delete(y.running, key)
			}
		}
	}
}

func (y *year) live(now time.Time, random *rand.Rand) {
	perSite := map[string]int{}
	for key, run := range y.running {
		d := y.due[key]
		d.Bytes -= y.in.Sites[y.index[key.site]].Rate * int64(tick/time.Second)
		switch {
		case d.Bytes <= 0:
			y.arrived++
			delete(y.due, key)
			delete(y.running, key)
		case !now.Before(run.Window.End), random.IntN(200) == 0: // it failed: try again the next night
			y.cut[id(key, d.Release)]++
			delete(y.running, key)
		default:
			y.check(key, now, "goes on")
			perSite[key.site]++
		}
	}
	y.in.Now, y.in.Due, y.in.Running = now, y.in.Due[:0], y.in.Running[:0]
	for _, d := range y.due {
		y.in.Due = append(y.in.Due, *d)
	}
	for key := range y.running {
		y.in.Running = append(y.in.Running, Run{key.site, key.channel})
	}
	for _, s := range y.planner.Plan(y.in) {
		key := siteChannel{s.Site, s.Channel}
		d := y.due[key]
		if y.running[key] != nil {
			y.t.Errorf("%s %s: started while it runs", now, id(key, s.Release))
		}
		if perSite[s.Site]++; perSite[s.Site] > 1 {
			y.t.Errorf("%s %s: two runs at the same time", now, s.Site)
		}
		if mark := fmt.Sprint(s.Release, s.Window.Start); y.lastWindow[key] == mark {
			y.t.Errorf("%s %s: started twice in one window", now, id(key, s.Release))
		} else {
			y.lastWindow[key] = mark
		}
		for i := range y.in.Halts {
			if h := &y.in.Halts[i]; h.Lifted.IsZero() && h.covers(&y.in.Sites[y.index[s.Site]], s.Channel) {
				y.t.Errorf("%s %s: started under a halt", now, id(key, s.Release))
			}
		}
		y.check(key, now, "starts")
		if y.starts[id(key, s.Release)] == 0 {
			y.longest = max(y.longest, now.Sub(d.Since))
		}
		y.starts[id(key, s.Release)]++
		d.Tried = now
		y.running[key] = &s
	}
	y.most = max(y.most, len(y.running))
	if len(y.running) > y.in.Options.Cap {
		y.t.Errorf("%s: %d runs at the same time", now, len(y.running))
	}
}

// check uses only the site's clock and sun.
func (y *year) check(key siteChannel, now time.Time, what string) {
	solar := float64(now.Hour()) + float64(now.Minute())/60 + y.long[key.site]/15
	for solar < 0 {
		solar += 24
	}
	for solar >= 24 {
		solar -= 24
	}
	if local := now.In(y.zone[key.site]); !y.may[key.site](local, solar) {
		y.t.Errorf("%v %s outside of its windows, at %s, sun's hour %.1f", key, what, local, solar)
	}
}
