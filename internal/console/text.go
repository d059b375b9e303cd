package console

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nightferry/internal/ledger"
)

// maxMarks bounds the combining marks of one letter: a name of thousands would cover the page.
const maxMarks = 3

// visible replaces in a whole page all characters that could deceive its reader: control characters, and marks that turn the direction
// of the text. Templates hold none of them, so that all come from names and texts of sites, files and people.
func visible(page []byte) []byte {
	marks := 0
	return []byte(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
			if marks++; marks > maxMarks {
				return -1
			}
			return r
		}
		marks = 0
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == 0x2028, r == 0x2029, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f:
			return unicode.ReplacementChar
		}
		return r
	}, string(page)))
}

// size writes bytes as people read them: 812 B, 1.2 KiB, 34 MiB.
func size(n int64) string {
	v, unit := float64(n), ""
	for _, u := range []string{" KiB", " MiB", " GiB", " TiB", " PiB"} {
		if v < 1023.5 {
			break
		}
		v, unit = v/1024, u
	}
	switch {
	case unit == "":
		return fmt.Sprintf("%d B", n)
	case v < 9.95:
		return fmt.Sprintf("%.1f%s", v, unit)
	}
	return fmt.Sprintf("%.0f%s", v, unit)
}

// rate writes bytes per second as a line's rate.
func rate(bytes float64) string {
	bits := bytes * 8
	switch {
	case bits < 1:
		return "0 Mbit/s"
	case bits < 1e5:
		return fmt.Sprintf("%.0f kbit/s", bits/1e3)
	case bits < 1e7:
		return fmt.Sprintf("%.1f Mbit/s", bits/1e6)
	}
	return fmt.Sprintf("%.0f Mbit/s", bits/1e6)
}

// group writes a number with commas: 12,345.
func group[N ~int | ~int64 | ~uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes a number with its noun: 1 site, 2 sites.
func count[N ~int | ~int64 | ~uint64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return group(n) + " " + noun
}

// took writes a duration as people read it: 40 s, 3 min, 2 h 10 min, 4 days.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		if m := int(d.Minutes()) % 60; m > 0 {
			return fmt.Sprintf("%d h %d min", int(d.Hours()), m)
		}
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// apart writes how far a clock is off; empty if that is less than it can be measured.
func apart(d ledger.Seconds) string {
	s := math.Abs(time.Duration(d).Seconds())
	switch {
	case s < 0.1:
		return ""
	case s < 60:
		return fmt.Sprintf("%.1f s", s)
	}
	return took(time.Duration(s * float64(time.Second)))
}

// trigger writes the reason for which a run started.
func trigger(word string) string {
	switch word {
	case "desired":
		return "a new desired state"
	case "window":
		return "its window"
	}
	return word
}

// percent is done of total, in whole percent, and 100 only if all is done.
func percent(done, total int64) int {
	if total <= 0 || done >= total {
		return 100
	}
	return int(math.Floor(100 * float64(done) / float64(total)))
}

// command writes a command line as it can be pasted into a POSIX shell.
func command(words ...string) string {
	out := make([]string, 0, len(words)+1)
	out = append(out, "nightferry")
	for _, w := range words {
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+%") != "" {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// link is a path with parameters: pairs of a name and a value; a pair without a value is left out.
func link(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// sitePath is the path of a site's page.
func sitePath(name string) string { return "/sites/" + url.PathEscape(name) }
