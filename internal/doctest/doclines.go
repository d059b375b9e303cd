// Package doctest finds the commands and examples of README and docs, so that tests can run them.
package doctest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// DocLine is a command line in the documentation.
type DocLine struct {
	Where string // file:line, for the message of a test
	Args  []string
	Whole bool // from a block, to be typed as it is; otherwise from the text, where arguments may be omitted
}

// DocBlock is a fenced block.
type DocBlock struct{ Where, Lang, Text string }

// docFiles returns the README and the pages of docs by path, for a package two folders below the top.
func docFiles(t testing.TB) map[string]string {
	t.Helper()
	top := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("found %d pages: %v", len(pages), err)
	}
	all := map[string]string{}
	for _, p := range append(pages, filepath.Join(top, "README.md")) {
		if filepath.Base(p) == "benchmarks.md" {
			continue // generated, not a page to follow
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(p)] = string(b)
	}
	return all
}

// DocBlocks returns the documentation's fenced blocks of a language.
func DocBlocks(t testing.TB, lang string) (all []DocBlock) {
	t.Helper()
	for name, text := range docFiles(t) {
		var block *DocBlock
		for n, l := range strings.Split(text, "\n") {
			fence, opens := strings.CutPrefix(strings.TrimSpace(l), "```")
			switch {
			case opens && block == nil:
				block = &DocBlock{Where: fmt.Sprintf("%s:%d", name, n+1), Lang: fence}
			case opens:
				if block.Lang == lang {
					all = append(all, *block)
				}
				block = nil
			case block != nil:
				block.Text += l + "\n"
			}
		}
	}
	return all
}

var (
	docSpan  = regexp.MustCompile("`([^`]+)`")
	docShell = regexp.MustCompile(`^(sh|bash|powershell|bat)?$`)
)

// DocCommands returns the command lines of a program in the README and docs: from shell blocks, from indented blocks,
// and from the text.
func DocCommands(t testing.TB, program string) (all []DocLine) {
	t.Helper()
	for name, text := range docFiles(t) {
		fenced, shell, pending := false, false, ""
		for n, l := range strings.Split(text, "\n") {
			where := fmt.Sprintf("%s:%d", name, n+1)
			if lang, ok := strings.CutPrefix(strings.TrimSpace(l), "```"); ok {
				fenced, shell = !fenced, docShell.MatchString(lang)
				continue
			}
			if fenced && shell || !fenced && strings.HasPrefix(l, "    ") {
				l = pending + strings.TrimSpace(l)
				if pending = ""; strings.HasSuffix(l, `\`) && fenced { // continues in the next line
					pending = strings.TrimSuffix(l, `\`)
					continue
				}
				for _, c := range shellCommands(l) {
					if args, ok := ofProgram(c, program); ok {
						all = append(all, DocLine{where, args, true})
					}
				}
				continue
			}
			if fenced {
				continue
			}
			for _, m := range docSpan.FindAllStringSubmatch(l, -1) {
				for _, c := range shellCommands(m[1]) {
					if args, ok := ofProgram(c, program); ok {
						all = append(all, DocLine{where, args, false})
					}
				}
			}
		}
	}
	return all
}

// ofProgram returns the arguments of a command line if it runs program.
func ofProgram(words []string, program string) ([]string, bool) {
	for len(words) > 0 && (words[0] == "sudo" || words[0] == "do" || words[0] == "-u" || words[0] == "then" || strings.Contains(words[0], "=")) {
		if words[0] == "-u" && len(words) > 1 {
			words = words[1:]
		}
		words = words[1:]
	}
	if len(words) == 0 {
		return nil, false
	}
	name := words[0][strings.LastIndexAny(words[0], `/\`)+1:]
	return words[1:], strings.TrimSuffix(name, ".exe") == program
}

// shellCommands splits a line into commands and these into words, as far as the documentation needs it: quotes,
// comments, redirections, and ; & | between commands. A backslash is an ordinary letter, because Windows paths contain
// it.
func shellCommands(line string) (all [][]string) {
	var words []string
	word, started, quote, skip := "", false, rune(0), false
	end := func() {
		if started && !skip {
			words = append(words, word)
		}
		if started {
			skip = false
		}
		word, started = "", false
	}
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word += string(r)
			}
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == ' ' || r == '\t':
			end()
		case r == '#' && !started:
			end()
			return append(all, words)
		case r == '<' || r == '>':
			end()
			skip = true // the file's name
		case r == ';' || r == '|' || r == '&' || r == '(' || r == ')':
			end()
			all, words = append(all, words), nil
		default:
			word, started = word+string(r), true
		}
	}
	end()
	return append(all, words)
}
