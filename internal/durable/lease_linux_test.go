package durable

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeasedFileIsWaitedFor: a file on which a file server holds a lease for its client is read as soon as the
// lease is released.
func TestLeasedFileIsWaitedFor(t *testing.T) {
	r := open(t, Options{})
	ok(t, os.WriteFile(filepath.Join(r.Dir(), "leased"), []byte("content"), 0o644))
	holder, err := os.OpenFile(filepath.Join(r.Dir(), "leased"), os.O_RDWR, 0)
	ok(t, err)
	defer holder.Close()
	_, err = unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	ok(t, err)
	back := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() {
		defer close(back)
		if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			t.Error(err)
		}
	})
	f, err := r.Open("leased")
	<-back
	ok(t, err)
	b, err := io.ReadAll(f)
	if ok(t, err); string(b) != "content" {
		t.Errorf("%q", b)
	}
	ok(t, f.Close())
}
