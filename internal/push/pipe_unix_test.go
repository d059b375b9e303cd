//go:build unix

package push

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPipeInAFilesPlace: a path that was a file when the source was listed, and
// is a pipe when it is read, fails the push. The push does not wait for a
// writer.
func TestPipeInAFilesPlace(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	pipe := filepath.Join(root.Name(), "a")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	p := &push{root: root, o: Options{Now: time.Now}}
	read := make(chan error, 1)
	go func() {
		_, err := (&taskReader{p: p}).readOnce(t.Context(), &item{path: "a"})
		read <- err
	}()
	select {
	case err := <-read:
		if err == nil || !strings.Contains(err.Error(), "not a regular file any more") {
			t.Errorf("%v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for a writer")
		f, err := os.OpenFile(pipe, os.O_RDWR, 0) // let the blocked open return
		if err == nil {
			_ = f.Close()
		}
	}
}
