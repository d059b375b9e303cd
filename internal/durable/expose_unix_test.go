//go:build unix

package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func expose(t *testing.T, path string) { ok(t, os.Chmod(path, 0o640)) }

// A folder that was open becomes private. (Wine cannot change the access list
// of a folder that is there.)
func TestMkdirPrivateClosesAnOpenFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	ok(t, os.Mkdir(dir, 0o755))
	if err := Private(dir); !errors.Is(err, ErrExposed) {
		t.Fatalf("an open folder: %v", err)
	}
	ok(t, MkdirPrivate(dir))
	if err := Private(dir); err != nil {
		t.Error(err)
	}
}
