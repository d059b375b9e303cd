package window

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func mustRule(t testing.TB, text string) Rule {
	t.Helper()
	r, err := ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testRate parses one unit only.
func testRate(s string) (int64, error) {
	n, ok := strings.CutSuffix(s, "Mbit")
	if v, err := time.ParseDuration(n + "s"); ok && err == nil {
		return int64(v.Seconds() * 125_000), nil
	}
	return 0, errors.New("want a rate such as 20Mbit")
}

func TestRuleText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"mon-fri 20:00-06:00, sat-sun all", ""},
		{"MON-Fri   20:00-06:00,sat sun all", "mon-fri 20:00-06:00, sat-sun all"},
		{"dark", ""},
		{"dark 6h..12h", ""},
		{"mon wed fri 12:00-13:00 20:00-24:00", ""},
		{"20:00-00:00", "20:00-24:00"},
		{"00:00-24:00", "all"},
		{"sat-mon dark 90m..10h30m", "mon sat-sun dark 1h30m..10h30m"},
		{"mon-sun all", ""}, // unlike all: not on holidays
		{"never", ""},
		{"20:00-06:00, holiday all; holidays 12-25, 2026-04-03;freeze 12-20..01-03", "20:00-06:00, holiday all; holidays 12-25 2026-04-03; freeze 12-20..01-03"},
		{"never; freeze 02-29", ""},
	} {
		r, err := ParseRule(c.text)
		want := c.want
		if want == "" {
			want = c.text
		}
		if err != nil || r.String() != want {
			t.Errorf("%q is %q, %v; want %q", c.text, r, err, want)
			continue
		}
		b, err := json.Marshal(map[string]Rule{"r": r})
		var again map[string]Rule
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if d := cmp.Diff(r, again["r"], cmp.AllowUnexported(Rule{}, clause{}, span{})); err != nil || d != "" {
			t.Errorf("%q does not survive JSON: %v %s", c.text, err, d)
		}
	}
}

func TestErrorsNameThePlaceAndWhatIsAllowed(t *testing.T) {
	rate := func(s string) error { _, err := ParseTimetable(s, testRate); return err }
	rule := func(s string) error { _, err := ParseRule(s); return err }
	cadence := func(s string) error { _, err := ParseCadence(s); return err }
	for _, c := range []struct {
		parse      func(string) error
		text, want string
	}{
		{rule, "", "column 1: no times"},
		{rule, "mon,tue 20:00-06:00", `column 1, "mon": no times: want days (mon, mon-fri, holiday) and times (20:00-06:00, all, dark), and a space, not a comma`},
		{rule, "mon-fri 20:00-06:00, satt all", `column 22, "satt": unknown day: use mon`},
		{rule, "20:00-25:00", `column 1, "20:00-25:00"`},
		{rule, "24:00-06:00", "24:00 as an end"},
		{rule, "8:00-9:00", "20:00-06:00"},
		{rule, "20:00-20:00", "write all for the whole day"},
		{rule, "dark 0h..12h", `column 6, "0h..12h": want the least and the most that a night may be, such as 6h..12h, from 30m to 23h`},
		{rule, "dark 6h..24h", "from 30m to 23h"},
		{rule, "dark 8h..6h", "6h..12h"},
		{rule, "mon never", "leave the day out"},
		{rule, "all; frozen 12-25", `column 6, "frozen": want holidays or freeze`},
		{rule, "all; freeze", "want dates behind it"},
		{rule, "all;", "want holidays or freeze and dates"},
		{rule, "all; freeze 2026-02-29", `column 13, "2026-02-29": want a date`},
		{rule, "all; freeze 2026-02-02..2026-01-02", "swap the dates"},
		{rule, "all; freeze 2026-02-02..01-02", "give both or neither"},
		{rule, "all; freeze 2026-02-02..x", "behind the two dots"},
		{rule, strings.Repeat("all ", 5000), "at most 16384"},
		{rate, "06:00-20:00", "want times and a rate"},
		{rate, "06:00-20:00 5", `column 13, "5": no rate (a rate, 0 or unlimited ends each entry): want a rate such as 20Mbit`},
		{rate, "else 0; 06:00-20:00 0", "it stands last"},
		{rate, "dark 0", "no dark"},
		{rate, "holiday all 0", "no holidays"},
		{rate, "mon 0", "no times before the rate"},
		{cadence, "0 18 * * *", "a zone"},
		{cadence, "0 25 * * * UTC", "above maximum (23)"},
		{cadence, "0 18 30 2 * UTC", "no month that is named has such a day"},
		{cadence, "0 18 * * * Europe/Berlln", `column 12, "Europe/Berlln": want an IANA zone`},
		{cadence, "0 18 * * * Local", "IANA zone"},
		{cadence, "TZ=UTC 18 * * * UTC", "want minute"},
		{cadence, "@every 1h", "want minute"},
		{cadence, "weekly before first window", "want a day"},
		{cadence, "daily 25h before first window", "up to 24h"},
		{cadence, "daily 2h after first window", "before first window"},
		{cadence, "", "column 1"},
	} {
		err := c.parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v; want %q", c.text, err, c.want)
		}
	}
}

