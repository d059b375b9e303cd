package main

import (
	"io"
	"testing"
	"time"
	"unicode/utf8"

	"nightferry/internal/api"
)

func TestTableFits(t *testing.T) {
	tab := table{head: []string{"SITE", "N", "WHAT"}, right: map[int]bool{1: true}, cut: []int{2, 0}}
	tab.add("osaka", "7", "a text that is much longer than any terminal would be willing to show in one line")
	tab.add("a-site-with-a-name-of-some-length", "1,234", "x\x1b[31my")
	for _, l := range tab.lines(50) {
		if n := utf8.RuneCountInString(l); n > 50 {
			t.Errorf("%d columns: %q", n, l)
		}
	}
	want := []string{
		"SITE                                   N  WHAT",
		"osaka                                  7  a te",
		`a-site-with-a-name-of-some-length  1,234  x\x1b`,
	}
	for i, l := range tab.lines(0) {
		if l[:len(want[i])] != want[i] {
			t.Errorf("got %q, want %q…", l, want[i])
		}
	}
}

// TestStateOfTasks: a task that has never succeeded is not ok.
func TestStateOfTasks(t *testing.T) {
	for want, x := range map[string]api.Task{
		"has not run yet": {}, "running": {Running: time.Unix(1, 0)}, "failed: x": {Error: "x"}, "ok": {Success: time.Unix(1, 0)}, "OVERDUE: x": {Overdue: true, Error: "x"},
	} {
		if got := stateOf(&x); got != want {
			t.Errorf("%+v: %q, want %q", x, got, want)
		}
	}
}

// TestWidthOfPipes: what is no terminal is cut only if somebody says how wide it is.
func TestWidthOfPipes(t *testing.T) {
	e := &env{stdout: io.Discard}
	for columns, want := range map[string]int{"": 0, "80": 80, "7": 0, "wide": 0} {
		t.Setenv("COLUMNS", columns)
		if got := e.width(); got != want {
			t.Errorf("COLUMNS=%s: %d, want %d", columns, got, want)
		}
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2d": now.Add(-48 * time.Hour), "6h ago": now.Add(-6 * time.Hour), "2026-01-31": time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"2026-01-31T22:00:00Z": time.Date(2026, 1, 31, 22, 0, 0, 0, time.UTC),
	} {
		if got, err := parseWhen(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-13-01", "-1d"} {
		if got, err := parseWhen(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
