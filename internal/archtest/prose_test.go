package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// headless matches constructions that make readers guess: relative clauses without a noun, and verbs of speech for
// machines. CONTRIBUTING.md explains the rule.
var headless = regexp.MustCompile(`(?i)\b(what|whoever|nobody|somebody|who) (is|was|are|has|have|can|it|the|a|that|who)\b|\b(tells|told|says) (of|what|who|so)\b`)

// proseBudget bounds such constructions per 1 000 words. The numbers may only become smaller.
var proseBudget = []struct {
	what string
	most float64
	text func(name, text string) string
}{
	{"comments", 2.7, comments},
	{"docs", 1.0, func(name, text string) string {
		if path.Ext(name) != ".md" || name == "THIRD_PARTY.md" {
			return ""
		}
		return text
	}},
	{"messages of the programs", 0.2, messages},
}

var word = regexp.MustCompile(`[A-Za-z']+`)

func TestProse(t *testing.T) {
	texts := make([]strings.Builder, len(proseBudget))
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bench") {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(name); ext != ".go" && ext != ".md" {
			return nil
		}
		text, err := fs.ReadFile(os.DirFS("../.."), name)
		if err != nil {
			return err
		}
		for i, b := range proseBudget {
			texts[i].WriteString(b.text(name, string(text)) + "\n")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range proseBudget {
		rate, words := perThousand(texts[i].String())
		if words < 5000 {
			t.Errorf("%s: found %d words only: the search no longer fits the tree", b.what, words)
		}
		t.Logf("%s: %.2f per 1000 of %d words", b.what, rate, words)
		if rate > b.most {
			t.Errorf("%s have %.2f headless clauses per 1000 words, at most %.2f are allowed: name the subject (see CONTRIBUTING.md)", b.what, rate, b.most)
		}
	}
}

func perThousand(text string) (rate float64, words int) {
	words = len(word.FindAllString(text, -1))
	return float64(len(headless.FindAllString(text, -1))) * 1000 / float64(max(words, 1)), words
}

// comments returns the comments of a Go file.
func comments(name, text string) string {
	if path.Ext(name) != ".go" {
		return ""
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return ""
	}
	var out strings.Builder
	for _, group := range f.Comments {
		out.WriteString(group.Text())
	}
	return out.String()
}

// messages returns the string literals of the programs: help, errors, tables.
func messages(name, text string) string {
	if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !strings.HasPrefix(name, "cmd/") {
		return ""
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return ""
	}
	var out strings.Builder
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			out.WriteString(lit.Value + "\n")
		}
		return true
	})
	return out.String()
}

func TestProseBites(t *testing.T) {
	for text, want := range map[string]bool{
		"What is unsigned is refused.":       true,
		"The agent tells what it found.":     true,
		"Nobody has installed it.":           true,
		"It refuses data that is unsigned.":  false,
		"The Core records the site's state.": false,
	} {
		if got, _ := perThousand(text); (got > 0) != want {
			t.Errorf("%q: %v per 1000 words", text, got)
		}
	}
	if got := comments("a.go", "package a\n\n// Comment of\n// two lines.\nvar x = \"string\"\n"); got != "Comment of\ntwo lines.\n" {
		t.Errorf("comments: %q", got)
	}
	if got := messages("cmd/x/a.go", "package a\n\n// Comment.\nvar x = \"string\"\n"); !strings.Contains(got, "string") || strings.Contains(got, "Comment") {
		t.Errorf("messages: %q", got)
	}
}
