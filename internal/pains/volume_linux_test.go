package pains

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// volume mounts a file system of its own in memory over dir, of so many bytes. Only root may.
func volume(t testing.TB, dir string, bytes int64) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a volume takes root, as which scripts/test runs")
	}
	must(t, os.MkdirAll(dir, 0o755))
	must(t, syscall.Mount("nightferry-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", bytes)))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}
