package core_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/kinds"
)

// said are the first arguments of calls in a package's source, as they are
// written there: with what they are called, and where.
type said struct{ call, arg, at string }

// callsOf lists the calls of methods with those names in the source of a package,
// and the values of its constants.
func callsOf(t *testing.T, dir string, methods ...string) (calls []said, constants map[string]string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	constants = map[string]string{}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, v := range n.Values {
					if text, ok := v.(*ast.BasicLit); ok && text.Kind == token.STRING {
						constants[n.Names[i].Name], _ = strconv.Unquote(text.Value)
					}
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains(methods, f.Sel.Name) || len(n.Args) == 0 {
					return true
				}
				first := n.Args[0]
				if id, ok := first.(*ast.Ident); ok && id.Name == "ctx" && len(n.Args) > 1 {
					first = n.Args[1]
				}
				at := set.Position(n.Pos())
				s := said{call: f.Sel.Name, at: filepath.Base(at.Filename) + ":" + strconv.Itoa(at.Line)}
				switch a := first.(type) {
				case *ast.BasicLit:
					s.arg, _ = strconv.Unquote(a.Value)
				case *ast.Ident:
					s.arg = a.Name
				case *ast.SelectorExpr: // of package kinds
					s.arg = a.Sel.Name
				default:
					t.Errorf("%s: %s is called with a computed word: nobody can look it up", s.at, s.call)
				}
				calls = append(calls, s)
			}
			return true
		})
	}
	return calls, constants
}

// parts are the rooms that report to the Core's notices.
var parts = []string{".", "../enrolment", "../heads", "../lending", "../reports"}

// TestErrorPathsEndInIncidents: every word by which the Core says that something
// failed is in docs/operations.md, with the incident by which people hear of it;
// every incident that the Core raises, or a site reports, is of a kind that is.
func TestErrorPathsEndInIncidents(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "### What is tried again\n")
	table, _, ok2 := strings.Cut(table, "\n#")
	if !ok || !ok2 {
		t.Fatal("docs/operations.md has no table of what is tried again")
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| ([a-z]+) \\| [^|]+ \\| `([a-z-]+)`").FindAllStringSubmatch(table, -1) {
		documented[m[1]] = m[2]
	}
	own, _ := kinds.Entries()
	known := map[string]bool{string(kinds.SiteSays): true}
	for _, e := range own {
		known[string(e.Kind)] = true
	}
	var calls []said
	for _, dir := range parts {
		more, _ := callsOf(t, dir, "ReportFailure", "Raise")
		calls = append(calls, more...)
	}
	_, constants := callsOf(t, "../kinds")
	found := map[string]bool{}
	raised := map[string]bool{}
	for _, c := range calls {
		if c.call == "Raise" {
			if c.arg == "kind" || c.arg == "what" { // of a caller's, below
				continue
			}
			if k := constants[c.arg]; !known[k] {
				t.Errorf("%s raises %s, which is not in the registry of kinds", c.at, c.arg)
			}
			raised[constants[c.arg]] = true
			continue
		}
		found[c.arg] = true
		if documented[c.arg] == "" {
			t.Errorf("%s: trouble %q is not in docs/operations.md, What is tried again", c.at, c.arg)
		}
		if want := string(core.IncidentOf(c.arg)); documented[c.arg] != want {
			t.Errorf("%s: trouble %q is told as %q, docs/operations.md says %q", c.at, c.arg, want, documented[c.arg])
		}
	}
	for word, kind := range documented {
		if !found[word] {
			t.Errorf("docs/operations.md has the trouble %q, the code has not", word)
		}
		if !known[kind] {
			t.Errorf("docs/operations.md: trouble %q is the incident %q, which there is none of", word, kind)
		}
		if !raised[kind] {
			t.Errorf("trouble %q is said to be the incident %q, which nobody raises", word, kind)
		}
	}
	if len(documented) < 10 || len(raised) < 15 {
		t.Errorf("only %d troubles and %d raised kinds were looked at", len(documented), len(raised))
	}
}

// TestSitesReportKnownProblems: the same for what agents say.
func TestSitesReportKnownProblems(t *testing.T) {
	calls, constants := callsOf(t, "../agent", "reportProblem", "resolveProblem")
	n := 0
	for _, c := range calls {
		if c.arg == "kind" || c.arg == "k" { // of a caller's, or of a list of them
			continue
		}
		n++
		k, ok := constants[c.arg]
		if !ok && c.arg == "ProblemSpool" {
			k = agent.ProblemSpool
		}
		if !slices.Contains(agent.Problems(), k) {
			t.Errorf("%s reports %s, which is not in Problems", c.at, c.arg)
		}
	}
	if n < 6 {
		t.Errorf("only %d reports were looked at", n)
	}
}
