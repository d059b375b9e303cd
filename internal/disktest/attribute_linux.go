package disktest

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The attributes that chattr sets with +i and +a, as linux/fs.h numbers them.
const (
	Immutable  = 0x10
	AppendOnly = 0x20
)

// Mark gives a file or folder an attribute, until the returned function is called or the test ends. Where the account or
// the file system cannot set it, the test is skipped.
func Mark(t testing.TB, path string, attribute int) (unmark func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|attribute)
	}
	if err != nil {
		_ = f.Close()
		t.Skipf("this account or file system cannot set the attribute: %v", err)
	}
	unmark = sync.OnceFunc(func() {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Errorf("unmark %s: %v", path, err)
		}
		_ = f.Close() // it was only read
	})
	t.Cleanup(unmark)
	return unmark
}
