//go:build unix

package vault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/durable"
)

func TestExposedKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := NewMasterFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMasterFile(path + nextSuffix); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + nextSuffix} {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644} {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadMaster(path, nil); !errors.Is(err, durable.ErrExposed) {
				t.Errorf("%s with mode %v: %v, want durable.ErrExposed", filepath.Base(name), mode, err)
			}
		}
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadMaster(path, nil); err != nil {
		t.Errorf("private files: %v", err)
	}
}
