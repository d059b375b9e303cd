package archtest

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestHouse(t *testing.T) {
	if _, err := os.Stat("../../go.mod"); err != nil {
		t.Fatalf("find the module's root: %v", err)
	}
	all, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations(rooms, owners, all) {
		t.Error(v)
	}
}

// violations lists every violation of the plan, each with the reason for the rule.
func violations(rooms []room, owners []owner, all []source) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }

	plan := map[string]room{}
	for _, r := range rooms {
		plan[r.dir] = r
	}
	built := map[string][]source{}
	for _, s := range all {
		built[s.dir] = append(built[s.dir], s)
	}
	for _, r := range rooms {
		if len(built[r.dir]) == 0 {
			say("%s is in the plan but has no Go file: take it out of plan_test.go, or bring it back", r.dir)
		}
	}
	for dir, files := range built {
		if rest, ok := strings.CutPrefix(dir, "internal/"); ok && strings.Contains(rest, "/") {
			say("%s: internal/ is one level deep, so that the plan shows every room", dir)
			continue
		}
		if _, ok := plan[dir]; !ok {
			say("%s is not in the plan: give it a floor in plan_test.go", dir)
			continue
		}
		if !slices.ContainsFunc(files, func(s source) bool { return s.doc && !s.test }) {
			say("%s has no package comment: a reader meets the room there first", dir)
		}
	}
	for _, s := range all {
		if s.init {
			say("%s declares func init: work done by being imported cannot be ordered, tested or switched off", s.file)
		}
		for _, imp := range s.imports {
			if why := refused(plan, owners, s, imp); why != "" {
				say("%s imports %s: %s", s.file, imp, why)
			}
		}
	}
	slices.Sort(out)
	return out
}

// refused returns why this file must not import that path, or "" if it may.
func refused(plan map[string]room, owners []owner, s source, imp string) string {
	for _, o := range owners {
		if imp != o.path && (!strings.HasSuffix(o.path, "/") || !strings.HasPrefix(imp, o.path)) {
			continue
		}
		allowed := slices.Contains(o.dirs, s.dir) ||
			s.test && (slices.Contains(o.tests, s.dir) || slices.Contains(o.tests, "*"))
		if !allowed {
			return o.why
		}
	}
	rest, ok := strings.CutPrefix(imp, module+"/")
	if !ok {
		return ""
	}
	from, known := plan[s.dir]
	to, found := plan[rest]
	switch {
	case !known || !found || from.dir == to.dir:
		return "" // the unlisted room itself has been reported; a test package imports the room that it tests
	case path.Dir(rest) == "cmd" || rest == "bench":
		return "a program is not a library"
	case to.floor == testRooms:
		return "" // the table of owners decides
	case from.floor == testRooms && !s.test:
		if to.floor > tools {
			return "the testbed serves every room from the tools up, so it stands on the tools and below"
		}
		return ""
	case s.test && to.floor <= from.floor:
		return "" // a test may use a neighbour for its setup: a pull needs a previous push
	case to.floor >= from.floor:
		return fmt.Sprintf("%s is on floor %q and %s on floor %q; imports go only down",
			from.dir, from.floor, to.dir, to.floor)
	}
	return ""
}

