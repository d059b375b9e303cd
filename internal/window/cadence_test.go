package window

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustCadence(t *testing.T, text string) Cadence {
	t.Helper()
	c, err := ParseCadence(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// times lists the times of a cadence within some days.
func times(t *testing.T, c Cadence, from time.Time, days int, sites []Opening) []time.Time {
	t.Helper()
	var out []time.Time
	for at := from; ; {
		next, ok := c.Next(at, sites)
		if !ok || !next.Before(from.AddDate(0, 0, days)) {
			return out
		}
		if !next.After(at) {
			t.Fatalf("%s: after %s comes %s", c, at, next)
		}
		out, at = append(out, next), next
	}
}

// TestCronRunsOnceADay checks each day of two years, across all clock changes.
func TestCronRunsOnceADay(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "America/Nuuk", "America/Havana", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"} {
		for _, spec := range []string{"30 2 * * *", "30 1 * * *", "0 0 * * *", "15 2 * * *", "30 23 * * *"} {
			c := mustCadence(t, spec+" "+zone)
			from := wallTime(Date{2026, 1, 1}, 0, zoneOf(t, zone)).Add(-time.Second)
			if got := len(times(t, c, from, 730, nil)); got != 730 {
				t.Errorf("%s: %d times in 730 days", c, got)
			}
		}
	}
}

func TestCronAtTheChanges(t *testing.T) {
	for _, c := range []struct {
		cadence string
		from    string
		days    int
		want    []string
	}{
		{"30 2 * * * Europe/Berlin", "2026-03-28T00:00:00Z", 3, []string{"03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"}},
		{"30 2 * * * Europe/Berlin", "2026-10-24T00:00:00Z", 3, []string{"10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"}},
		{"0,20,40 2 * * * Europe/Berlin", "2026-03-29T00:00:00Z", 1, []string{"03-29 03:00 +0200"}},
		{"0 * * * * Europe/Berlin", "2026-10-24T23:30:00Z", 1, nil}, // counted below
		{"0 18 * * mon-fri Europe/Berlin", "2026-06-05T00:00:00Z", 4, []string{"06-05 18:00 +0200", "06-08 18:00 +0200"}},
		{"0 12 30 * * Pacific/Apia", "2011-12-01T00:00:00Z", 62, []string{"12-31 00:00 +1400", "01-30 12:00 +1400"}},
		{"never", "2026-06-05T00:00:00Z", 4, nil},
	} {
		cadence := mustCadence(t, c.cadence)
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, at := range times(t, cadence, from, c.days, nil) {
			got = append(got, at.Format("01-02 15:04 -0700"))
		}
		if c.want == nil && len(got) > 0 {
			// 24 hours on the wall are 25 in real time: the second of the doubled hours is omitted.
			if len(got) != 24-1 {
				t.Errorf("%s: %d times", c.cadence, len(got))
			}
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.cadence, d)
		}
	}
}

// TestBeforeTheFirstWindow: Kiritimati's evening is the first of each date.
func TestBeforeTheFirstWindow(t *testing.T) {
	rule := mustRule(t, "20:00-06:00")
	site := func(zone string, r Rule) Opening { return Opening{Place{Zone: zoneOf(t, zone)}, r} }
	world := []Opening{site("America/New_York", rule), site("Pacific/Kiritimati", rule), site("Europe/Berlin", mustRule(t, "02:00-05:00 20:00-01:00"))}
	from := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	format := func(list []time.Time) (out []string) {
		for _, at := range list {
			out = append(out, at.Format("Mon 02 15:04"))
		}
		return out
	}
	for _, c := range []struct {
		cadence string
		sites   []Opening
		days    int
		want    []string
	}{
		// Tuesday starts at 20:00 in Kiritimati (06:00 UTC), but at 02:00 in Berlin (00:00 UTC).
		{"daily 2h before first window", world, 3, []string{"Mon 01 22:00", "Tue 02 22:00", "Wed 03 22:00"}},
		{"daily 2h before first window", world[:2], 3, []string{"Mon 01 04:00", "Tue 02 04:00", "Wed 03 04:00"}},
		{"weekly wed before first window", world[:2], 14, []string{"Wed 03 04:00", "Wed 10 04:00"}},
		{"weekly wed 0h before first window", world[:1], 14, []string{"Thu 04 00:00", "Thu 11 00:00"}},
		{"daily 2h before first window", []Opening{site("UTC", mustRule(t, "sat 10:00-12:00; freeze 06-02..06-30"))}, 60, []string{"Sat 04 08:00", "Sat 11 08:00", "Sat 18 08:00", "Sat 25 08:00"}},
		{"daily 2h before first window", nil, 3, nil},
	} {
		cadence := mustCadence(t, c.cadence)
		if d := cmp.Diff(c.want, format(times(t, cadence, from, c.days, c.sites))); d != "" {
			t.Errorf("%s: %s", c.cadence, d)
		}
		if again := mustCadence(t, cadence.String()); again.String() != cadence.String() {
			t.Errorf("%s reads as %s", cadence, again)
		}
	}
}

func TestRates(t *testing.T) {
	table, err := ParseTimetable("mon-fri 06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited", testRate)
	if err != nil || table.String() != "mon-fri 06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited" {
		t.Fatal(table, err)
	}
	zone := zoneOf(t, "America/New_York")
	for _, c := range []struct {
		at    string
		rate  int64
		until string
	}{
		{"Fri 05 05:59", Unlimited, "Fri 05 06:00"},
		{"Fri 05 06:00", 0, "Fri 05 20:00"},
		{"Fri 05 21:00", 2_500_000, "Fri 05 22:00"},
		{"Fri 05 22:00", Unlimited, "Sat 06 20:00"},
		{"Sun 07 23:00", Unlimited, "Mon 08 06:00"},
	} {
		at, err := time.ParseInLocation("2006-01 Mon 02 15:04", "2026-06 "+c.at, zone)
		if err != nil {
			t.Fatal(err)
		}
		rate, until := table.Rate(at, zone)
		if got := until.Format("Mon 02 15:04"); rate != c.rate || got != c.until {
			t.Errorf("%s: %d until %s", c.at, rate, got)
		}
	}
	night, err := ParseTimetable("thu 22:00-06:00 1Mbit; else 0", testRate)
	if err != nil {
		t.Fatal(err)
	}
	if rate, until := night.Rate(time.Date(2026, 6, 5, 3, 0, 0, 0, zone), zone); rate != 125_000 || until.Format("Mon 15:04") != "Fri 06:00" {
		t.Errorf("after midnight: %d until %s", rate, until)
	}
	weekly, err := ParseTimetable("wed 01:00-02:00 0; else 1Mbit", testRate)
	if err != nil {
		t.Fatal(err)
	}
	if rate, until := weekly.Rate(time.Date(2026, 6, 3, 2, 0, 0, 0, time.UTC), time.UTC); rate != 125_000 || until != time.Date(2026, 6, 10, 1, 0, 0, 0, time.UTC) {
		t.Errorf("a week ahead: %d until %s", rate, until)
	}
	for _, text := range []string{"else 1Mbit", "all 1Mbit; else 0", ""} {
		var same Timetable
		if text != "" {
			if same, err = ParseTimetable(text, testRate); err != nil {
				t.Fatal(err)
			}
		}
		rate, until := same.Rate(time.Date(2026, 6, 3, 2, 0, 0, 0, time.UTC), time.UTC)
		if want := map[bool]int64{true: 125_000, false: Unlimited}[text != ""]; rate != want || !until.IsZero() {
			t.Errorf("%q: %d until %s", text, rate, until)
		}
	}
}
