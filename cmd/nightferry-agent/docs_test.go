package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nightferry/internal/doctest"
)

// TestDocumentedCommands checks that the program accepts each of its command lines in README and docs.
func TestDocumentedCommands(t *testing.T) {
	lines := doctest.DocCommands(t, "nightferry-agent")
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

// TestHelpFits checks that help fits a narrow terminal.
func TestHelpFits(t *testing.T) {
	root := newRoot(&env{now: time.Now})
	verbs := 0
	for _, c := range append(root.Commands(), root) {
		verbs++
		var help bytes.Buffer
		c.SetOut(&help)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(help.String()) {
			if l = strings.TrimRight(l, "\n"); utf8.RuneCountInString(l) > 80 {
				t.Errorf("%s: %d characters: %s", c.Name(), utf8.RuneCountInString(l), l)
			}
		}
		if c.Name() == "exit-codes" {
			continue
		}
		if c.Short == "" || len(c.Long) < 40 || !strings.Contains(c.Example, "nightferry-agent") {
			t.Errorf("%s: no description or example", c.Name())
		}
	}
	if verbs < 9 {
		t.Errorf("only %d verbs found", verbs)
	}
}
