package main

import (
	"strings"
	"testing"
	"time"

	"nightferry/internal/testbed"
)

// TestDocumentedCommands: each command line of the agent that the README and
// docs show is one that the program takes.
func TestDocumentedCommands(t *testing.T) {
	lines := testbed.DocCommands(t, "nightferry-agent")
	whole := 0
	for _, l := range lines {
		cmd, rest, err := newRoot(&env{now: time.Now}).Find(l.Args)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil && l.Whole {
			whole++
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil && (l.Whole || !strings.Contains(err.Error(), "needs an argument")) {
			t.Errorf("%s: nightferry-agent %s: %v", l.Where, strings.Join(l.Args, " "), err)
		}
	}
	if whole < 6 || len(lines) < 15 {
		t.Errorf("found only %d lines in blocks, and %d in all", whole, len(lines))
	}
}
