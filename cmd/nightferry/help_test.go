package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func walk(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		walk(sub, fn)
	}
}

// TestEveryVerbHasAnExample also keeps help readable on a narrow terminal.
func TestEveryVerbHasAnExample(t *testing.T) {
	root := newRoot(&env{now: time.Now})
	verbs := 0
	walk(root, func(c *cobra.Command) {
		if c.Name() == "exit-codes" {
			for l := range strings.SplitSeq(c.Long, "\n") {
				if !regexp.MustCompile(`^(Every.*|  [ 0-9]{3}  [a-z]+ +| {21})`).MatchString(l) && l != "" || len(l) > 80 || len(l) > 20 && l[:2] == "  " && l[20] != ' ' {
					t.Errorf("%q", l)
				}
			}
			return
		}
		if c.Name() == "environment" {
			for l := range strings.SplitSeq(c.Long, "\n") {
				if !regexp.MustCompile(`^(nightferry.*|  [A-Z_*]+ +| {26}|$)`).MatchString(l) || len(l) > 79 {
					t.Errorf("%q", l)
				}
			}
			return
		}
		verbs++
		t.Run(strings.ReplaceAll(c.CommandPath(), " ", "_"), func(t *testing.T) {
			if c.Short == "" || len(c.Long) < 40 {
				t.Errorf("no description")
			}
			if !strings.Contains(c.Example, "nightferry "+strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "nightferry"), " ")) {
				t.Errorf("no example of %s: %q", c.CommandPath(), c.Example)
			}
			var help bytes.Buffer
			c.SetOut(&help)
			if err := c.Help(); err != nil {
				t.Fatal(err)
			}
			for l := range strings.SplitSeq(help.String(), "\n") {
				if n := utf8.RuneCountInString(l); n > 80 {
					t.Errorf("%d characters: %s", n, l)
				}
			}
		})
	})
	if verbs < 20 {
		t.Errorf("only %d verbs found", verbs)
	}
}

// TestDocsHoldEveryVerbAndFlag keeps docs/cli.md complete.
func TestDocsHoldEveryVerbAndFlag(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	walk(newRoot(&env{now: time.Now}), func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "nightferry ")
		if c.HasParent() && !strings.Contains(doc, "`"+name) && c.Name() != "exit-codes" && c.Name() != "environment" {
			t.Errorf("docs/cli.md does not name %q", name)
		}
		for _, line := range strings.Split(c.LocalFlags().FlagUsages(), "\n") {
			if f := regexp.MustCompile(`--[a-z0-9-]+`).FindString(line); f != "" && f != "--help" && !strings.Contains(doc, "`"+f) {
				t.Errorf("docs/cli.md does not name the flag %s of %q", f, name)
			}
		}
	})
}

// TestEnvironmentIsDocumented keeps the table of variables in docs/cli.md the one that help prints.
func TestEnvironmentIsDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := "| variable | means |\n| --- | --- |\n"
	for _, v := range variables {
		want += fmt.Sprintf("| `%s` | %s |\n", v.name, v.means)
	}
	if !strings.Contains(string(b), want) {
		t.Errorf("docs/cli.md lacks this table:\n%s", want)
	}
}

// TestExitCodesAreDocumented keeps the table in docs/cli.md the one that the
// program uses.
func TestExitCodesAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z]+) \| (.*) \|$`).FindAllStringSubmatch(string(b), -1) {
		got = append(got, strings.Join(m[1:], " "))
	}
	var want []string
	last := -1
	for _, x := range exits() {
		want = append(want, fmt.Sprintf("%d %s %s", x.code, x.name, x.means))
		if x.code <= last {
			t.Errorf("code %d comes after %d", x.code, last)
		}
		last = x.code
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("docs/cli.md differs from exit.go (-exit.go +docs):\n%s", d)
	}
}
