package window

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Date is a calendar day without a zone.
type Date struct {
	Year  int // 0: every year, in a DateRange
	Month time.Month
	Day   int
}

func dateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

func (d Date) utcMidnight() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

func (d Date) addDays(days int) Date { return dateOf(d.utcMidnight().AddDate(0, 0, days)) }

func (d Date) weekday() time.Weekday { return d.utcMidnight().Weekday() }

func (d Date) before(o Date) bool {
	if d.Year != o.Year {
		return d.Year < o.Year
	}
	return d.Month < o.Month || d.Month == o.Month && d.Day < o.Day
}

// String returns 2026-12-24, or 12-24 for a day of every year.
func (d Date) String() string {
	if d.Year == 0 {
		return fmt.Sprintf("%02d-%02d", int(d.Month), d.Day)
	}
	return fmt.Sprintf("%04d-%02d-%02d", d.Year, int(d.Month), d.Day)
}

// wallTime returns the first instant at which a clock in zone shows minute of day
// d (0 to 2880) or has passed it.
func wallTime(d Date, minute int, zone *time.Location) time.Time {
	t, _ := wallSkip(d, minute, zone)
	return t
}

// wallSkip is wall, and also returns how much time the clock skipped if it
// never showed that minute. time.Date is not enough: for skipped and doubled
// hours its result is unspecified.
func wallSkip(d Date, minute int, zone *time.Location) (time.Time, time.Duration) {
	t := time.Date(d.Year, d.Month, d.Day, 0, minute, 0, 0, zone)
	start, end := t.ZoneBounds()
	// No zone ever moved its clocks by more than 24 hours.
	const far = 25 * time.Hour
	if (start.IsZero() || t.Sub(start) > far) && (end.IsZero() || end.Sub(t) > far) {
		return t, 0
	}
	want := time.Date(d.Year, d.Month, d.Day, 0, minute, 0, 0, time.UTC).Unix()
	shown := func(t time.Time) int64 { _, off := t.Zone(); return t.Unix() + int64(off) }
	switch got := shown(t); {
	case got > want: // skipped, and t is after the change
		return start, clockShift(start)
	case got < want: // skipped, and t is before the change
		return end, clockShift(end)
	}
	if !start.IsZero() {
		if early := t.Add(-doubledTime(start)); doubledTime(start) > 0 && early.Before(start) {
			return early, 0
		}
	}
	return t, 0
}

// clockShift returns how far the clocks move forward at a change; it is negative if
// they move back.
func clockShift(change time.Time) time.Duration {
	_, before := change.Add(-time.Second).Zone()
	_, after := change.Zone()
	return time.Duration(after-before) * time.Second
}

func doubledTime(change time.Time) time.Duration { return -clockShift(change) }

// DateRange is a range of days that includes both ends. Without years it
// applies to every year, and may span the New Year.
type DateRange struct {
	From, To Date
}

// Contains reports whether d is in the range.
func (r DateRange) Contains(d Date) bool {
	if r.From.Year != 0 {
		return !d.before(r.From) && !r.To.before(d)
	}
	d.Year = 0
	if r.To.before(r.From) {
		return !d.before(r.From) || !r.To.before(d)
	}
	return !d.before(r.From) && !r.To.before(d)
}

// String returns 2026-12-24..2027-01-02, or a single day.
func (r DateRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + ".." + r.To.String()
}

// Dates is a calendar of holidays or freezes.
type Dates []DateRange

// Contains reports whether d is one of the days.
func (l Dates) Contains(d Date) bool {
	for _, r := range l {
		if r.Contains(d) {
			return true
		}
	}
	return false
}

// String returns the ranges separated by spaces, as ParseDates reads them.
func (l Dates) String() string {
	words := make([]string, len(l))
	for i, r := range l {
		words[i] = r.String()
	}
	return strings.Join(words, " ")
}

// MarshalText is String.
func (l Dates) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseDates.
func (l *Dates) UnmarshalText(b []byte) (err error) {
	*l, err = ParseDates(string(b))
	return err
}

// maxDates bounds a calendar, because rules are sent to sites.
const maxDates = 400

// ParseDates reads days and ranges of days, separated by spaces or commas:
// 2026-12-24..2027-01-02, or 12-25 and 12-24..01-02 for every year.
func ParseDates(text string) (Dates, error) { return parseDates(splitWords(text, 0, ", \t\n")) }

func parseDates(list []word) (Dates, error) {
	if len(list) > maxDates {
		return nil, list[maxDates].badWord("a calendar holds at most %d entries: join days to ranges", maxDates)
	}
	var out Dates
	for _, w := range list {
		from, to, isRange := strings.Cut(w.text, "..")
		var r DateRange
		var ok, ok2 bool
		if r.From, ok = parseDate(from); !ok {
			return nil, w.badWord("want a date such as 2026-12-24, or 12-24 for every year, or two with .. between them")
		}
		r.To = r.From
		if isRange {
			if r.To, ok2 = parseDate(to); !ok2 {
				return nil, w.badWord("want a date such as 2027-01-02 behind the two dots")
			}
			if (r.From.Year == 0) != (r.To.Year == 0) {
				return nil, w.badWord("one end has a year and the other has none: give both or neither")
			}
			if r.From.Year != 0 && r.To.before(r.From) {
				return nil, w.badWord("it ends before it begins: swap the dates")
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func parseDate(text string) (Date, bool) {
	var n []int
	for _, p := range strings.Split(text, "-") {
		v, err := strconv.ParseUint(p, 10, 16)
		if year := len(n) == 0 && len(p) == 4; err != nil || !year && len(p) != 2 {
			return Date{}, false
		}
		n = append(n, int(v))
	}
	var d Date
	switch {
	case len(n) == 3 && n[0] >= 1970:
		d = Date{n[0], time.Month(n[1]), n[2]}
		return d, d == dateOf(d.utcMidnight())
	case len(n) == 2 && strings.IndexByte(text, '-') == 2:
		d = Date{2024, time.Month(n[0]), n[1]} // a leap year: 02-29 is a day
		ok := d == dateOf(d.utcMidnight())
		d.Year = 0
		return d, ok
	}
	return Date{}, false
}
