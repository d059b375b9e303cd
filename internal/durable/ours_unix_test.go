//go:build unix

package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// In a folder of ours, modes do not block operations; elsewhere they do.
func TestOurs(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("modes deny root nothing: TestModesStopNothing of apply tries this as another account")
	}
	dir := t.TempDir()
	for _, name := range []string{"ours/d/f", "other/d/f"} {
		ok(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		ok(t, os.WriteFile(filepath.Join(dir, name), nil, 0o400))
		ok(t, os.Chmod(filepath.Join(dir, filepath.Dir(name)), 0o500))
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "other/d"), 0o700) })
	r, err := Open(dir, Options{Ours: "ours"})
	ok(t, err)
	for name, want := range map[string]bool{"ours/d/f": true, "other/d/f": false} {
		f, err := r.OpenRW(name)
		if err == nil {
			ok(t, f.Close())
		}
		if (err == nil) != want {
			t.Errorf("open %s: %v", name, err)
		}
		if err := r.Remove(name); (err == nil) != want {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	ok(t, r.Close())
}
