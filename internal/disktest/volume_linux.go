package disktest

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Volume mounts an in-memory file system of the given size over dir until the
// test ends; it creates dir if it is missing. The test fails if a file is
// still open there at its end. Only root may mount, and scripts/test runs as
// root: for other accounts the test is skipped.
func Volume(t testing.TB, dir string, bytes int64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system, as which scripts/test runs")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, dir, bytes, 0)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH) // so that nothing stays mounted
		}
	})
}

// Resize changes the size of a Volume.
func Resize(t testing.TB, dir string, bytes int64) {
	t.Helper()
	mount(t, dir, bytes, syscall.MS_REMOUNT)
}

func mount(t testing.TB, dir string, bytes int64, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("nightferry-test", dir, "tmpfs", flags, fmt.Sprintf("size=%d,mode=755", bytes)); err != nil {
		t.Fatalf("mount %s: %v", dir, err)
	}
}
