package core_test

import (
	"slices"
	"testing"

	"nightferry/internal/core"
)

// TestHealthNamesNoPaths: /healthz and /readyz need no login. In every failing state their reasons are fixed texts, because
// the causes name paths.
func TestHealthNamesNoPaths(t *testing.T) {
	w := newWorld(t, nil)
	w.stop()
	c, err := core.Open(t.Context(), w.options, w.settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Fail(w.options.Data); err != nil {
		t.Fatal(err)
	}
	want := []string{"it is starting", "the ledger's disk is full", "the ledger cannot be read", "the store does not answer"}
	if h := c.Health(t.Context()); h.Live || h.Ready || !slices.Equal(h.Reasons, want) {
		t.Errorf("%+v, want %q", h, want)
	}
	_ = c.Close() // the ledger is closed already
}
