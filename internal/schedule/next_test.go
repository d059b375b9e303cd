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

func TestNext(t *testing.T) {
	now := utc(3, 20, 30)
	night := window.Window{Start: utc(3, 20, 0), End: utc(4, 6, 0)}
	later := window.Window{Start: utc(3, 22, 0), End: utc(4, 6, 0)}
	c := func(channel string, bytes int64, change func(*Candidate)) Candidate {
		x := Candidate{Channel: channel, Bytes: bytes, Since: utc(3, 12, 0), Window: night}
		if change != nil {
			change(&x)
		}
		return x
	}
	urgent := func(x *Candidate) { x.Priority = 9 }
	old := func(x *Candidate) { x.Since = now.Add(-Patience - time.Second) }
	for _, x := range []struct {
		name  string
		m     Moment
		want  string
		again time.Time
	}{
		{"priority, then the smallest need, two at once", Moment{Waiting: []Candidate{c("image", 40, nil), c("package", 5, nil), c("urgent", 9, urgent)}}, "urgent package [5 0 0]", time.Time{}},
		{"one moves already", Moment{Running: 1, Waiting: []Candidate{c("image", 40, nil), c("package", 5, nil)}}, "package [5 0]", time.Time{}},
		{"both places are taken", Moment{Running: 2, Waiting: []Candidate{c("image", 40, nil)}}, " [5]", time.Time{}},
		{"what waited goes before what matters", Moment{Running: 1, Waiting: []Candidate{c("urgent", 9, urgent), c("image", 40, old)}}, "image [5 0]", time.Time{}},
		{"of those, what waited longer", Moment{Running: 1, Waiting: []Candidate{c("package", 9, old), c("image", 40, func(x *Candidate) { x.Since = utc(-9, 0, 0) })}}, "image [5 0]", time.Time{}},
		{"outside the window", Moment{Waiting: []Candidate{c("image", 40, func(x *Candidate) { x.Window = later })}}, " [2]", later.Start},
		{"at its start, and at its end", Moment{Waiting: []Candidate{c("a", 1, func(x *Candidate) { x.Window.Start = now }), c("b", 1, func(x *Candidate) { x.Window.End = now })}}, "a [0 2]", time.Time{}},
		{"it never opens", Moment{Waiting: []Candidate{c("image", 40, func(x *Candidate) { x.Window = window.Window{} })}}, " [2]", time.Time{}},
		{"no window matters", Moment{Waiting: []Candidate{c("image", 40, func(x *Candidate) { x.Window, x.Always = later, true })}}, "image [0]", time.Time{}},
		{"the rate is 0", Moment{Rate: -1, Change: utc(3, 21, 0), Waiting: []Candidate{c("image", 40, nil)}}, " [3]", utc(3, 21, 0)},
		{"after a failure", Moment{Waiting: []Candidate{c("image", 40, func(x *Candidate) { x.After = utc(3, 20, 45) }), c("package", 50, nil)}}, "package [4 0]", utc(3, 20, 45)},
		{"held", Moment{Waiting: []Candidate{c("image", 40, func(x *Candidate) { x.Held = true }), c("package", 50, nil)}}, "package [1 0]", time.Time{}},
	} {
		x.m.Now = now
		if x.m.Rate++; x.m.Rate > 0 { // -1 stands for 0
			x.m.Rate = 1e6
		}
		verdicts, starts, again := Next(x.m)
		got := ""
		for _, i := range starts {
			if got != "" {
				got += " "
			}
			got += x.m.Waiting[i].Channel
		}
		if got += fmt.Sprintf(" %d", verdicts); got != x.want || !again.Equal(x.again) {
			t.Errorf("%s: got %q, again %v; want %q, %v", x.name, got, again, x.want, x.again)
		}
	}
}

// TestNoneStarves fills the whole window with more important and smaller runs
// every night; the last channel must still run every few nights.
func TestNoneStarves(t *testing.T) {
	turned := utc(1, 0, 0)
	var turns []int
	for night := range 28 {
		now := utc(1+night, 1, 0)
		fresh := Candidate{Since: utc(1+night, 0, 0), Always: true, Bytes: 1e6}
		m := Moment{Now: now, Rate: 1, Waiting: []Candidate{{Channel: "image", Bytes: 40e9, Since: turned, Always: true}}}
		for i, channel := range []string{"driver", "patch", "urgent"} {
			c := fresh
			c.Channel, c.Priority = channel, i/2
			m.Waiting = append(m.Waiting, c)
		}
		_, starts, _ := Next(m)
		for _, i := range starts {
			if i == 0 {
				turns, turned = append(turns, night), now
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
	q := Question{From: time.Date(2026, 6, 3, 20, 30, 0, 0, china), Days: 1}
	for i, at := range []window.Place{place(china, &east), place(china, &west), place(time.FixedZone("", 8*3600), &east), place(time.FixedZone("", 0), &east)} {
		rule := "dark"
		if i >= 2 {
			rule = "20:00-06:00"
		}
		name := fmt.Sprint(i)
		q.Sites = append(q.Sites, Site{Name: name, Place: at, Channels: []Channel{{Name: "patch", Windows: mustRule(t, rule)}}})
		q.Due = append(q.Due, Due{Site: name, Channel: "patch", Bytes: 1, Since: q.From})
	}
	var now []string
	for _, i := range Forecast(q) {
		if i.Start.Equal(q.From) {
			now = append(now, i.Site)
		}
	}
	if d := cmp.Diff([]string{"0", "2"}, now); d != "" {
		t.Error(d)
	}
}
