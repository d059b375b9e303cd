package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/core"
)

// A run that was under way before the order is told of, but does not end the following, nor
// does one of another site; a site that is away is not waited for, nor one for
// which there is no release yet.
func TestFollowRuns(t *testing.T) {
	ev := func(kind core.EventKind, site, run string) core.Event {
		return core.Event{Kind: kind, Site: site, Channel: "package", Run: run}
	}
	events := make(chan core.Event, 20)
	for _, e := range []core.Event{
		ev(core.RunEnded, "osaka", "old"),
		ev(core.RunProgressed, "osaka", "older"),
		ev(core.RunStarted, "lima", "x"),
		ev(core.RunStarted, "osaka", "new"),
		ev(core.RunEnded, "osaka", "old"),
		ev(core.RunProgressed, "osaka", "new"),
		ev(core.SiteConnected, "osaka", ""),
		ev(core.RunStarted, "porto", "p"),
		ev(core.RunEnded, "osaka", "new"),
		ev(core.RunEnded, "porto", "p"),
		ev(core.RunStarted, "osaka", "later"),
	} {
		events <- e
	}
	var got []string
	err := followRuns(t.Context(), []core.Order{
		{Site: "osaka", Channel: "package", Number: 1, Connected: true}, {Site: "porto", Channel: "package", Number: 1, Connected: true}, {Site: "quito", Channel: "package", Number: 1}, {Site: "rome", Channel: "package", Connected: true}, // nothing is published there yet
	}, events, func(e core.Event) error {
		got = append(got, string(e.Kind)+" "+e.Site+" "+e.Run)
		return nil
	})
	want := []string{"progress osaka older", "started osaka new", "progress osaka new", "started porto p", "ended osaka new", "ended porto p"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := followRuns(ctx, []core.Order{{Site: "a", Channel: "b", Number: 1, Connected: true}}, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

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
