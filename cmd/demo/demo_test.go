package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestDemo plays the demo with less content, and looks at what a newcomer sees.
func TestDemo(t *testing.T) {
	goroot, err := goRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // Windows
	var out bytes.Buffer
	err = show(t.Context(), &out, []channel{
		{name: "package", from: filepath.Join(goroot, "src", "net"), skip: "http"},
		{name: "driver", from: filepath.Join(goroot, "src", "crypto")},
	}, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for l := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 && !strings.Contains(l, temp) {
			t.Errorf("%d characters: %s", n, l)
		}
	}
	if n := strings.Count(out.String(), " verified\n"); n != 24 {
		t.Errorf("%d rows say verified, want 24 (6 pulls as they go, 6 in the table, 12 of the fleet):\n%s", n, out.String())
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) != 0 {
		t.Errorf("the demo left %v behind, %v", left, err)
	}
}
