package window

import (
	"testing"
	"time"
)

// TestPain12_EachWindowOpensOnceAndClosesOnTime simulates 14 days in five
// zones across both of their clock changes, in steps of five minutes (each
// window and each change is at a multiple of that).
func TestPain12_EachWindowOpensOnceAndClosesOnTime(t *testing.T) {
	zones := []struct {
		zone           string
		spring, autumn Date
	}{
		{"Europe/Berlin", Date{2026, 3, 29}, Date{2026, 10, 25}},
		{"America/New_York", Date{2026, 3, 8}, Date{2026, 11, 1}},
		{"Pacific/Chatham", Date{2026, 9, 27}, Date{2026, 4, 5}},     // +12:45, changes at 02:45
		{"Australia/Lord_Howe", Date{2026, 10, 4}, Date{2026, 4, 5}}, // by 30 minutes
		{"Asia/Kathmandu", Date{2026, 3, 29}, Date{2026, 10, 25}},    // +05:45, never
	}
	// Lengths are of ordinary days. opens and closes are the times on the
	// site's clock on the day of the change.
	rules := []struct {
		rule   string
		length time.Duration
		spring map[string]string // by zone, if the change affects it
		autumn map[string]string
	}{
		{"20:00-06:00", 10 * time.Hour, nil, nil},
		{"02:15-05:00", 165 * time.Minute, map[string]string{"Europe/Berlin": "03:00-05:00", "America/New_York": "03:00-05:00", "Australia/Lord_Howe": "02:30-05:00"}, nil},
		{"02:10-02:25", 15 * time.Minute, map[string]string{"Europe/Berlin": "03:00-03:15", "America/New_York": "03:00-03:15", "Australia/Lord_Howe": "02:30-02:45"}, nil},
		{"02:50-03:30", 40 * time.Minute, map[string]string{"Europe/Berlin": "03:00-03:30", "America/New_York": "03:00-03:30", "Pacific/Chatham": "03:45-04:25"}, nil},
		{"01:10-01:20", 10 * time.Minute, nil, nil},
		{"01:40-01:50", 10 * time.Minute, nil, nil},
		{"01:00-02:30", 90 * time.Minute, map[string]string{"Europe/Berlin": "01:00-03:00", "America/New_York": "01:00-03:00"}, nil},
		{"12:00-13:00", time.Hour, nil, nil},
	}
	for _, z := range zones {
		zone := zoneOf(t, z.zone)
		for _, season := range []string{"spring", "autumn"} {
			change := z.spring
			if season == "autumn" {
				change = z.autumn
			}
			for _, r := range rules {
				rule := mustRule(t, r.rule)
				usual := r.rule
				odd := usual
				if s, ok := r.spring[z.zone]; ok && season == "spring" {
					odd = s
				}
				first := change.addDays(-7)
				opened := map[Date]int{}
				var since Window
				open := false
				for now := wallTime(first, 720, zone); now.Before(wallTime(first.addDays(14), 720, zone)); now = now.Add(5 * time.Minute) {
					w, ok := Open(now, Place{Zone: zone}, rule)
					switch {
					case ok && !open:
						d := dateOf(w.Start.In(zone))
						opened[d]++
						want := usual
						if d == change {
							want = odd
						}
						if got := now.In(zone).Format("15:04"); got != want[:5] {
							t.Errorf("%s %s %s: opens at %s on %s, want %s", z.zone, season, r.rule, got, d, want[:5])
						}
						since, open = w, true
					case ok && w != since:
						t.Errorf("%s %s %s: one window becomes another: %v, %v", z.zone, season, r.rule, since, w)
						since = w
					case !ok && open:
						open = false
						want := usual
						if dateOf(since.Start) == change {
							want = odd
						}
						if got := now.In(zone).Format("15:04"); got != want[6:] {
							t.Errorf("%s %s %s: closes at %s on %s, want %s", z.zone, season, r.rule, got, dateOf(now.In(zone)), want[6:])
						}
						if !now.Equal(since.End) {
							t.Errorf("%s %s %s: said %s, closed at %s", z.zone, season, r.rule, since.End, now)
						}
						if d := dateOf(since.Start); d != change && d != change.addDays(-1) && since.Length() != r.length {
							t.Errorf("%s %s %s: %s long on %s", z.zone, season, r.rule, since.Length(), d)
						}
					}
				}
				days := 0
				for d := first; d.before(first.addDays(15)); d = d.addDays(1) {
					n := opened[d]
					if n > 1 {
						t.Errorf("%s %s %s: opened %d times on %s", z.zone, season, r.rule, n, d)
					}
					days += n
				}
				if days != 14 {
					t.Errorf("%s %s %s: opened %d times in 14 days", z.zone, season, r.rule, days)
				}
			}
		}
	}
}

// TestPain12_TheNightsOfTheChangesAreAsLongAsTheyAre checks the real length
// of nights that take ten hours on the wall clock.
func TestPain12_TheNightsOfTheChangesAreAsLongAsTheyAre(t *testing.T) {
	berlin := Place{Zone: zoneOf(t, "Europe/Berlin")}
	for _, c := range []struct {
		evening Date
		hours   float64
	}{{Date{2026, 3, 27}, 10}, {Date{2026, 3, 28}, 9}, {Date{2026, 10, 24}, 11}, {Date{2026, 10, 25}, 10}} {
		w, ok := Open(wallTime(c.evening, 22*60, berlin.Zone), berlin, mustRule(t, "20:00-06:00"))
		if !ok || w.Length().Hours() != c.hours {
			t.Errorf("%s: %v long, open %v; want %v hours", c.evening, w.Length(), ok, c.hours)
		}
	}
}

// TestPain12_RatesChangeOnTime checks the timetable over the same 14 days.
func TestPain12_RatesChangeOnTime(t *testing.T) {
	table, err := ParseTimetable("06:00-20:00 0; 20:00-22:00 20Mbit; 04:00-05:00 1Mbit; else unlimited", testRate)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.near.Year < 1900 {
			continue
		}
		zone := zoneOf(t, c.zone)
		from, to := wallTime(c.near.addDays(-7), 0, zone), wallTime(c.near.addDays(7), 0, zone)
		var zero, slow time.Duration
		for _, s := range ends(table.Steps(from, to, zone), to) {
			local := s.From.In(zone)
			switch s.Bytes {
			case 0:
				zero += s.until.Sub(s.From)
				if got := local.Format("15:04") + s.until.In(zone).Format("-15:04"); got != "06:00-20:00" {
					t.Errorf("%s: stops at %s on %s", c.zone, got, local)
				}
			case 125_000:
				slow += s.until.Sub(s.From)
			}
			if got, _ := table.Rate(s.until.Add(-time.Second), zone); got != s.Bytes {
				t.Errorf("%s: %d before %s, want %d still", c.zone, got, s.until, s.Bytes)
			}
		}
		days := time.Duration(14)
		if dateOf(wallTime(c.near, 0, zone)) != c.near {
			days = 13 // one day was skipped
		}
		if zero != days*14*time.Hour || slow != days*time.Hour {
			t.Errorf("%s %s: stopped for %s and slow for %s in %d days", c.zone, c.near, zero, slow, days)
		}
	}
}

type spell struct {
	Step
	until time.Time
}

func ends(steps []Step, to time.Time) []spell {
	var out []spell
	for i, s := range steps {
		until := to
		if i+1 < len(steps) {
			until = steps[i+1].From
		}
		out = append(out, spell{s, until})
	}
	return out
}
