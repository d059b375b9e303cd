package push

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamesThatAreNoText: a name that is not UTF-8 gets a remedy that helps,
// not the flag for names that only Windows cannot store.
func TestNamesThatAreNoText(t *testing.T) {
	g := newRig(t, nil)
	for _, name := range []string{"caf\xe9.txt", "aux.txt", "fine.txt"} {
		if err := os.WriteFile(filepath.Join(g.source, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, allow := range []bool{false, true} {
		_, err := g.push(func(o *Options) { o.AllowUnportable = allow })
		var guard *GuardError
		if !errors.As(err, &guard) || guard.Guard != "names" {
			t.Fatalf("allowed %v: %v", allow, err)
		}
		if text := guard.Error(); !strings.Contains(text, "not UTF-8") || !strings.Contains(text, "convmv") || strings.Contains(text, "--allow-unportable-names") {
			t.Errorf("allowed %v: %s", allow, text)
		}
	}
}
