package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/doctest"
)

// placeholder is a word that stands for what the reader puts there.
var placeholder = regexp.MustCompile(`"[A-Z…][A-Z0-9…]*"`)

// TestDocumentedCommands: each command line that the README and docs show is one
// that the program takes: the verb exists, its flags do, and it is not given too
// many or too few arguments.
func TestDocumentedCommands(t *testing.T) {
	lines := doctest.DocCommands(t, "nightferry")
	whole := 0
	for _, l := range lines {
		if l.Whole {
			whole++
		}
		if len(l.Args) > 0 && !l.Whole && strings.ToUpper(l.Args[0]) == l.Args[0] { // nightferry VERB --help
			continue
		}
		root := newRoot(&env{now: time.Now})
		root.InitDefaultHelpCmd() // as Execute does
		cmd, rest, err := root.Find(l.Args)
		if err != nil {
			t.Errorf("%s: nightferry %s: %v", l.Where, strings.Join(l.Args, " "), err)
			continue
		}
		if err := takes(cmd, rest, l.Whole); err != nil {
			t.Errorf("%s: nightferry %s: %v", l.Where, strings.Join(l.Args, " "), err)
		}
	}
	if whole < 25 || len(lines) < 60 {
		t.Errorf("found only %d lines in blocks, and %d in all", whole, len(lines))
	}
}

// takes parses the rest of a command line as the program would.
func takes(cmd *cobra.Command, rest []string, whole bool) error {
	cmd.InitDefaultHelpFlag() // as Execute does
	if err := cmd.ParseFlags(rest); err != nil && (whole || !placeholder.MatchString(err.Error()) && !strings.Contains(err.Error(), "needs an argument")) {
		return err
	}
	if !whole {
		return nil
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestDocumentedPolicies: what is given as JSON is JSON.
func TestDocumentedPolicies(t *testing.T) {
	blocks := doctest.DocBlocks(t, "json")
	for _, b := range blocks {
		if !json.Valid([]byte(b.Text)) {
			t.Errorf("%s: no JSON:\n%s", b.Where, b.Text)
		}
	}
	if len(blocks) < 2 {
		t.Errorf("found only %d", len(blocks))
	}
}
