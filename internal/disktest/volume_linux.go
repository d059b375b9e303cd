package disktest

import (
	"errors"
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

// Fill writes the file name until its volume has no byte left.
func Fill(t testing.TB, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for b := make([]byte, size); err == nil; _, err = f.Write(b) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
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

// SetReadOnly mounts a Volume for reading only, or for writing again. It fails while a file is open there for writing.
func SetReadOnly(dir string, only bool) error {
	flags := uintptr(syscall.MS_REMOUNT)
	if only {
		flags |= syscall.MS_RDONLY
	}
	return syscall.Mount("nightferry-test", dir, "tmpfs", flags, "")
}
