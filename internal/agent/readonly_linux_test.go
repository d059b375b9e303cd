package agent

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/disktest"
)

// TestReadOnlyTarget: for a target on a read-only volume the run, check and status name the same cause from the first
// failed run on, and status forgets it once a run has ended well.
func TestReadOnlyTarget(t *testing.T) {
	w := newWorld(t)
	base := filepath.Join(t.TempDir(), "volume")
	disktest.Volume(t, base, 64<<20)
	target, state := filepath.Join(base, "package"), w.enrolled(base)
	w.try(disktest.SetReadOnly(base, true))
	writable := false
	t.Cleanup(func() {
		if !writable {
			w.try(disktest.SetReadOnly(base, false))
		}
	})
	d := w.start(state, nil)
	w.publish(tree(3, "one"), target)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.mu.Lock()
	cause := w.finished(0).Error
	w.mu.Unlock()
	if !strings.Contains(cause, "cannot be written: read-only file system") {
		t.Errorf("the run ends with %q", cause)
	}
	s, err := ReadStatus(t.Context(), state, time.Now)
	w.try(err)
	if len(s.Failures) != 1 || s.Failures[0].Cause != cause || s.Failures[0].Channel != "package" {
		t.Errorf("status: %+v", s.Failures)
	}
	found := false
	for _, f := range Check(t.Context(), CheckOptions{StateDir: state, Now: time.Now}) {
		found = found || f.Err != nil && strings.Contains(f.What, target) && f.Err.Error() == cause
	}
	if !found {
		t.Error("check does not name the cause of the failed run")
	}
	w.try(disktest.SetReadOnly(base, false))
	writable = true
	d.end()
	w.start(state, nil)
	w.await("good run", func() bool { return w.ended("verified") })
	s, err = ReadStatus(t.Context(), state, time.Now)
	w.try(err)
	if len(s.Failures) != 0 {
		t.Errorf("status after the good run: %+v", s.Failures)
	}
}
