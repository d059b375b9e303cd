package window

import (
	"fmt"
	"strings"
	"time"
)

// word is a piece of a rule's text and its column, from 1, in bytes.
type word struct {
	text   string
	column int
}

func (w word) badWord(format string, args ...any) error {
	if w.text == "" {
		return fmt.Errorf("column %d: %w", w.column, fmt.Errorf(format, args...))
	}
	return fmt.Errorf("column %d, %q: %w", w.column, w.text, fmt.Errorf(format, args...))
}

// splitWords splits text, which starts at a column offset, at any of the
// separators.
func splitWords(text string, offset int, separators string) []word {
	var out []word
	for i := 0; i < len(text); {
		if strings.IndexByte(separators, text[i]) >= 0 {
			i++
			continue
		}
		n := strings.IndexAny(text[i:], separators)
		if n < 0 {
			n = len(text) - i
		}
		out = append(out, word{text[i : i+n], offset + i + 1})
		i += n
	}
	return out
}

// splitPieces splits text at every separator, and keeps empty pieces.
func splitPieces(text string, offset int, separator string) []word {
	var out []word
	for {
		head, tail, more := strings.Cut(text, separator)
		out = append(out, word{head, offset + 1})
		if !more {
			return out
		}
		offset += len(head) + len(separator)
		text = tail
	}
}

const blank = " \t\n"

// ParseRule reads a rule:
//
//	mon-fri 20:00-06:00, sat-sun all
//	mon wed fri 12:00-13:00 20:00-06:00
//	dark
//	mon-fri dark 6h..12h, holiday all; holidays 12-25 2026-04-03; freeze 12-20..01-03
//	never
//
// Each clause names days and the times that start on them. Without days it
// applies to every day; holiday means the dates listed as holidays, which then
// count as no weekday. Times are HH:MM-HH:MM, all, or dark with the minimum and
// maximum length of a night. An error gives the column, the text found there
// and the allowed values.
func ParseRule(text string) (Rule, error) {
	if len(text) > maxRule {
		return Rule{}, fmt.Errorf("window: %d bytes: a rule holds at most %d", len(text), maxRule)
	}
	r, err := parseRule(text)
	if err != nil {
		return Rule{}, fmt.Errorf("window %q: %w", text, err)
	}
	r.text = r.formatCanonical()
	return r, nil
}

func parseRule(text string) (Rule, error) {
	var r Rule
	parts := splitPieces(text, 0, ";")
	if strings.TrimSpace(parts[0].text) != "never" {
		for _, p := range splitPieces(parts[0].text, 0, ",") {
			c, err := parseClause(p)
			if err != nil {
				return r, err
			}
			r.clauses = append(r.clauses, c)
		}
	}
	for _, p := range parts[1:] {
		list := splitWords(p.text, p.column-1, ", \t\n")
		if len(list) == 0 {
			return r, p.badWord("want holidays or freeze and dates behind the semicolon")
		}
		dates, err := parseDates(list[1:])
		if err != nil {
			return r, err
		}
		switch into := list[0]; {
		case into.text != "holidays" && into.text != "freeze":
			return r, into.badWord("want holidays or freeze behind a semicolon, and , between times")
		case len(dates) == 0:
			return r, into.badWord("want dates behind it, such as 2026-12-24..2027-01-02")
		case into.text == "holidays":
			r.holidays = append(r.holidays, dates...)
		default:
			r.freeze = append(r.freeze, dates...)
		}
	}
	return r, nil
}

const clauseForm = "want days (mon, mon-fri, holiday) and times (20:00-06:00, all, dark)"

func parseClause(p word) (clause, error) {
	c, rest, err := parseDays(splitWords(p.text, p.column-1, blank))
	if err != nil {
		return c, err
	}
	if len(rest) == 0 {
		return c, word{strings.TrimSpace(p.text), p.column}.badWord("no times: %s, and a space, not a comma, between days", clauseForm)
	}
	for len(rest) > 0 {
		var s span
		if s, rest, err = parseSpan(rest); err != nil {
			return c, err
		}
		c.spans = append(c.spans, s)
	}
	return c, nil
}

// parseDays reads the days at the start of a clause; without any, it means
// every day.
func parseDays(list []word) (c clause, rest []word, err error) {
	for len(list) > 0 {
		w := list[0]
		t := strings.ToLower(w.text)
		if t[0] < 'a' || t[0] > 'z' || t == "all" || t == "dark" || t == "never" || t == "else" {
			break
		}
		list = list[1:]
		if t == "holiday" {
			c.days |= holidayBit
			continue
		}
		from, to, isRange := strings.Cut(t, "-")
		a, b := dayIndex(from), dayIndex(to)
		if !isRange {
			b = a
		}
		if a < 0 || b < 0 {
			return c, nil, w.badWord("unknown day: use mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or holiday")
		}
		for i := a; ; i = (i + 1) % 7 {
			c.days |= dayBit(i)
			if i == b {
				break
			}
		}
	}
	if c.days == 0 {
		c.days = everyDay
	}
	return c, list, nil
}

func dayIndex(name string) int {
	for i, n := range weekNames {
		if n == name {
			return i
		}
	}
	return -1
}

func parseSpan(list []word) (s span, rest []word, err error) {
	w, rest := list[0], list[1:]
	switch strings.ToLower(w.text) {
	case "all":
		return span{to: 1440}, rest, nil
	case "never":
		return s, nil, w.badWord("never stands alone: leave the day out instead")
	case "dark":
		s = span{dark: true, min: DefaultDarkMin, max: DefaultDarkMax}
		if len(rest) == 0 || !strings.Contains(rest[0].text, "..") {
			return s, rest, nil
		}
		low, high, _ := strings.Cut(rest[0].text, "..")
		var err1, err2 error
		s.min, err1 = time.ParseDuration(low)
		s.max, err2 = time.ParseDuration(high)
		whole := s.min%time.Minute == 0 && s.max%time.Minute == 0
		if err1 != nil || err2 != nil || !whole || s.min < darkLowest || s.max > darkHighest || s.min > s.max {
			return s, nil, rest[0].badWord("want the least and the most that a night may be, such as 6h..12h, from %s to %s",
				formatHours(darkLowest), formatHours(darkHighest))
		}
		return s, rest[1:], nil
	}
	from, to, ok := strings.Cut(w.text, "-")
	var ok1, ok2 bool
	s.from, ok1 = parseClock(from)
	s.to, ok2 = parseClock(to)
	switch {
	case !ok || !ok1 || !ok2 || s.from == 1440:
		return s, nil, w.badWord("%s; a time is 00:00 to 23:59, and 24:00 as an end", clauseForm)
	case s.from == s.to:
		return s, nil, w.badWord("it ends when it begins: write all for the whole day")
	case s.to < s.from:
		s.to += 1440
	}
	return s, rest, nil
}

func parseClock(t string) (minute int, ok bool) {
	digit := func(i int) int { return int(t[i] - '0') }
	if len(t) != 5 || t[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if t[i] < '0' || t[i] > '9' {
			return 0, false
		}
	}
	h, m := 10*digit(0)+digit(1), 10*digit(3)+digit(4)
	return 60*h + m, m < 60 && (h < 24 || h == 24 && m == 0)
}
