package scan

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOpenWaitsForNoWriter checks that a pipe that has replaced a file opens
// at once, so that the caller can detect it. A file on which another process
// holds a lease must open as soon as the lease is released.
func TestOpenWaitsForNoWriter(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	pipe, leased := filepath.Join(root.Name(), "pipe"), filepath.Join(root.Name(), "leased")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		f, err := Open(root, "pipe")
		if err == nil {
			var info os.FileInfo
			if info, err = f.Stat(); err == nil && info.Mode().IsRegular() {
				t.Error("a pipe looks like a file")
			}
			_ = f.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a writer")
		f, err := os.OpenFile(pipe, os.O_RDWR, 0) // let the open of the pipe return
		if err == nil {
			_ = f.Close()
		}
	}

	if err := os.WriteFile(leased, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	holder, err := os.OpenFile(leased, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	back := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() {
		defer close(back)
		if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			t.Error(err)
		}
	})
	f, err := Open(root, "leased")
	<-back
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}
