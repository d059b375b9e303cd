package core_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/core"
)

// TestRemediesAreDocumented: each mail says what to do, in the words of
// docs/operations.md.
func TestRemediesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)`(?: ·)? \\| .* \\| (.*) \\|$").FindAllStringSubmatch(string(b), -1) {
		if _, ok := told[m[1]]; !ok { // tables further down use some of the words again
			told[m[1]] = strings.ReplaceAll(m[2], "`", "")
		}
	}
	var kinds []string
	for _, k := range core.Kinds() {
		if k != core.SiteSays {
			kinds = append(kinds, string(k))
		}
	}
	for _, p := range agent.Problems() {
		kinds = append(kinds, string(core.SiteSays)+"-"+p)
	}
	for _, k := range kinds {
		if got := core.Remedy(k); told[k] == "" || got != told[k] {
			t.Errorf("the mail about %s says %q, docs/operations.md %q: write the same into internal/core/remedy.go", k, got, told[k])
		}
	}
}
