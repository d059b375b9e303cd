package window

import (
	"fmt"
	"math"
	"time"
)

// dusk is the altitude of the sun's centre at which a night starts and ends:
// civil twilight, in degrees.
const dusk = -6

const degree = math.Pi / 180

// sunPosition returns the sun's declination in degrees, and the equation of time in
// minutes, at t. The formulas are those of NOAA's solar calculator
// (https://gml.noaa.gov/grad/solcalc/calcdetails.html), after Jean Meeus,
// Astronomical Algorithms: good to a minute of time between 72° north and
// south until the year 2100, and to ten beyond.
func sunPosition(t time.Time) (declination, equation float64) {
	// Julian centuries since 2000-01-01 12:00. The minute between UTC and
	// dynamical time does not matter here.
	c := (float64(t.Unix())/86400 + 2440587.5 - 2451545) / 36525
	long := math.Mod(280.46646+c*(36000.76983+c*0.0003032), 360) * degree
	anomaly := (357.52911 + c*(35999.05029-0.0001537*c)) * degree
	eccentricity := 0.016708634 - c*(0.000042037+0.0000001267*c)
	center := math.Sin(anomaly)*(1.914602-c*(0.004817+0.000014*c)) +
		math.Sin(2*anomaly)*(0.019993-0.000101*c) + math.Sin(3*anomaly)*0.000289
	node := (125.04 - 1934.136*c) * degree
	apparent := long + (center-0.00569-0.00478*math.Sin(node))*degree
	obliquity := (23 + (26+(21.448-c*(46.815+c*(0.00059-c*0.001813)))/60)/60 + 0.00256*math.Cos(node)) * degree
	declination = math.Asin(math.Sin(obliquity)*math.Sin(apparent)) / degree
	y := math.Tan(obliquity / 2)
	y *= y
	equation = 4 / degree * (y*math.Sin(2*long) - 2*eccentricity*math.Sin(anomaly) +
		4*eccentricity*y*math.Sin(anomaly)*math.Cos(2*long) -
		y*y*math.Sin(4*long)/2 - 1.25*eccentricity*eccentricity*math.Sin(2*anomaly))
	return declination, equation
}

// nightWindow returns the night whose middle, the sun's lowest point, is nearest to
// midnight, in whole minutes. A night shorter than least or longer than most,
// near the poles, is adjusted about its middle, so that it is never empty and
// never endless.
func nightWindow(midnight time.Time, latitude, longitude float64, least, most time.Duration) Window {
	zone := midnight.Location()
	middle := midnight
	for range 2 { // the equation of time moves by half a minute a day: twice is enough
		_, eq := sunPosition(middle)
		utc := middle.UTC()
		lowest := -4*longitude - eq // minutes after 00:00 UTC
		is := float64(utc.Hour()*60+utc.Minute()) + float64(utc.Second())/60
		middle = middle.Add(minutesOf(math.Remainder(lowest-is, 1440)))
	}
	// The declination changes as well, so compute each end with its own
	// value.
	before, after := halfNight(middle, latitude), halfNight(middle, latitude)
	before, after = halfNight(middle.Add(-before), latitude), halfNight(middle.Add(after), latitude)
	switch length := before + after; {
	case length < least:
		before, after = least/2, least/2
	case length > most:
		before, after = most/2, most/2
	}
	return Window{middle.Add(-before).Round(time.Minute).In(zone), middle.Add(after).Round(time.Minute).In(zone)}
}

// halfNight returns the time from the middle of a night to its end, from 0 to 12
// hours, as if the sun kept its declination of t.
func halfNight(t time.Time, latitude float64) time.Duration {
	dec, _ := sunPosition(t)
	latitude = max(-89.9, min(89.9, latitude)) // at a pole itself there is no hour of the day
	cos := (math.Sin(dusk*degree) - math.Sin(latitude*degree)*math.Sin(dec*degree)) /
		(math.Cos(latitude*degree) * math.Cos(dec*degree))
	light := math.Acos(max(-1, min(1, cos))) / degree // half of the day, as an angle
	return minutesOf(4 * (180 - light))
}

func minutesOf(m float64) time.Duration { return time.Duration(m * float64(time.Minute)) }

// checkCoordinates refuses invalid coordinates, and those half a world away from the
// zone: there, dark would be at noon.
func (p Place) checkCoordinates() error {
	lat, long := *p.Latitude, *p.Longitude
	if !(lat >= -90 && lat <= 90) || !(long >= -180 && long <= 180) {
		return fmt.Errorf("coordinates %g, %g: want a latitude from -90 to 90 and a longitude from -180 to 180", lat, long)
	}
	_, offset := time.Date(2026, 1, 15, 12, 0, 0, 0, p.timeZone()).Zone()
	if off := math.Remainder(float64(offset)/3600-long/15, 24); math.Abs(off) > 6 {
		return fmt.Errorf("coordinates %g, %g: the sun there is %.0f hours from the clocks of %s: correct the coordinates or the zone",
			lat, long, math.Abs(off), p.timeZone())
	}
	return nil
}
