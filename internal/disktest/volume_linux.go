package disktest

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Volume mounts a file system of its own over dir, in memory, of so many bytes,
// until the test ends; dir is made where it is missing. What still has a file
// open there then fails the test. Only root may mount, as which scripts/test
// runs: for anybody else the test is skipped.
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
			_ = syscall.Unmount(dir, syscall.MNT_DETACH) // so that at least nothing is left mounted
		}
	})
}

// Resize gives a Volume another size.
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
