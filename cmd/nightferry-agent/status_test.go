package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// TestStatusShowsFailures: status names the last failed run of a channel with its cause and remedy, and fits 80 columns.
func TestStatusShowsFailures(t *testing.T) {
	var out bytes.Buffer
	e := &env{stdout: &out}
	s := agent.Status{Identity: &agent.Identity{Domain: "corp", Site: "berlin"}, Stated: time.Unix(1_700_000_000, 0),
		Channels: []agent.ChannelStatus{{Channel: "package", Held: &spool.Held{Target: "/srv/content/package"}}},
		Problems: []spool.OpenProblem{{Problem: wire.Problem{Kind: "store", Text: strings.Repeat("words of a problem ", 9)}}},
		Failures: []spool.Failure{{Channel: "package", Number: 7, State: "failed", At: 1_700_000_000, Cause: `target "/srv/content/package" cannot be written: read-only file system`}}}
	if err := e.statusText(&s); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"failed package release 7 ended failed at 2023-11-14 22:13 UTC:", "cannot be written: read-only file system (on that server,", "mount -o remount,rw MOUNTPOINT"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