// TestRulesBite breaks each rule once in a small made-up tree: a check that cannot fail protects nothing.
func TestRulesBite(t *testing.T) {
	plan := []room{
		{"internal/low", ground, ""}, {"internal/twin", ground, ""}, {"internal/high", tools, ""},
		{"internal/testbed", testRooms, ""}, {"cmd/prog", programs, ""},
	}
	own := []owner{
		{"github.com/aws/", []string{"internal/high"}, nil, "sole importer"},
		{"log", nil, nil, "not log"}, // matches log, but not log/slog
		{"nightferry/internal/testbed", nil, []string{"*"}, "tests only"},
	}
	sound := map[string]string{
		"internal/low/a.go":       "// Package low is.\npackage low",
		"internal/twin/a.go":      "// Package twin is.\npackage twin",
		"internal/twin/a_test.go": "package twin\nimport _ \"nightferry/internal/low\"",
		"internal/high/a.go":      "// Package high is.\npackage high\nimport (_ \"nightferry/internal/low\"; _ \"github.com/aws/sdk\"; _ \"log/slog\")",
		"internal/high/a_test.go": "package high_test\nimport (_ \"nightferry/internal/high\"; _ \"nightferry/internal/testbed\")",
		"internal/testbed/a.go":   "// Package testbed is.\npackage testbed\nimport _ \"nightferry/internal/high\"",
		"cmd/prog/main.go":        "// Command prog is.\npackage main\nimport _ \"nightferry/internal/high\"",
	}
	tests := []struct{ name, file, text, want string }{
		{"sound", "", "", ""},
		{"up", "internal/low/b.go", "package low\nimport _ \"nightferry/internal/high\"", "imports go only down"},
		{"up in a test", "internal/low/b_test.go", "package low\nimport _ \"nightferry/internal/high\"", "imports go only down"},
		{"sideways", "internal/low/b_windows.go", "package low\nimport _ \"nightferry/internal/twin\"", "imports go only down"},
		{"another's library", "internal/low/b.go", "package low\nimport _ \"github.com/aws/sdk\"", "sole importer"},
		{"one package, not those below it", "internal/low/b.go", "package low\nimport _ \"log\"", "not log"},
		{"testbed in production", "internal/high/b.go", "package high\nimport _ \"nightferry/internal/testbed\"", "tests only"},
		{"a program as a library", "internal/high/b_test.go", "package high\nimport _ \"nightferry/cmd/prog\"", "not a library"},
		{"unlisted", "internal/new/a.go", "// Package new is.\npackage new", "not in the plan"},
		{"vanished", "internal/twin/a.go", "-", "has no Go file"},
		{"nested", "internal/low/deep/a.go", "// Package deep is.\npackage deep", "one level deep"},
		{"init", "internal/low/b.go", "package low\nfunc init() {}", "func init"},
		{"no package comment", "internal/low/a.go", "package low", "no package comment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, text := range sound {
				tree[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if tt.file != "" {
				tree[tt.file] = &fstest.MapFile{Data: []byte(tt.text)}
			}
			if tt.text == "-" {
				delete(tree, "internal/twin/a.go")
				delete(tree, "internal/twin/a_test.go")
			}
			all, err := load(tree)
			if err != nil {
				t.Fatal(err)
			}
			got := violations(plan, own, all)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("a sound house is refused: %q", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("violations are %q, want one that says %q", got, tt.want)
			}
		})
	}
}

// TestArchitecturePage compares the table of docs/architecture.md with the plan: each floor's line names exactly its
// rooms.
func TestArchitecturePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```text\n")
	table, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		t.Fatal("docs/architecture.md has no ```text block with the floors")
	}
	lines := map[string]string{}
	last := ""
	for line := range strings.SplitSeq(table, "\n") {
		if !strings.HasPrefix(line, " ") {
			last = strings.Fields(line)[0] // the floor's number, or "tests"
		}
		lines[last] += line + " "
	}
	number := map[floor]string{bedrock: "0", ground: "0", formats: "1", packed: "1", indexed: "1", tools: "2", repository: "3",
		verbs: "4", services: "5", processes: "6", contract: "7", pages: "8", programs: "9", testRooms: "tests"}
	named := map[string]bool{}
	for _, r := range rooms {
		name := strings.TrimPrefix(r.dir, "internal/")
		named[number[r.floor]+" "+name] = true
		if !slices.Contains(strings.FieldsFunc(lines[number[r.floor]], func(c rune) bool { return c == ' ' || c == '·' }), name) {
			t.Errorf("docs/architecture.md does not name %s on floor %s", name, number[r.floor])
		}
	}
	for at, line := range lines {
		for _, name := range strings.Split(line, "·") {
			words := strings.Fields(name)
			if name := words[len(words)-1]; !named[at+" "+name] {
				t.Errorf("docs/architecture.md names %s on floor %s, the plan does not", name, at)
			}
		}
	}
}
