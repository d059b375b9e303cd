package push

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamesOfNoSite: names that a permission would not make publishable are counted, and the remedy names no permission.
func TestNamesOfNoSite(t *testing.T) {
	for _, c := range []struct{ name, says string }{
		{"caf\xe9.txt", "convmv"},
		{"line\nfeed.txt", "rename or exclude them)"},
	} {
		g := newRig(t, nil)
		for _, name := range []string{c.name, "aux.txt", "fine.txt"} {
			if err := os.WriteFile(filepath.Join(g.source, name), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for allow, count := range map[bool]string{false: "2 names cannot be held by every site, and 1 of them by none", true: "1 names can be held by no site"} {
			_, err := g.push(func(o *Options) { o.AllowUnportable = allow })
			var guard *GuardError
			if !errors.As(err, &guard) || guard.Guard != "names" {
				t.Fatalf("%q, allowed %v: %v", c.name, allow, err)
			}
			if text := guard.Error(); !strings.Contains(text, count) || !strings.Contains(text, c.says) || strings.Contains(text, "--allow-unportable-names") {
				t.Errorf("%q, allowed %v: %s", c.name, allow, text)
			}
		}
	}
}
