//go:build unix

package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A pipe without another end, a pipe with a silent writer, and a folder: none is opened as a file, and Open never
// blocks.
func TestOpenTakesRegularFilesOnly(t *testing.T) {
	whole := open(t, Options{})
	each := open(t, Options{}) // as on a system without openat2
	each.one = false
	for _, r := range []*Root{whole, each} {
		for _, name := range []string{"alone", "silent"} {
			ok(t, unix.Mkfifo(filepath.Join(r.Dir(), name), 0o644))
		}
		w, err := os.OpenFile(filepath.Join(r.Dir(), "silent"), os.O_RDWR, 0)
		ok(t, err)
		defer w.Close()
		ok(t, r.Mkdir("folder", 0o755))
		for _, name := range []string{"alone", "silent", "folder"} {
			if _, err := r.Open(name); !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := r.ReadDir("alone"); err == nil {
			t.Error("a pipe was listed")
		}
	}
}
