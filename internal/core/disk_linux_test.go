package core_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/disktest"
)

// TestTargetDiskFull: the target's volume fills up, once before a transfer and
// once in the middle of it. The agent says so, what was there stays as it was,
// and it goes on when there is space.
func TestTargetDiskFull(t *testing.T) {
	w := newWorld(t, nil)
	g := &gate{}
	w.through(g.fault)
	target := w.folder("osaka", "package")
	disktest.Volume(t, target, 16<<20)
	var stop func()
	t.Cleanup(func() {
		if stop != nil {
			stop() // it holds the target open
		}
	})
	old := w.noise("a.bin", 1<<20, 1)
	w.publish("package")
	stop = w.joined("osaka", nil)
	w.untilCurrent(1, "osaka")

	// It does not fit.
	w.noise("a.bin", 1<<20, 2)
	for i := range 5 {
		w.noise("big"+string(rune('0'+i)), 4<<20, uint64(10+i))
	}
	w.publish("package")
	text := w.untilIncident("site-disk")
	if !strings.Contains(text, "channel package") {
		t.Errorf("the incident says %q", text)
	}
	w.untouched(target, old, "big")
	disktest.Resize(t, target, 48<<20)
	w.untilCurrent(2, "osaka")
	w.untilSame(target)
	w.untilOver("site-disk")

	// It would fit, but somebody else is faster.
	old = w.noise("a.bin", 1<<20, 2)
	for i := range 3 {
		w.noise("late"+string(rune('0'+i)), 4<<20, uint64(20+i))
	}
	filler := filepath.Join(target, "not-ours.tmp")
	g.atFirstPack(func() {
		var room syscall.Statfs_t
		if err := syscall.Statfs(target, &room); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filler, make([]byte, int64(room.Bavail)*room.Bsize-(2<<20)), 0o644); err != nil {
			t.Error(err)
		}
	})
	w.publish("package")
	w.untilIncident("site-disk")
	w.untouched(target, old, "late")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.untilCurrent(3, "osaka")
	w.untilSame(target)
	w.untilOver("site-disk")
}

// untouched: a target holds what it held, and nothing of what was on its way.
func (w *world) untouched(target, a, fresh string) {
	w.t.Helper()
	if b, err := os.ReadFile(filepath.Join(target, "a.bin")); err != nil || string(b) != a {
		w.t.Errorf("a.bin is not what it was: %v", err)
	}
	if there, err := filepath.Glob(filepath.Join(target, fresh+"*")); err != nil || len(there) > 0 {
		w.t.Errorf("%v is there: %v", there, err)
	}
}
