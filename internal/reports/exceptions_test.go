package reports

import (
	"fmt"
	"strings"
	"testing"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

// TestLongNameKeepsTheCause: the text about a file with a long name still has its cause, and so its remedy.
func TestLongNameKeepsTheCause(t *testing.T) {
	path := strings.Repeat("folder with a long name/", 200) + "driver.sys"
	text := nameException(ledger.Exception{Path: path, Cause: fmt.Sprintf("rename %q to %q: read-only file system", path, path+".old")})
	if len(text) > 2*maxTold+3 || !strings.Contains(text, "driver.sys (") || !strings.Contains(text, "read-only file system)") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	remedy := kinds.Remedy(kinds.RunFails, clipText("site lisbon, channel package: two runs in a row ended failed: "+strings.Repeat(text+"; ", 3)+text))
	if !strings.Contains(remedy, "the target's volume is read-only") {
		t.Errorf("remedy %q for %s", remedy, text)
	}
}
