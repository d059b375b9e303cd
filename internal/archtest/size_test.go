package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// maxMethods bounds the methods of one type. A type with more usually has several jobs, and faults hide between them.
const maxMethods = 40

// largeTypes are the types that still exceed maxMethods, with their maximum. A number here may only become smaller; a
// type within maxMethods must leave the list.
var largeTypes = map[string]int{}

func TestMethods(t *testing.T) {
	counts, err := methods(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(counts) < 100 {
		t.Fatalf("found methods on %d types only: the search no longer fits the tree", len(counts))
	}
	for _, problem := range tooLarge(counts, largeTypes) {
		t.Error(problem)
	}
}

func tooLarge(counts, known map[string]int) (problems []string) {
	for name, n := range counts {
		most, listed := known[name]
		switch {
		case !listed && n > maxMethods:
			problems = append(problems, fmt.Sprintf("%s has %d methods, at most %d are allowed: give a part of its state a type or a room of its own", name, n, maxMethods))
		case listed && n > most:
			problems = append(problems, fmt.Sprintf("%s has %d methods, and had %d: it must shrink, not grow", name, n, most))
		case listed && n <= maxMethods:
			problems = append(problems, fmt.Sprintf("%s has %d methods and fits: remove it from largeTypes", name, n))
		}
	}
	for name := range known {
		if counts[name] == 0 {
			problems = append(problems, name+" is in largeTypes but has no methods: remove it")
		}
	}
	slices.Sort(problems)
	return problems
}

// methods counts the methods of each named type in the product's code, without bench, tests and test machinery. A
// method with one variant for each system counts once.
func methods(fsys fs.FS) (map[string]int, error) {
	seen := map[string]map[string]bool{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") ||
			!strings.HasPrefix(name, "internal/") && !strings.HasPrefix(name, "cmd/") {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			full := path.Dir(name) + "." + receiver(fn.Recv.List[0].Type)
			if seen[full] == nil {
				seen[full] = map[string]bool{}
			}
			seen[full][fn.Name.Name] = true
		}
		return nil
	})
	counts := map[string]int{}
	for name, set := range seen {
		counts[name] = len(set)
	}
	return counts, err
}

// receiver returns the name of a method's type, without its pointer and type parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// TestMethodsBite breaks the limit once in each way in a small made-up tree.
func TestMethodsBite(t *testing.T) {
	var text strings.Builder
	text.WriteString("package big\ntype T[K any] struct{}\n")
	for i := range maxMethods + 1 {
		fmt.Fprintf(&text, "func (t *T[K]) m%d() {}\n", i)
	}
	counts, err := methods(fstest.MapFS{"internal/big/a.go": {Data: []byte(text.String())}, "internal/big/a_test.go": {Data: []byte("package big\nfunc (t *T[K]) more() {}")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		known map[string]int
		want  string
	}{
		{"unlisted", nil, "give a part"},
		{"grown", map[string]int{"internal/big.T": maxMethods}, "must shrink"},
		{"within its bound", map[string]int{"internal/big.T": maxMethods + 1}, ""},
		{"vanished", map[string]int{"internal/big.T": maxMethods + 1, "internal/gone.T": 50}, "has no methods"},
	} {
		got := strings.Join(tooLarge(counts, tt.known), "\n")
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := tooLarge(map[string]int{"internal/big.T": maxMethods}, map[string]int{"internal/big.T": 60}); len(got) != 1 {
		t.Errorf("a type that fits stays listed: %q", got)
	}
}
