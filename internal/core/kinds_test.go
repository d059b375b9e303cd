package core_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/core"
)

// TestKindsAreDocumented keeps docs/operations.md and the code in step, both
// ways.
func TestKindsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)…?`").FindAllStringSubmatch(string(b), -1) {
		rows = append(rows, m[1])
	}
	want := []string{}
	for _, k := range core.Kinds() {
		if k == core.SiteSays {
			k += "-"
		}
		want = append(want, string(k))
	}
	for _, p := range agent.Problems() {
		want = append(want, string(core.SiteSays)+"-"+p)
	}
	slices.Sort(rows)
	slices.Sort(want)
	if !slices.Equal(rows, want) {
		t.Errorf("docs/operations.md has the kinds\n%q, the code\n%q", rows, want)
	}
}
