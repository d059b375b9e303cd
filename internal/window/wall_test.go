package window

import (
	"testing"
	"time"
)

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// changes lists zones with clock changes that programs often get wrong, each
// with a day near the change.
var changes = []struct {
	zone string
	near Date
}{
	{"Europe/Berlin", Date{2026, 3, 29}}, {"Europe/Berlin", Date{2026, 10, 25}},
	{"America/New_York", Date{2026, 3, 8}}, {"America/New_York", Date{2026, 11, 1}},
	{"Australia/Lord_Howe", Date{2026, 4, 5}}, {"Australia/Lord_Howe", Date{2026, 10, 4}}, // by half an hour
	{"Antarctica/Troll", Date{2026, 3, 29}}, {"Antarctica/Troll", Date{2026, 10, 25}}, // by two hours
	{"America/Nuuk", Date{2026, 3, 28}}, {"America/Nuuk", Date{2026, 10, 24}}, // the last hour of a day
	{"America/Havana", Date{2026, 3, 8}}, {"America/Havana", Date{2026, 11, 1}}, // midnight itself
	{"Africa/Cairo", Date{2026, 4, 24}}, {"Africa/Cairo", Date{2026, 10, 29}},
	{"Asia/Beirut", Date{2026, 3, 29}}, {"Africa/Casablanca", Date{2026, 2, 15}}, {"Africa/Casablanca", Date{2026, 3, 22}},
	{"Pacific/Chatham", Date{2026, 4, 5}}, {"Pacific/Chatham", Date{2026, 9, 27}}, // 12:45
	{"Pacific/Apia", Date{2011, 12, 30}},                                        // a skipped day
	{"Pacific/Kiritimati", Date{1994, 12, 31}},                                  // another skipped day
	{"Pacific/Kwajalein", Date{1993, 8, 21}},                                    // and one in the zone database
	{"America/Juneau", Date{1867, 10, 18}}, {"Asia/Manila", Date{1844, 12, 31}}, // long ago: one day twice, and one skipped
	{"Europe/Istanbul", Date{2016, 9, 7}}, {"America/Caracas", Date{2016, 5, 1}}, {"Asia/Pyongyang", Date{2015, 8, 15}},
	{"Asia/Pyongyang", Date{2018, 5, 5}}, {"Europe/Moscow", Date{2014, 10, 26}}, {"Asia/Kathmandu", Date{1986, 1, 1}},
	{"America/Mexico_City", Date{2022, 10, 30}}, {"Europe/Kyiv", Date{2026, 10, 25}}, {"Asia/Gaza", Date{2026, 3, 28}},
}

// TestWallIsTheFirstTimeThatTheClockShows steps through the days around each
// change minute by minute, and looks only at the clock.
func TestWallIsTheFirstTimeThatTheClockShows(t *testing.T) {
	for _, c := range changes {
		zone := zoneOf(t, c.zone)
		first := c.near.addDays(-2)
		at := first.utcMidnight().Add(-26 * time.Hour).Truncate(time.Hour)
		// Old zones have offsets with seconds: use steps that miss no change.
		step := time.Minute
		if c.near.Year < 1900 {
			step = time.Second
		}
		shown := func() int64 { _, off := at.In(zone).Zone(); return at.Unix() + int64(off) }
		for minute := 0; minute < 5*1440; minute++ {
			d := first.addDays(minute / 1440)
			want := d.utcMidnight().Unix() + int64(minute%1440)*60
			for shown() < want {
				at = at.Add(step)
			}
			if got := wallTime(d, minute%1440, zone); !got.Equal(at) {
				t.Fatalf("%s %s %s: %s, want %s", c.zone, d, formatClock(minute%1440), got, at.In(zone))
			}
			if got := wallTime(d.addDays(-1), minute%1440+1440, zone); !got.Equal(at) {
				t.Fatalf("%s %s %s of the day before: %s, want %s", c.zone, d, formatClock(minute%1440), got, at.In(zone))
			}
		}
	}
}
