package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

var (
	emptyBefore = regexp.MustCompile(`^(\s*[\w.-]+:)\s*(\{\}|\[\])\s*(#.*)?$`)
	noSpace     = regexp.MustCompile(`^\s*(- )?([A-Za-z][\w-]*):([^\s/].*|/[^/].*)$`)
	noColon     = regexp.MustCompile(`^\s*([A-Za-z][\w-]*)\s*$`)
	quoted      = regexp.MustCompile(`"([^"]*\\[^"]*)"`)
	odd         = regexp.MustCompile(`:\s+([@%` + "`" + `].*)$`)
)

// findSlip finds the most likely mistake near the place where the parser failed,
// and suggests a correction. It checks the failing line and those before it;
// p is the parser's position. ok is false if it finds nothing.
func findSlip(data []byte, p position) (at position, why string, ok bool) {
	lines := strings.Split(string(data), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	for i, l := range lines[:min(p.line, len(lines))] {
		indent := l[:len(l)-len(strings.TrimLeft(l, " \t"))]
		if n := strings.IndexByte(indent, '\t'); n >= 0 && l != "" {
			return position{i + 1, n + 1}, "a tab indents this line: YAML wants spaces: write two spaces for each level", true
		}
	}
	if at, why, ok := leftEmpty(lines, p.line); ok {
		return at, why, true
	}
	for n := p.line; n >= max(1, p.line-1) && n <= len(lines); n-- {
		if why, col := slipIn(lines[n-1]); why != "" {
			return position{n, col}, why, true
		}
	}
	for n := p.line; n <= min(p.line+1, len(lines)); n++ { // the parser may stop at the line before
		if have, want := wrongIndent(lines, n); have > 0 {
			return position{n, have + 1}, fmt.Sprintf("this line is indented by %d, and no key before it by that much: write %s spaces", have, want), true
		}
		if m := noColon.FindStringSubmatch(lines[n-1]); m != nil {
			return position{n, 1}, fmt.Sprintf("no colon follows %s: write %s:", quoteShort(m[1]), m[1]), true
		}
	}
	return p, "", false
}

// leftEmpty finds a {} or [] that was left before entries.
func leftEmpty(lines []string, until int) (position, string, bool) {
	for i := min(until, len(lines)) - 1; i >= 0; i-- {
		m := emptyBefore.FindStringSubmatchIndex(lines[i])
		if m == nil {
			continue
		}
		depth := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		for _, next := range lines[i+1:] {
			text := strings.TrimLeft(next, " ")
			if text == "" || text[0] == '#' {
				continue
			}
			if len(next)-len(text) > depth {
				key := strings.TrimSpace(lines[i][m[2]:m[3]])
				return position{i + 1, m[4] + 1}, fmt.Sprintf("%s says that there are no entries, and entries follow: write %s alone", lines[i][m[4]:m[5]], key), true
			}
			break
		}
	}
	return position{}, "", false
}

// slipIn checks a single line.
func slipIn(line string) (why string, column int) {
	if m := quoted.FindStringSubmatchIndex(line); m != nil {
		return fmt.Sprintf("a backslash in double quotes begins an escape: write '%s' in single quotes", line[m[2]:m[3]]), m[0] + 1
	}
	if m := odd.FindStringSubmatchIndex(line); m != nil {
		return fmt.Sprintf("a text cannot begin with %c: write '%s' in single quotes", line[m[2]], line[m[2]:m[3]]), m[2] + 1
	}
	if m := noSpace.FindStringSubmatchIndex(line); m != nil {
		return fmt.Sprintf("no space follows the colon: write %s: %s", line[m[4]:m[5]], line[m[6]:m[7]]), m[5] + 1
	}
	return "", 0
}

// wrongIndent returns the indent of a line that matches no line before it, and
// the indents that would match.
func wrongIndent(lines []string, line int) (have int, want string) {
	text := strings.TrimLeft(lines[line-1], " ")
	have = len(lines[line-1]) - len(text)
	var open []int // indents of the keys that the line is below
	before, opens := -1, false
	for _, l := range lines[:line-1] {
		t := strings.TrimLeft(l, " ")
		if t == "" || t[0] == '#' {
			continue
		}
		before, opens = len(l)-len(t), strings.HasSuffix(t, ":")
		for len(open) > 0 && open[len(open)-1] >= before {
			open = open[:len(open)-1]
		}
		open = append(open, before)
	}
	if text == "" || before < 0 || have > before && opens {
		return 0, ""
	}
	for _, n := range open {
		if n == have {
			return 0, ""
		}
	}
	var parts []string
	for _, n := range open {
		parts = append(parts, fmt.Sprint(n))
	}
	return have, strings.Join(parts, " or ")
}

// hasEscaped reports whether a value in double quotes holds a character that
// only an escape can produce, such as the line break in "D:\new".
func hasEscaped(source string, value string) bool {
	return strings.Contains(source, `\`) && bytes.ContainsFunc([]byte(value), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0xa0 })
}
