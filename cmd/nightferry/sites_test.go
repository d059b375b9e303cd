package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"nightferry/internal/api"
	"nightferry/internal/digest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// TestWatch shows a view again until its context ends. On no terminal it clears nothing.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		ctx, stop := context.WithCancel(t.Context())
		began, shown := time.Now(), 0
		err := fleetViews{&env{stdout: &out, now: time.Now}}.watch(ctx, func(context.Context) error {
			if shown++; shown == 3 {
				stop()
			}
			return nil
		})
		if err != nil || shown != 3 || time.Since(began) != 2*watchEvery || strings.Contains(out.String(), "\x1b") {
			t.Errorf("shown %d times in %s, %v:\n%q", shown, time.Since(began), err, out.String())
		}
	})
}

// TestSitesFit: at 80 columns the sites' table still says why, whole.
func TestSitesFit(t *testing.T) {
	now := time.Date(2026, 3, 29, 14, 0, 0, 0, time.UTC)
	list := func() []api.Site {
		return []api.Site{
			{Site: "kuala-lumpur", Domain: "apac", Region: "ap", Enrolled: now, Connected: true, Channels: []api.SiteChannel{
				{Channel: "package", Holds: 12, Wants: 13, State: "waiting", Why: "window 03-29 20:00Z"},
				{Channel: "driver", Holds: 3, Wants: 3, State: "current"}}},
			{Site: "lisbon", Domain: "corp", Region: "emea", Enrolled: now, Seen: now.Add(-3 * time.Hour), Channels: []api.SiteChannel{
				{Channel: "package", Holds: 12, Wants: 13, State: "away", Why: "no message"}}},
		}
	}
	for _, tt := range []struct {
		columns, states string
		want, not       []string
	}{
		{"79", "problems", []string{"lisbon", "no message"}, []string{"kuala-lumpur", "driver"}},
		{"79", "", []string{"window 03-29 20:00Z", "3 hours ago", "kuala-lumpur", "driver"}, []string{"emea"}},
		{"120", "", []string{"window 03-29 20:00Z", "emea", "apac"}, nil},
		{"79", "away", []string{"lisbon", "no message"}, []string{"kuala-lumpur"}},
	} {
		t.Setenv("COLUMNS", tt.columns)
		var out bytes.Buffer
		e := &env{stdout: &out, now: func() time.Time { return now }}
		s := &sitesFlags{}
		if s.problems = tt.states == "problems"; tt.states != "" && !s.problems {
			s.states = []string{tt.states}
		}
		fleetViews{e}.showSites(list(), s)
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); tt.columns == "79" && n > 79 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		for _, w := range tt.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%+v: no %q in\n%s", tt, w, out.String())
			}
		}
		for _, w := range tt.not {
			if strings.Contains(out.String(), w) {
				t.Errorf("%+v: %q in\n%s", tt, w, out.String())
			}
		}
	}
}

// TestUnfinishedRun: a run under way shows its release and its progress, and no totals.
func TestUnfinishedRun(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 3, 29, 14, 0, 0, 0, time.UTC)
	e := &env{stdout: &out, now: func() time.Time { return now }}
	r := &api.RunDetail{Run: api.Run{Site: "lisbon", Channel: "package", Number: 2, Release: trust.ReleaseDigest(digest.Of([]byte("2"))), Parent: 1, Started: now.Add(-time.Minute)}, Files: 5, Bytes: 66 << 20}
	runViews{e}.showRun(r)
	r.Progress = &runs.Progress{Phase: "fetch", FilesDone: 2, FilesTotal: 5, BytesDone: 12 << 20, BytesTotal: 66 << 20, BytesWire: 10 << 20}
	runViews{e}.showRun(r)
	for _, want := range []string{"release  2, 5 files, 66", "no progress of it yet", "so far   fetch: 2 of 5 files, 12"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s lacks %q", out.String(), want)
		}
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(line, "files ") || strings.HasPrefix(line, "bytes ") || !strings.HasPrefix(line, "digest") && len(line) > 79 {
			t.Errorf("%q", line)
		}
	}
}
