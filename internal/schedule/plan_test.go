package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/window"
)

func utc(day, hour, minute int) time.Time {
	return time.Date(2026, 6, day, hour, minute, 0, 0, time.UTC)
}

// testRate parses megabytes only.
func testRate(s string) (n int64, err error) {
	_, err = fmt.Sscanf(s, "%dMB", &n)
	return n * 1_000_000, err
}

func names(starts []Start) []string {
	var out []string
	for _, s := range starts {
		out = append(out, s.Site+" "+s.Channel)
	}
	return out
}

func TestPlan(t *testing.T) {
	night := mustRule(t, "20:00-06:00")
	rates, err := window.ParseTimetable("20:00-21:00 0; else unlimited", testRate)
	if err != nil {
		t.Fatal(err)
	}
	site := func(name string) Site {
		return Site{Name: name, Domain: "d", Region: "r-" + name, Rate: 1e6, Channels: []Channel{
			{"image", night, 0}, {"package", night, 0}, {"urgent", night, 9}, {"noon", mustRule(t, "12:00-13:00"), 0}}}
	}
	a, b, two, slow := site("a"), site("b"), site("two"), site("slow")
	two.Slots, slow.Rates = 2, rates
	due := func(site, channel string, bytes int64) Due {
		return Due{Site: site, Channel: channel, Release: 1, Bytes: bytes, Since: utc(3, 12, 0)}
	}
	all := func(site string) []Due {
		return []Due{due(site, "image", 40e9), due(site, "package", 5e9), due(site, "urgent", 9e9), due(site, "noon", 1)}
	}
	old := due("a", "image", 40e9)
	old.Since = utc(1, 0, 0).AddDate(0, 0, -3)
	tried := func(d Due, at time.Time) Due { d.Tried = at; return d }
	now := utc(3, 20, 30)
	for _, c := range []struct {
		name string
		in   Input
		want []string
	}{
		{"priority, then the smallest need, one at a site", Input{Now: now, Due: append(all("a"), all("b")[:2]...)}, []string{"a urgent", "b package"}},
		{"due only since the halt was lifted", Input{Now: utc(3, 20, 2), Due: []Due{due("a", "package", 1), {Site: "b", Channel: "package", Bytes: 1, Since: utc(3, 20, 1)}},
			Halts: []Halt{{Lifted: utc(3, 20, 0)}}}, []string{"b package"}},
		{"two slots", Input{Now: now, Due: all("two")}, []string{"two urgent", "two package"}},
		{"outside the window", Input{Now: utc(3, 19, 59), Due: all("a")}, nil},
		{"at its end", Input{Now: utc(4, 6, 0), Due: all("a")}, nil},
		{"its own window", Input{Now: utc(3, 12, 0), Due: all("a")}, []string{"a noon"}},
		{"one runs already", Input{Now: now, Due: all("a"), Running: []Run{{"a", "noon"}}}, nil},
		{"and not itself again", Input{Now: now, Due: all("two"), Running: []Run{{"two", "urgent"}}}, []string{"two package"}},
		{"the cap", Input{Now: now, Due: append(all("a"), all("b")...), Running: []Run{{"two", "image"}}, Options: Options{Cap: 2}}, []string{"a urgent"}},
		{"once in a window", Input{Now: now, Due: []Due{tried(due("a", "package", 1), utc(3, 20, 0))}}, nil},
		{"and again in the next", Input{Now: utc(4, 20, 0), Due: []Due{tried(due("a", "package", 1), utc(3, 20, 0))}}, []string{"a package"}},
		{"who waited goes before who matters", Input{Now: now, Due: append(all("a")[1:], old)}, []string{"a image"}},
		{"but a run of many nights has not waited", Input{Now: now, Due: append(all("a")[1:], tried(old, utc(2, 20, 0)))}, []string{"a urgent"}},
		{"a halt", Input{Now: now, Due: all("a"), Halts: []Halt{{}}}, nil},
		{"a halt of a channel", Input{Now: now, Due: all("a"), Halts: []Halt{{Channel: "urgent"}}}, []string{"a package"}},
		{"a halt elsewhere", Input{Now: now, Due: all("a"), Halts: []Halt{{Site: "b"}, {Region: "r-b"}, {Domain: "x"}, {Site: "a", Channel: "noon"}}}, []string{"a urgent"}},
		{"a halt here", Input{Now: now, Due: all("a"), Halts: []Halt{{Domain: "d", Region: "r-a"}}}, nil},
		{"the rate is 0", Input{Now: now, Due: all("slow")}, nil},
		{"and is not", Input{Now: utc(3, 21, 0), Due: all("slow")}, []string{"slow urgent"}},
		{"unknown", Input{Now: now, Due: []Due{due("x", "image", 1), due("a", "x", 1)}}, nil},
		{"said twice", Input{Now: now, Due: append(all("two")[:1], all("two")[:1]...)}, []string{"two image"}},
	} {
		c.in.Sites = []Site{a, b, two, slow}
		got := Plan(c.in)
		if d := cmp.Diff(c.want, names(got)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		for _, s := range got {
			if !s.Window.Contains(c.in.Now) {
				t.Errorf("%s: %v is not open", c.name, s.Window)
			}
		}
	}
}

// TestNoneStarves fills the whole window with a more urgent and a smaller run
// every night; the third must still run every few nights.
func TestNoneStarves(t *testing.T) {
	rule := mustRule(t, "01:00-02:00")
	site := Site{Name: "s", Channels: []Channel{{"image", rule, 0}, {"urgent", rule, 1}, {"patch", rule, 0}}}
	tried := map[string]time.Time{}
	var turns []int
	for night := range 28 {
		in := Input{Now: utc(1+night, 1, 0), Sites: []Site{site}, Due: []Due{
			{Site: "s", Channel: "image", Release: 1, Bytes: 40e9, Since: utc(1, 0, 0), Tried: tried["image"]},
			{Site: "s", Channel: "urgent", Release: uint64(night), Bytes: 1e9, Since: utc(1+night, 0, 0)},
			{Site: "s", Channel: "patch", Release: uint64(night), Bytes: 1e6, Since: utc(1+night, 0, 0)}}}
		for _, s := range Plan(in) {
			if tried[s.Channel] = in.Now; s.Channel == "image" {
				turns = append(turns, night)
			}
		}
	}
	if d := cmp.Diff([]int{3, 7, 11, 15, 19, 23, 27}, turns); d != "" {
		t.Error(d)
	}
}

// TestPlacesAreNotMistaken checks the cache of windows by rule and place:
// places that differ only in their sun or only in their clock are distinct.
func TestPlacesAreNotMistaken(t *testing.T) {
	china := zoneOf(t, "Asia/Shanghai")
	lat, east, west := 31.2, 121.5, 76.0
	place := func(zone *time.Location, long *float64) window.Place {
		return window.Place{Zone: zone, Latitude: &lat, Longitude: long}
	}
	in := Input{Now: time.Date(2026, 6, 3, 20, 30, 0, 0, china)}
	for i, at := range []window.Place{place(china, &east), place(china, &west), place(time.FixedZone("", 8*3600), &east), place(time.FixedZone("", 0), &east)} {
		rule := "dark"
		if i >= 2 {
			rule = "20:00-06:00"
		}
		name := fmt.Sprint(i)
		in.Sites = append(in.Sites, Site{Name: name, Place: at, Channels: []Channel{{Name: "patch", Windows: mustRule(t, rule)}}})
		in.Due = append(in.Due, Due{Site: name, Channel: "patch", Bytes: 1})
	}
	if d := cmp.Diff([]string{"0 patch", "2 patch"}, names(Plan(in))); d != "" {
		t.Error(d)
	}
}

// TestAfterAHaltTheFleetStartsSpread halts a thousand sites of one zone in
// the middle of their night, or just before its end.
func TestAfterAHaltTheFleetStartsSpread(t *testing.T) {
	rule := mustRule(t, "20:00-06:00")
	for _, c := range []struct {
		lifted time.Time
		within time.Duration
	}{{utc(3, 23, 0), 30 * time.Minute}, {utc(4, 5, 56), 2 * time.Minute}} {
		in := Input{Halts: []Halt{{Lifted: c.lifted}}}
		for i := range 1000 {
			name := fmt.Sprintf("site-%03d", i)
			in.Sites = append(in.Sites, Site{Name: name, Channels: []Channel{{Name: "patch", Windows: rule}}})
			in.Due = append(in.Due, Due{Site: name, Channel: "patch", Release: 1, Bytes: 1, Since: utc(3, 12, 0)})
		}
		var p Planner
		const parts = 10
		for part := 0; part < parts; part++ {
			in.Now = c.lifted.Add(c.within * time.Duration(part+1) / parts)
			starts := p.Plan(in)
			if n := len(starts); n < 60 || n > 140 {
				t.Errorf("lifted at %s: %d of 1000 start in part %d of %s", c.lifted, n, part, c.within)
			}
			for _, s := range starts {
				in.Running = append(in.Running, Run{s.Site, s.Channel})
			}
		}
		if len(in.Running) != 1000 {
			t.Errorf("lifted at %s: only %d of 1000 started within %s", c.lifted, len(in.Running), c.within)
		}
		// The halt has no effect on the following night.
		in.Running = nil
		in.Now = utc(4, 20, 0)
		if n := len(p.Plan(in)); n != 1000 {
			t.Errorf("the next night %d start", n)
		}
	}
}
