package kinds

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/operations.md anew")

const (
	page  = "../../docs/operations.md"
	begin = "<!-- The kinds of incidents: written by go test ./internal/kinds -run TestDocs -update -->\n"
	end   = "<!-- End of the kinds. -->\n"
)

// tables returns the incident tables of docs/operations.md.
func tables() string {
	var b strings.Builder
	head := "| kind | cause | remedy |\n| --- | --- | --- |\n"
	core, sites := Entries()
	b.WriteString(begin + "\n" + head)
	row := func(e Entry) {
		mark := ""
		if e.Expires > 0 {
			mark = " ·"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s |\n", e.Kind, mark, e.Cause, e.Remedy)
	}
	for _, e := range core {
		row(e)
	}
	b.WriteString("| `site-…` | a problem that a site reports, of each channel that has it; over when the site says so, has a new database, is revoked or no longer configured | below |\n")
	b.WriteString("\nWhat sites report:\n\n" + head)
	for _, e := range sites {
		row(e)
	}
	return b.String() + "\n" + end
}

// TestDocs keeps docs/operations.md and the registry in step.
func TestDocs(t *testing.T) {
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	from, to := strings.Index(text, begin), strings.Index(text, end)
	if from < 0 || to < from {
		t.Fatal("docs/operations.md has no place for the kinds")
	}
	to += len(end)
	if text[from:to] == tables() {
		return
	}
	if !*update {
		t.Fatal("docs/operations.md is not what the registry says: go test ./internal/kinds -run TestDocs -update")
	}
	if err := os.WriteFile(page, []byte(text[:from]+tables()+text[to:]), 0o644); err != nil {
		t.Fatal(err)
	}
}