// FuzzParse checks that every parsed rule is written so that it parses to the
// same rule, and that no window ends before it starts.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"mon-fri 20:00-06:00, sat-sun all", "dark 6h..12h", "sat-mon 00:00-24:00 dark; holidays 12-25 2026-04-03; freeze 12-20..01-03",
		"never", "30 18 * * mon-fri Europe/Berlin", "weekly sun 4h before first window", "06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited"} {
		f.Add(s)
	}
	from := time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseRule(text); err == nil {
			if again, err := ParseRule(r.String()); err != nil || again.String() != r.String() {
				t.Errorf("%q reads as %q, %v", r, again, err)
			}
			lat, long := 52.5, 13.4
			for _, w := range Between(from, from.AddDate(0, 0, 14), Place{time.UTC, &lat, &long}, r) {
				if !w.Start.Before(w.End) {
					t.Errorf("%q: %v", r, w)
				}
			}
		}
		if c, err := ParseCadence(text); err == nil {
			if again, err := ParseCadence(c.String()); err != nil || again.String() != c.String() {
				t.Errorf("%q reads as %q, %v", c, again, err)
			}
			if next, ok := c.Next(from, nil); ok && !next.After(from) {
				t.Errorf("%q: %s", c, next)
			}
		}
		if table, err := ParseTimetable(text, testRate); err == nil {
			if again, err := ParseTimetable(table.String(), testRate); err != nil || again.String() != table.String() {
				t.Errorf("%q reads as %q, %v", table, again, err)
			}
		}
	})
}

// TestCalendars checks that shared calendars are added to a rule, and that
// Check refuses a rule that is too long.
func TestCalendars(t *testing.T) {
	dates, err := ParseDates("2026-12-24..2026-12-26, 01-01")
	if err != nil {
		t.Fatal(err)
	}
	r := mustRule(t, "20:00-06:00; freeze 05-01").With(nil, dates)
	if got := r.String(); got != "20:00-06:00; freeze 05-01 2026-12-24..2026-12-26 01-01" || r.Check(Place{}) != nil {
		t.Error(got)
	}
	var many Dates
	for range 2000 {
		many = append(many, dates...)
	}
	if err := r.With(many, nil).Check(Place{}); err == nil || !strings.Contains(err.Error(), "at most 16384") {
		t.Error(err)
	}
}

