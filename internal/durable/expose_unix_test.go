//go:build unix

package durable

import (
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
