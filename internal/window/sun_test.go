package window

import (
	"math"
	"testing"
	"time"
)

// altitude returns the sun's altitude in degrees by the low-precision
// formulas of the US Naval Observatory
// (https://aa.usno.navy.mil/faq/sun_approx). They are accurate to an
// arcminute and independent of those under test.
func altitude(t time.Time, latitude, longitude float64) float64 {
	days := float64(t.Unix())/86400 + 2440587.5 - 2451545
	anomaly := (357.529 + 0.98560028*days) * degree
	mean := 280.459 + 0.98564736*days
	long := (mean + 1.915*math.Sin(anomaly) + 0.020*math.Sin(2*anomaly)) * degree
	tilt := (23.439 - 0.00000036*days) * degree
	ascension := math.Atan2(math.Cos(tilt)*math.Sin(long), math.Cos(long))
	declination := math.Asin(math.Sin(tilt) * math.Sin(long))
	sidereal := (280.46062 + 360.985647*days) * degree
	hour := sidereal + longitude*degree - ascension
	return math.Asin(math.Sin(latitude*degree)*math.Sin(declination)+math.Cos(latitude*degree)*math.Cos(declination)*math.Cos(hour)) / degree
}

// TestDarkIsDark checks the nights of a year at places of all latitudes with
// an independent formula for the sun.
func TestDarkIsDark(t *testing.T) {
	caps := [2]time.Duration{DefaultDarkMin, DefaultDarkMax}
	for _, c := range []struct {
		zone      string
		lat, long float64
	}{
		{"Europe/London", 51.5, -0.12}, {"Europe/Stockholm", 59.33, 18.07}, {"Europe/Oslo", 69.65, 18.96}, {"Arctic/Longyearbyen", 78.22, 15.65},
		{"Africa/Nairobi", -1.29, 36.82}, {"Asia/Urumqi", 43.8, 87.6}, {"Asia/Shanghai", 39.47, 75.99}, {"Pacific/Kiritimati", 1.87, -157.4},
		{"Pacific/Apia", -13.83, -171.76}, {"Pacific/Auckland", -36.85, 174.76}, {"America/Anchorage", 61.22, -149.9}, {"America/Punta_Arenas", -53.16, -70.9},
		{"Antarctica/McMurdo", -77.85, 166.67}, {"Antarctica/Troll", -90, 0}, {"UTC", 90, 0}, {"America/St_Johns", 47.56, -52.71},
	} {
		zone := zoneOf(t, c.zone)
		at := Place{zone, &c.lat, &c.long}
		rule := mustRule(t, "dark")
		if err := rule.Check(at); err != nil {
			t.Error(err)
		}
		from := wallTime(Date{2026, 1, 1}, 720, zone)
		nights := Between(from, from.AddDate(1, 0, 0), at, rule)
		if len(nights) != 365 {
			t.Errorf("%s: %d nights", c.zone, len(nights))
		}
		exact := 0
		for i, w := range nights {
			n := w.Length()
			if n < caps[0]-time.Minute || n > caps[1]+time.Minute {
				t.Errorf("%s %s: a night of %s", c.zone, w.Start, n)
			}
			if i > 0 && !w.Start.After(nights[i-1].End) {
				t.Errorf("%s %s: begins before the last one ends", c.zone, w.Start)
			}
			middle := w.Start.Add(n / 2)
			if math.Abs(c.lat) < 89 && altitude(middle, c.lat, c.long) > altitude(middle.Add(12*time.Hour), c.lat, c.long) {
				t.Errorf("%s %s: the middle of the night is day", c.zone, w.Start)
			}
			if n <= caps[0]+time.Minute || n >= caps[1]-time.Minute {
				continue
			}
			exact++
			// The sun climbs by at most a quarter of a degree a minute, and
			// less if its path is slanted. Rounding accounts for half a
			// minute, the formula for the rest. If the sun grazes the
			// horizon, compare degrees, not minutes.
			near := 0.125*math.Cos(c.lat*degree) + 0.03
			for _, e := range []time.Time{w.Start, w.End} {
				if a := altitude(e, c.lat, c.long); math.Abs(c.lat) < 89 && math.Abs(a-dusk) > near {
					t.Errorf("%s %s: the sun stands at %.3f degrees", c.zone, e, a)
				}
			}
			if a := altitude(middle, c.lat, c.long); math.Abs(c.lat) < 89 && a > dusk {
				t.Errorf("%s %s: light at midnight, %.2f", c.zone, w.Start, a)
			}
		}
		if exact < 365 && math.Abs(c.lat) < 50 {
			t.Errorf("%s: only %d nights are as the sun has them", c.zone, exact)
		}
	}
}

// TestDarkAsPublished compares with an example published by the astral
// project: London on 2009-04-22, civil dawn and dusk in UTC. Programs differ
// by half a minute, and ours rounds to whole minutes.
func TestDarkAsPublished(t *testing.T) {
	lat, long := 51.5, -0.116
	at := Place{time.UTC, &lat, &long}
	day := func(hour, minute, second int) time.Time {
		return time.Date(2009, 4, 22, hour, minute, second, 0, time.UTC)
	}
	before, ok := Open(day(2, 0, 0), at, mustRule(t, "dark"))
	if want := day(4, 13, 4); !ok || before.End.Sub(want).Abs() > time.Minute {
		t.Errorf("dawn at %s, want %s", before.End, want)
	}
	after, ok := Next(day(12, 0, 0), at, mustRule(t, "dark"))
	if want := day(19, 46, 6); !ok || after.Start.Sub(want).Abs() > time.Minute {
		t.Errorf("dusk at %s, want %s", after.Start, want)
	}
}

func TestDarkNeedsTruePlaces(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	berlin := zoneOf(t, "Europe/Berlin")
	for _, at := range []Place{
		{Zone: berlin},
		{berlin, f(52.5), nil},
		{berlin, f(91), f(13)},
		{berlin, f(math.NaN()), f(13)},
		{berlin, f(52.5), f(181)},
		{berlin, f(-36.8), f(174.8)}, // Auckland
		{zoneOf(t, "America/Los_Angeles"), f(37.8), f(122.4)},
	} {
		if err := mustRule(t, "mon-fri dark").Check(at); err == nil {
			t.Errorf("%v, %v is taken for a place in %s", at.Latitude, at.Longitude, at.Zone)
		}
		if err := mustRule(t, "20:00-06:00").Check(at); err != nil {
			t.Errorf("times need no coordinates: %v", err)
		}
	}
}
