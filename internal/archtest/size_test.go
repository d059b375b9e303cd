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

func TestMethods(t *testing.T) {
	counts, err := methods(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(counts) < 100 {
		t.Fatalf("found methods on %d types only: the search no longer fits the tree", len(counts))
	}
	for _, problem := range tooLarge(counts) {
		t.Error(problem)
	}
}

func tooLarge(counts map[string]int) (problems []string) {
	for name, n := range counts {
		if n > maxMethods {
			problems = append(problems, fmt.Sprintf("%s has %d methods, at most %d are allowed: give a part of its state a type or a room of its own", name, n, maxMethods))
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

// TestMethodsBite breaks the limit in a small made-up tree.
func TestMethodsBite(t *testing.T) {
	var text strings.Builder
	text.WriteString("package big\ntype T[K any] struct{}\n")
	for i := range maxMethods {
		fmt.Fprintf(&text, "func (t *T[K]) m%d() {}\n", i)
	}
	for more, want := range []int{0, 1} {
		counts, err := methods(fstest.MapFS{
			"internal/big/a.go":      {Data: []byte(text.String() + strings.Repeat("func (t *T[K]) more() {}\n", more))},
			"internal/big/a_test.go": {Data: []byte("package big\nfunc (t *T[K]) test() {}")},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := tooLarge(counts); len(got) != want {
			t.Errorf("%d methods more than the limit: %q", more, got)
		}
	}
}
