package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nightferry/internal/record"
	"nightferry/internal/runs"
)

// shown makes a name safe to print, as the job logs do.
func shown(s string) string { return record.Printable(s) }

// oneLine makes a message of a program safe to print, on one line.
func oneLine(s string) string { return record.OneLine(s) }

// shownLines is shown for a text of several lines.
func shownLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = shown(l)
	}
	return strings.Join(lines, "\n")
}

func unsafeRune(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r)
}

// size writes bytes as people read them: 0 B, 812 B, 1.2 KiB, 34 MiB.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 1023.5 && unit < 6 {
		v, unit = v/1024, unit+1
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit-1])
	}
	return fmt.Sprintf("%.0f %ciB", v, "KMGTPE"[unit-1])
}

// count writes a number with its noun: 1 file, 23,080 files.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if n := len(noun); n > 1 && noun[n-1] == 'y' && !strings.ContainsRune("aeiou", rune(noun[n-2])) { // entries, but days
		noun = strings.TrimSuffix(noun, "y") + "ie"
	}
	return group(n) + " " + noun + "s"
}

// holding writes what a release holds: 3 files, 2 folders, 1.2 KiB.
func holding(files, folders, bytes int64) string {
	if folders == 0 {
		return count(files, "file") + ", " + size(bytes)
	}
	return count(files, "file") + ", " + count(folders, "folder") + ", " + size(bytes)
}

// group writes a number with a comma between thousands.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// took writes a duration to a precision that somebody cares for.
func took(d time.Duration) string {
	switch {
	case d < 0 || d > math.MaxInt64/2:
		return "?"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// stamp writes a time, always in UTC: the reader may be elsewhere.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// wrap breaks a text into lines of at most width bytes, between words.
func wrap(s string, width int) string {
	var b strings.Builder
	col := 0
	for _, word := range strings.Fields(s) {
		switch {
		case col == 0:
		case col+1+len(word) > width:
			b.WriteByte('\n')
			col = 0
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += len(word)
	}
	return b.String()
}

// counted is a number with what it counts.
type counted struct {
	n    int64
	what string
}

// outcomes returns the outcomes of a run's files.
func outcomes(c *runs.Counts) []counted {
	return []counted{{c.Added, "added"}, {c.Changed, "changed"}, {c.Moved, "moved"}, {c.Repaired, "repaired"}, {c.Deleted, "deleted"}, {c.Locked, "locked"}, {c.Failed, "failed"}, {c.Differs, "different"}}
}

// changes lists the numbers that are not zero: 3 added, 1 removed.
func changes(list []counted) string {
	var parts []string
	for _, c := range list {
		if c.n != 0 {
			parts = append(parts, group(c.n)+" "+c.what)
		}
	}
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(parts, ", ")
}

// hanging wraps each line of a text behind a label, with the further lines below the first one's text.
func hanging(label, text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		lines = append(lines, strings.Split(wrap(line, lineWidth-utf8.RuneCountInString(label)), "\n")...)
	}
	return label + strings.Join(lines, "\n"+strings.Repeat(" ", utf8.RuneCountInString(label)))
}
