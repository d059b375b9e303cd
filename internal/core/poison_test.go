package core_test

import (
	"strings"
	"testing"

	"nightferry/internal/kinds"
	"nightferry/internal/wire"
)

// TestPoisonMessage: a message whose handling panics is an incident that names
// the site and the verb, and the Core continues.
func TestPoisonMessage(t *testing.T) {
	w := newWorld(t, nil)
	for range 2 {
		w.core.Guard(wire.Address{Domain: "apac", Site: "osaka"}, wire.VerbReport, func() {
			var nothing *struct{ field int }
			nothing.field++
		})
	}
	text := w.untilIncident(string(kinds.Inside))
	for _, want := range []string{"report of site apac/osaka", "nil pointer", "core_test.TestPoisonMessage"} {
		if !strings.Contains(text, want) {
			t.Errorf("the incident does not name %q: %s", want, text)
		}
	}
	w.write("a.txt", "one")
	w.publish("package")
}