// in formats windows by the wall clock.
func in(list []Window) []string {
	var out []string
	for _, w := range list {
		out = append(out, w.Start.Format("Mon 02 15:04")+w.End.Format(" - Mon 02 15:04"))
	}
	return out
}

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		name, rule, zone string
		from             Date
		days             int
		want             []string
	}{
		{"weekends join the night before", "mon-fri 20:00-06:00, sat-sun all", "Europe/Berlin", Date{2026, 6, 4}, 5,
			[]string{"Wed 03 20:00 - Thu 04 06:00", "Thu 04 20:00 - Fri 05 06:00", "Fri 05 20:00 - Mon 08 00:00", "Mon 08 20:00 - Tue 09 06:00"}},
		{"several a day", "12:00-13:00 20:00-22:00", "UTC", Date{2026, 6, 4}, 2,
			[]string{"Thu 04 12:00 - Thu 04 13:00", "Thu 04 20:00 - Thu 04 22:00", "Fri 05 12:00 - Fri 05 13:00", "Fri 05 20:00 - Fri 05 22:00"}},
		{"always has ends", "all", "UTC", Date{2026, 6, 4}, 5,
			[]string{"Mon 01 00:00 - Mon 08 00:00", "Mon 08 00:00 - Mon 15 00:00"}},
		{"a freeze closes what is open, and nothing of its last evening opens", "20:00-06:00; freeze 2026-12-24..2026-12-25", "Europe/Berlin", Date{2026, 12, 23}, 5,
			[]string{"Tue 22 20:00 - Wed 23 06:00", "Wed 23 20:00 - Thu 24 00:00", "Sat 26 20:00 - Sun 27 06:00", "Sun 27 20:00 - Mon 28 06:00"}},
		{"a yearly freeze over the new year", "02:00-03:00; freeze 12-30..01-02", "UTC", Date{2026, 12, 29}, 6,
			[]string{"Tue 29 02:00 - Tue 29 03:00", "Sun 03 02:00 - Sun 03 03:00"}},
		{"a freeze cuts always, and what is left is whole", "all; freeze 2026-06-05", "UTC", Date{2026, 6, 4}, 3,
			[]string{"Mon 01 00:00 - Fri 05 00:00", "Sat 06 00:00 - Mon 08 00:00"}},
		{"a holiday is no weekday", "mon-fri 20:00-22:00, holiday all; holidays 06-04", "UTC", Date{2026, 6, 3}, 3,
			[]string{"Wed 03 20:00 - Wed 03 22:00", "Thu 04 00:00 - Fri 05 00:00", "Fri 05 20:00 - Fri 05 22:00"}},
		{"a holiday that no clause names is a day like any", "mon-fri 20:00-22:00; holidays 06-04", "UTC", Date{2026, 6, 4}, 1,
			[]string{"Thu 04 20:00 - Thu 04 22:00"}},
		{"the day that was not: one night", "20:00-06:00, fri 10:00-12:00", "Pacific/Apia", Date{2011, 12, 29}, 2,
			[]string{"Wed 28 20:00 - Thu 29 06:00", "Thu 29 20:00 - Sat 31 06:00"}},
		{"the last hour of Saturday is not", "sat 23:10-23:40", "America/Nuuk", Date{2026, 3, 28}, 2, []string{"Sun 29 00:00 - Sun 29 00:30"}},
		{"dark without coordinates", "dark", "UTC", Date{2026, 6, 4}, 5, nil},
		{"never", "never", "UTC", Date{2026, 6, 4}, 5, nil},
	} {
		zone := zoneOf(t, c.zone)
		got := Between(wallTime(c.from, 0, zone), wallTime(c.from.addDays(c.days), 0, zone), Place{Zone: zone}, mustRule(t, c.rule))
		if d := cmp.Diff(c.want, in(got)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestNext(t *testing.T) {
	zone := zoneOf(t, "Europe/Berlin")
	now := wallTime(Date{2026, 6, 4}, 21*60, zone)
	for _, c := range []struct{ rule, want string }{
		{"20:00-06:00", "2026-06-05 20:00"},
		{"21:00-06:00", "2026-06-05 21:00"}, // it started now, not after now
		{"all", "2026-06-08 00:00"},
		{"20:00-06:00; freeze 2026-06-05..2027-06-30", "2027-07-01 20:00"},
		{"holiday 01:00-02:00; holidays 02-29", "2028-02-29 01:00"},
		{"20:00-06:00; freeze 01-01..12-31", ""},
		{"never", ""},
	} {
		w, ok := Next(now, Place{Zone: zone}, mustRule(t, c.rule))
		got := ""
		if ok {
			got = w.Start.Format("2006-01-02 15:04")
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.rule, got, c.want)
		}
	}
}

func genRule(t *rapid.T) Rule {
	times := rapid.OneOf(
		rapid.Just("all"), rapid.Just("dark"), rapid.Just("dark 6h..8h"),
		rapid.Custom(func(t *rapid.T) string {
			s := span{from: rapid.IntRange(0, 1439).Draw(t, "from")}
			s.to = s.from + rapid.IntRange(1, 1439).Draw(t, "minutes")
			return s.String()
		}))
	days := rapid.SampledFrom([]string{"", "mon-fri ", "sat-sun ", "sun ", "fri-mon ", "holiday ", "tue thu "})
	var parts []string
	for range rapid.IntRange(1, 3).Draw(t, "clauses") {
		parts = append(parts, days.Draw(t, "days")+times.Draw(t, "times"))
	}
	text := strings.Join(parts, ", ") + rapid.SampledFrom([]string{"", "; holidays 03-27 10-26", "; freeze 03-28..04-01 2026-11-02", "; freeze 10-25"}).Draw(t, "calendar")
	r, err := ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func genPlace(t *rapid.T) Place {
	p := rapid.SampledFrom([]struct {
		zone      string
		lat, long float64
	}{{"Europe/Berlin", 52.5, 13.4}, {"America/New_York", 40.7, -74}, {"Australia/Lord_Howe", -31.5, 159.1}, {"Pacific/Kiritimati", 1.9, -157.4},
		{"Asia/Kathmandu", 27.7, 85.3}, {"America/Nuuk", 64.2, -51.7}, {"Arctic/Longyearbyen", 78.2, 15.6}, {"Pacific/Chatham", -44, -176.5}}).Draw(t, "place")
	zone, err := time.LoadLocation(p.zone)
	if err != nil {
		t.Fatal(err)
	}
	return Place{zone, &p.lat, &p.long}
}

// TestViewsAgree checks that Open, Next and Between return the same windows
// for a moment, a week and a year, and that windows do not touch.
func TestViewsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, at := genRule(t), genPlace(t)
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		year := Between(start, start.AddDate(1, 0, 0), at, r)
		for i, w := range year {
			if !w.Start.Before(w.End) || w.Length() > maxStretch+time.Hour {
				t.Fatalf("%s: %v", r, w)
			}
			if i > 0 && !year[i-1].End.Before(w.Start) && (w.Start.Weekday() != time.Monday || !year[i-1].End.Equal(w.Start)) {
				t.Fatalf("%s: %v touches %v", r, year[i-1], w)
			}
		}
		if again, err := ParseRule(r.String()); err != nil || again.String() != r.String() {
			t.Fatalf("%q reads as %q, %v", r, again, err)
		}
		moment := start.Add(time.Duration(rapid.IntRange(5*1440, 350*1440).Draw(t, "minute")) * time.Minute)
		span := time.Duration(rapid.IntRange(1, 10*1440).Draw(t, "span")) * time.Minute
		var want []Window
		var next Window
		for _, w := range year {
			if w.End.After(moment) && w.Start.Before(moment.Add(span)) {
				want = append(want, w)
			}
			if next.Start.IsZero() && w.Start.After(moment) {
				next = w
			}
		}
		if d := cmp.Diff(in(want), in(Between(moment, moment.Add(span), at, r))); d != "" {
			t.Fatalf("%s from %s for %s: %s", r, moment, span, d)
		}
		now, ok := Open(moment, at, r)
		if isOpen := len(want) > 0 && want[0].Contains(moment); ok != isOpen || ok && now != want[0] {
			t.Fatalf("%s at %s: open %v %v, the year has %v", r, moment, ok, now, want)
		}
		if got, _ := Next(moment, at, r); !next.Start.IsZero() && !got.Start.Equal(next.Start) {
			t.Fatalf("%s at %s: next %v, the year has %v", r, moment, got, next)
		}
	})
}
