package api

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// paths returns the paths of the contract that files name, without the method
// and the wildcard.
func paths(t *testing.T, files ...string) []string {
	t.Helper()
	var b []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, text...)
	}
	var out []string
	for _, m := range regexp.MustCompile(`"(?:GET |POST )?(/v1/[a-z/]+)`).FindAllSubmatch(b, -1) {
		out = append(out, strings.TrimSuffix(string(m[1]), "/"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestContract: the client has a call for each route and for nothing else, and no
// route is in a program.
func TestContract(t *testing.T) {
	routes, calls := paths(t, "routes.go", "jobs.go"), paths(t, "calls.go")
	if len(routes) < 25 {
		t.Fatalf("found %d routes: the search no longer fits", len(routes))
	}
	if !slices.Equal(routes, calls) {
		t.Errorf("routes %q\ncalls  %q", routes, calls)
	}
	programs, err := filepath.Glob("../../cmd/nightferry/*.go")
	if err != nil || len(programs) < 30 {
		t.Fatal(len(programs), err)
	}
	for _, p := range programs {
		if list := paths(t, p); len(list) > 0 {
			t.Errorf("%s names %q: routes and calls are in internal/api", p, list)
		}
	}
}
