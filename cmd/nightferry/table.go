package main

import (
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// table is an answer in columns. Where it goes to a terminal it is made to fit
// by cutting the columns that may be cut; in a file or pipe nothing is lost.
type table struct {
	head  []string
	right map[int]bool // columns of numbers
	cut   []int        // columns that may be cut, the first first
	below int          // the last column, which moves below its row where it does not fit; 0: none
	rows  [][]string
}

// add adds a row. Cells are made safe to print.
func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = shown(c)
	}
	t.rows = append(t.rows, cells)
}

// minCut is how narrow a column is cut at most.
const minCut = 8

// lines lays the table out for a width; 0 is any.
func (t *table) lines(width int) []string {
	if t.below > 0 && width > 0 && t.total() > width {
		return t.linesBelow(width)
	}
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	if width > 0 {
		for _, i := range t.cut {
			less := min(max(total-width, 0), max(widths[i]-max(minCut, utf8.RuneCountInString(t.head[i])), 0))
			widths[i] -= less
			total -= less
		}
	}
	var out []string
	for _, row := range append([][]string{t.head}, t.rows...) {
		var b strings.Builder
		for i, c := range row {
			c = cut(c, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if t.right[i] {
				c = pad + c
			} else {
				c += pad
			}
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(c)
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

// total is the width of the whole table, uncut.
func (t *table) total() (total int) {
	for i := range t.head {
		widest := 0
		for _, row := range append([][]string{t.head}, t.rows...) {
			widest = max(widest, utf8.RuneCountInString(row[i]))
		}
		total += widest + 2
	}
	return total - 2
}

// linesBelow lays the table out with the last column wrapped below each row.
func (t *table) linesBelow(width int) (out []string) {
	rest := table{head: t.head[:t.below], right: t.right, cut: t.cut}
	for _, row := range t.rows {
		rest.rows = append(rest.rows, row[:t.below])
	}
	for i, line := range rest.lines(width) {
		out = append(out, line)
		if i == 0 || t.rows[i-1][t.below] == "" {
			continue
		}
		out = append(out, strings.Split(indent(wrap(t.rows[i-1][t.below], width-2)), "\n")...)
	}
	return out
}

// show prints a table, or says that there is nothing to show.
func (e *env) show(t *table, nothing string) {
	if e.json {
		return
	}
	if len(t.rows) == 0 {
		e.summary("%s", nothing)
		return
	}
	for _, l := range t.lines(e.width()) {
		e.print("%s", l)
	}
}

// terminal reports whether people see stdout as it is written.
func (e *env) terminal() bool {
	f, ok := e.stdout.(*os.File)
	return ok && !e.json && term.IsTerminal(int(f.Fd()))
}

// width is that of the terminal that stdout is; where it is none, what COLUMNS
// says, or 0.
func (e *env) width() int {
	f, ok := e.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		n, err := strconv.Atoi(os.Getenv("COLUMNS"))
		if err != nil || n < 40 {
			return 0
		}
		return n
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w < 40 {
		return 79
	}
	return w - 1
}

// ago writes how long before now a time was.
func (e *env) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := e.now().Sub(t)
	switch {
	case d < time.Second:
		return "now"
	case d >= 48*time.Hour:
		return group(int64(d/(24*time.Hour))) + " days ago"
	case d >= time.Hour:
		return count(int64(d/time.Hour), "hour") + " ago"
	case d >= time.Minute:
		return group(int64(d/time.Minute)) + " min ago"
	}
	return group(int64(d/time.Second)) + " s ago"
}

// minute writes a time to the minute, or a dash.
func minute(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

// short writes the beginning of a digest or id, enough to tell two apart.
func short(id string) string {
	if len(id) > shortID {
		return id[:shortID]
	}
	return id
}

const shortID = 12

// dash stands for nothing in a cell.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
