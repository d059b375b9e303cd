//go:build unix

package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func expose(t *testing.T, path string) { ok(t, os.Chmod(path, 0o640)) }

// A folder that other accounts could read becomes private. (Wine cannot change the access list of an existing
// folder.)
func TestMkdirPrivateClosesAnOpenFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "open")
	ok(t, os.Mkdir(dir, 0o755))
	ok(t, MkdirPrivate(dir))
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700: %v", info.Mode(), err)
	}
}

// A folder that other programs may use is not closed to them.
func TestMkdirPrivateLeavesAFolderInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "srv")
	ok(t, os.MkdirAll(filepath.Join(dir, "other"), 0o755))
	if err := MkdirPrivate(dir); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v, want ErrUntrusted", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, want 0755: %v", info.Mode(), err)
	}
}
