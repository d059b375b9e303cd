package scan

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

// TestFileIsReadStill checks that no program can open a file for writing while its bytes are read for a release, and that a
// file that a program has open for writing is refused.
func TestFileIsReadStill(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "image.wim")
	if err := os.WriteFile(name, []byte("whole"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	read := func() *os.File {
		t.Helper()
		f, err := OpenStill(root, "image.wim")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := read()
	if w, err := os.OpenFile(name, os.O_WRONLY, 0); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		t.Errorf("it was opened for writing while it is read: %v, %v", w, err)
	}
	other := read() // a second reader may
	if err := errors.Join(f.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := OpenStill(root, "image.wim"); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		t.Errorf("it was read while a program writes it: %v, %v", f, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := read().Close(); err != nil {
		t.Fatal(err)
	}
}
