package agent

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/policy"
	"nightferry/internal/schedule"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// TestAgentAndForecastAgree: on random nights, the agent starts each channel at the forecast time, and its content has
// moved at the forecast time.
func TestAgentAndForecastAgree(t *testing.T) {
	const measured = 2_000_000 // bytes per second
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 7))
		pick := func(list ...string) string { return list[random.IntN(len(list))] }
		from := time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC)
		s := &wire.State{Zone: pick("Asia/Tokyo", "Europe/Lisbon", "America/New_York"), Rates: pick("else unlimited", "21:00-23:30 400KB; else 8MB", "22:00-22:30 0; else unlimited")}
		zone, err := time.LoadLocation(s.Zone)
		if err != nil {
			t.Fatal(err)
		}
		rates, err := window.ParseTimetable(s.Rates, bucket.ParseRate)
		if err != nil {
			t.Fatal(err)
		}
		site := schedule.Site{Name: "lyon-1", Place: window.Place{Zone: zone}, Rates: rates, Rate: measured}
		q := schedule.Question{From: from, Days: 1}
		for i := range 6 {
			d := wire.Desired{Channel: fmt.Sprintf("c%d", i), Number: 1, Release: trust.ReleaseDigest(digest.Of([]byte{byte(i)})), Bytes: 1<<20 + random.Int64N(20<<30),
				Policy: policy.Policy{Priority: random.IntN(3), Windows: pick("20:00-04:00", "22:00-05:00", "01:00-03:00", "22:15-23:00")}}
			rule, err := window.ParseRule(d.Windows)
			if err != nil {
				t.Fatal(err)
			}
			s.Desired = append(s.Desired, d)
			site.Channels = append(site.Channels, schedule.Channel{Name: d.Channel, Windows: rule, Priority: int(d.Priority)})
			q.Due = append(q.Due, schedule.Due{Site: site.Name, Channel: d.Channel, Release: 1, Bytes: d.Bytes, Since: from})
		}
		q.Sites = []schedule.Site{site}
		starts, ends := nightOf(t, s, from, measured)
		for _, it := range schedule.Forecast(q) {
			if d := it.Start.Sub(starts[it.Channel]).Abs(); d > time.Second {
				t.Errorf("seed %d: %s starts at %v, the forecast is %v", seed, it.Channel, starts[it.Channel], it.Start)
			}
			if d := it.End.Sub(ends[it.Channel]).Abs(); d > time.Second {
				t.Errorf("seed %d: %s ends at %v, the forecast is %v", seed, it.Channel, ends[it.Channel], it.End)
			}
		}
	}
}

// nightOf lets an agent's own planner start the due channels of a day, over a line of rate bytes per second that the
// running channels share.
func nightOf(t *testing.T, s *wire.State, from time.Time, rate int64) (starts, ends map[string]time.Time) {
	t.Helper()
	starts, ends = map[string]time.Time{}, map[string]time.Time{}
	now, to := from, from.AddDate(0, 0, 1)
	a := resting(t, filepath.Join(t.TempDir(), "agent.db"), func() time.Time { return now }, s)
	if err := a.turns.recordWaiting(t.Context(), a.spool, s, nil, now); err != nil {
		t.Fatal(err)
	}
	left := map[string]int64{}
	for _, d := range s.Desired {
		left[d.Channel] = d.Bytes
	}
	for now.Before(to) {
		var due []dueChannel
		for i := range s.Desired {
			d := &s.Desired[i]
			if open, _ := a.night.isOpen(now, d.Channel, false); !open && a.running[d.Channel] != nil {
				delete(a.running, d.Channel) // it is stopped, and notes the rest
				a.preparing.setNeeded(d, left[d.Channel])
			}
			if left[d.Channel] > 0 {
				due = append(due, dueChannel{Desired: *d})
			}
		}
		m := a.planMoment(a.night, due, 0, now)
		_, begin, again := schedule.Next(m)
		for _, i := range begin {
			channel := m.Waiting[i].Channel
			a.running[channel] = &job{}
			a.turns.takeTurn(channel, now)
			if _, before := starts[channel]; !before {
				starts[channel] = now
			}
		}
		next := earlierTime(earlierTime(to, again), m.Change)
		share := float64(min(rate, m.Rate)) / float64(max(1, len(a.running)))
		takes := func(channel string) time.Duration {
			return time.Duration(float64(left[channel]) / share * float64(time.Second))
		}
		for channel := range a.running {
			w, _ := a.night.windowOf(now, channel, false)
			next = earlierTime(next, w.End)
		}
		for channel := range a.running {
			next = earlierTime(next, now.Add(takes(channel)))
		}
		spent := next.Sub(now)
		for channel := range a.running {
			if takes(channel) > spent {
				left[channel] -= int64(share * spent.Seconds())
				continue
			}
			left[channel], ends[channel] = 0, next
			delete(a.running, channel)
		}
		now = next
	}
	return starts, ends
}
