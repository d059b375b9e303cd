package kinds

import (
	"strings"
	"testing"
)

// TestRemedyOfRuns: the remedy of a run that fails is about its cause.
func TestRemedyOfRuns(t *testing.T) {
	for text, want := range map[string]string{"open x: read-only file system": "for writing", "rename x: permission denied": "account", "something": "nightferry sync"} {
		if got := Remedy(RunFails, text); !strings.Contains(got, want) || strings.Contains(got, "`") {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := Remedy("site-unheard", ""); got == "" {
		t.Error("a kind of a newer agent has no remedy")
	}
}
