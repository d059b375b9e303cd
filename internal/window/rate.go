package window

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Unlimited is the rate without a limit. It is the highest number, so that
// the smaller of two rates applies.
const Unlimited int64 = math.MaxInt64

// Timetable limits a site's rate by its own wall clock. It is immutable. The
// zero Timetable never limits.
type Timetable struct {
	entries   []entry
	otherwise limit
	text      string // canonical
}

type entry struct {
	clause
	limit
}

type limit struct {
	bytes int64 // per second; 0 stops
	text  string
}

// ParseTimetable reads entries separated by semicolons. The first that applies
// wins:
//
//	06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited
//	mon-fri 06:00-20:00 2Mbit
//
// Days and times are those of a Rule, except holiday and dark. A rate is 0
// (stop), unlimited, or a text for parseRate, which returns bytes per second.
// Without else, the rest is unlimited.
func ParseTimetable(text string, parseRate func(string) (int64, error)) (Timetable, error) {
	t, err := parseTimetable(text, parseRate)
	if err != nil {
		return Timetable{}, fmt.Errorf("rate timetable %q: %w", text, err)
	}
	return t, nil
}

func parseTimetable(text string, parseRate func(string) (int64, error)) (Timetable, error) {
	t := Timetable{otherwise: limit{Unlimited, "unlimited"}}
	if len(text) > maxRule {
		return t, fmt.Errorf("%d bytes: it holds at most %d", len(text), maxRule)
	}
	parts := splitPieces(text, 0, ";")
	for i, p := range parts {
		list := splitWords(p.text, p.column-1, blank)
		if len(list) < 2 {
			return t, word{strings.TrimSpace(p.text), p.column}.badWord("want times and a rate, such as 20:00-22:00 20Mbit, or else and a rate")
		}
		last := list[len(list)-1]
		l, err := parseLimit(last, parseRate)
		if err != nil {
			return t, err
		}
		list = list[:len(list)-1]
		if strings.ToLower(list[0].text) == "else" {
			if len(list) > 1 || i < len(parts)-1 {
				return t, list[0].badWord("it stands last, and has only a rate behind it")
			}
			t.otherwise = l
			continue
		}
		c, rest, err := parseDays(list)
		if err != nil {
			return t, err
		}
		if c.days&holidayBit != 0 && c.days != everyDay {
			return t, list[0].badWord("a timetable has no holidays: name weekdays")
		}
		if len(rest) == 0 {
			return t, last.badWord("no times before the rate: write all for the whole day")
		}
		for len(rest) > 0 {
			var s span
			if s, rest, err = parseSpan(rest); err != nil {
				return t, err
			}
			if s.dark {
				return t, list[0].badWord("a timetable has no dark: write times")
			}
			c.spans = append(c.spans, s)
		}
		t.entries = append(t.entries, entry{c, l})
	}
	var out []string
	for _, e := range t.entries {
		out = append(out, e.String()+" "+e.text)
	}
	t.text = strings.Join(append(out, "else "+t.otherwise.text), "; ")
	return t, nil
}

func parseLimit(w word, parseRate func(string) (int64, error)) (limit, error) {
	switch strings.ToLower(w.text) {
	case "0":
		return limit{0, "0"}, nil
	case "unlimited":
		return limit{Unlimited, "unlimited"}, nil
	}
	n, err := parseRate(w.text)
	if err == nil && n <= 0 {
		err = errors.New("want more than 0")
	}
	if err != nil {
		return limit{}, w.badWord("no rate (a rate, 0 or unlimited ends each entry): %w", err)
	}
	return limit{n, w.text}, nil
}

// String returns the canonical text, which ParseTimetable reads.
func (t Timetable) String() string {
	if t.text == "" {
		return "else unlimited"
	}
	return t.text
}

// MarshalText is String.
func (t Timetable) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Rate returns the bytes per second allowed at now (0: stop, or Unlimited),
// and the time until which that applies; zero if it never changes.
func (t Timetable) Rate(now time.Time, zone *time.Location) (bytesPerSecond int64, until time.Time) {
	if len(t.entries) == 0 {
		return t.defaultRate(), time.Time{}
	}
	at := Place{Zone: zone}
	today := dateOf(now.In(at.timeZone()))
	// A timetable repeats weekly, so a rate that does not change within the
	// next eight days never does. Usually it changes today.
	for _, days := range []int{1, 9} {
		spans := make([][]Window, len(t.entries))
		var edges []time.Time
		for i, e := range t.entries {
			r := Rule{clauses: []clause{e.clause}}
			for d := today.addDays(-2); !today.addDays(days).before(d); d = d.addDays(1) {
				spans[i] = r.appendDay(spans[i], d, at)
			}
			for _, w := range spans[i] {
				edges = append(edges, w.Start, w.End)
			}
		}
		slices.SortFunc(edges, time.Time.Compare)
		rate := t.rateDuring(now, spans)
		seen := wallTime(today.addDays(days), 0, at.timeZone())
		for _, e := range edges {
			if e.After(now) && e.Before(seen) && t.rateDuring(e, spans) != rate {
				return rate, e
			}
		}
		if days == 9 {
			return rate, time.Time{}
		}
	}
	panic("unreachable")
}

// defaultRate returns the rate if no entry applies.
func (t *Timetable) defaultRate() int64 {
	if t.text == "" {
		return Unlimited
	}
	return t.otherwise.bytes
}

func (t *Timetable) rateDuring(now time.Time, spans [][]Window) int64 {
	for i, e := range t.entries {
		for _, w := range spans[i] {
			if w.Contains(now) {
				return e.bytes
			}
		}
	}
	return t.defaultRate()
}

// Step is a period with one rate.
type Step struct {
	From  time.Time // up to the next step's
	Bytes int64     // per second; 0: stop, or Unlimited
}

// Steps returns the rates between from and to, excluding to, in order. The
// first step starts at from.
func (t Timetable) Steps(from, to time.Time, zone *time.Location) []Step {
	var out []Step
	for at := from; at.Before(to); {
		rate, until := t.Rate(at, zone)
		out = append(out, Step{at, rate})
		if until.IsZero() {
			break
		}
		at = until
	}
	return out
}
