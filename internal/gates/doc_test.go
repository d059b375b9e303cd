package gates

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBadInputTable checks that every test in the table of the package comment exists.
func TestBadInputTable(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "# What bad input gets")
	found := regexp.MustCompile(`([a-z]+)\.((?:Test|Fuzz)[A-Z]\w+)`).FindAllStringSubmatch(table, -1)
	if len(found) < 20 {
		t.Fatalf("found %d names", len(found))
	}
	for _, m := range found {
		dir := filepath.Join("..", m[1])
		if m[1] == "nightferry" {
			dir = filepath.Join("..", "..", "cmd", m[1])
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		there := false
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			there = there || strings.Contains(string(b), "\nfunc "+m[2]+"(")
		}
		if !there {
			t.Errorf("there is no %s in %s", m[2], dir)
		}
	}
}
