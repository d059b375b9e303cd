package durable

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nightferry/internal/disktest"
)

// TestSyncsWhole checks that syncfs is trusted only on kernels that report its errors, and on file systems that flush.
func TestSyncsWhole(t *testing.T) {
	const from = 5<<16 | 8
	for text, want := range map[string]bool{"5.8.0": true, "6.1.0-18-amd64": true, "5.10.102.1-microsoft-standard-WSL2": true, "5.7.19": false, "4.18.0-553.el8": false, "3.10.0": false, "": false, "unknown": false} {
		if got := release(text) >= from; got != want {
			t.Errorf("kernel %q: %v", text, got)
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	trusts := func(dir string, want bool) {
		t.Helper()
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := syncsWhole(f); got != want {
			t.Errorf("%s: %v", dir, got)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	trusts("/proc", false)
	volume := filepath.Join(t.TempDir(), "volume")
	disktest.Volume(t, volume, 1<<20)
	trusts(volume, release(unix.ByteSliceToString(u.Release[:])) >= from)
}
