package agent

import (
	"errors"
	"testing"

	"nightferry/internal/durable"
)

// TestTwoAgentsOfOneFolder: a second agent of the same state directory ends with
// an error, and the first one continues.
func TestTwoAgentsOfOneFolder(t *testing.T) {
	w := newWorld(t)
	dir := w.enrolled(t.TempDir())
	w.start(dir, nil)
	w.await("a hello", func() bool { return w.hellos > 0 })
	if err := Run(t.Context(), options(dir, t.Logf)); !errors.Is(err, durable.ErrBusy) {
		t.Errorf("got %v", err)
	}
}
