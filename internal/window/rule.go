package window

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// daySet is a set of weekdays by time.Weekday, and holidays.
type daySet uint8

const (
	holidayBit daySet = 1 << 7
	weekdays   daySet = 1<<7 - 1
	everyDay   daySet = weekdays | holidayBit
)

// Rule decides when a channel may transfer at a site. It is immutable. The
// zero Rule never opens.
type Rule struct {
	clauses  []clause
	holidays Dates
	freeze   Dates
	text     string // canonical
}

type clause struct {
	days  daySet
	spans []span
}

// span is a part of a day and the following night: minutes of the wall clock,
// or the dark.
type span struct {
	from, to int // minutes after 00:00; to is above from, and above 1440 past midnight
	dark     bool
	min, max time.Duration // of the dark
}

const (
	// DefaultDarkMin and DefaultDarkMax limit the length of a night if a rule
	// says just dark. So the light nights of summer still leave a window, and
	// the polar night still ends.
	DefaultDarkMin = 4 * time.Hour
	DefaultDarkMax = 16 * time.Hour
	// A minimum of zero would mean never, a maximum of a day always.
	darkLowest  = 30 * time.Minute
	darkHighest = 23 * time.Hour
	// maxRule bounds a rule's text in bytes, because rules are sent to sites.
	maxRule = 16 << 10
)

// String returns the canonical text, which ParseRule reads. Two rules are
// equal if their texts are.
func (r Rule) String() string {
	if r.text == "" {
		return "never"
	}
	return r.text
}

// MarshalText is String.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRule.
func (r *Rule) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRule(string(b))
	return err
}

// With returns the rule with additional holidays and freezes, for calendars
// that several rules share. Check fails if there are too many.
func (r Rule) With(holidays, freeze Dates) Rule {
	r.holidays = slices.Concat(r.holidays, holidays)
	r.freeze = slices.Concat(r.freeze, freeze)
	r.text = r.formatCanonical()
	return r
}

// Dark reports whether the rule needs the site's coordinates.
func (r Rule) Dark() bool {
	for _, c := range r.clauses {
		for _, s := range c.spans {
			if s.dark {
				return true
			}
		}
	}
	return false
}

// Check returns an error if the rule cannot work at the place, or is too long
// to be sent there.
func (r Rule) Check(at Place) error {
	if len(r.text) > maxRule {
		return fmt.Errorf("window %.40q…: %d bytes with its calendars: a rule holds at most %d: join days to ranges", r.text, len(r.text), maxRule)
	}
	if !r.Dark() {
		return nil
	}
	if at.Latitude == nil || at.Longitude == nil {
		return errors.New("window dark: the site has no coordinates: give its latitude and longitude, or write times")
	}
	return at.checkCoordinates()
}

func (r Rule) holidayClause() bool {
	for _, c := range r.clauses {
		if c.days&holidayBit != 0 && c.days != everyDay {
			return true
		}
	}
	return false
}

func (r Rule) formatCanonical() string {
	var parts []string
	for _, c := range r.clauses {
		parts = append(parts, c.String())
	}
	text := strings.Join(parts, ", ")
	if len(parts) == 0 {
		text = "never"
	}
	if len(r.holidays) > 0 {
		text += "; holidays " + r.holidays.String()
	}
	if len(r.freeze) > 0 {
		text += "; freeze " + r.freeze.String()
	}
	return text
}

func (c clause) String() string {
	var out []string
	if c.days != everyDay {
		out = append(out, c.days.String())
	}
	for _, s := range c.spans {
		out = append(out, s.String())
	}
	return strings.Join(out, " ")
}

// weekNames lists the days in the usual order, from Monday.
var weekNames = [7]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// dayBit returns the set that holds the i-th of weekNames.
func dayBit(i int) daySet { return 1 << ((i + 1) % 7) }

func (d daySet) String() string {
	var out []string
	for i := 0; i < 7; i++ {
		j := i
		for j < 7 && d&dayBit(j) != 0 {
			j++
		}
		switch {
		case j-i >= 2:
			out = append(out, weekNames[i]+"-"+weekNames[j-1])
			i = j
		case j-i == 1:
			out = append(out, weekNames[i])
		}
	}
	if d&holidayBit != 0 {
		out = append(out, "holiday")
	}
	return strings.Join(out, " ")
}

func (s span) String() string {
	switch {
	case s.dark && s.min == DefaultDarkMin && s.max == DefaultDarkMax:
		return "dark"
	case s.dark:
		return "dark " + formatHours(s.min) + ".." + formatHours(s.max)
	case s.from == 0 && s.to == 1440:
		return "all"
	}
	to := s.to
	if to > 1440 {
		to -= 1440
	}
	return formatClock(s.from) + "-" + formatClock(to)
}

func formatClock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

func formatHours(d time.Duration) string {
	h, m := d/time.Hour, d%time.Hour/time.Minute
	switch {
	case m == 0:
		return fmt.Sprintf("%dh", h)
	case h == 0:
		return fmt.Sprintf("%dm", m)
	}
	return fmt.Sprintf("%dh%dm", h, m)
}
