package main

import (
	"path/filepath"
	"runtime"
	"testing"
)

func TestVolumeRoots(t *testing.T) {
	dir := t.TempDir()
	roots, others := []string{"/", "//", "/..", "/srv/.."}, []string{"/srv", dir, filepath.Join(dir, "not", "there"), "."}
	if runtime.GOOS == "windows" {
		roots = []string{`C:\`, `c:/`, `C:\..`, `\\server\share`, `\\server\share\`, `//server/share`, `\\?\C:\`}
		others = []string{`C:\depot`, dir, `\\server\share\depot`, `\\?\C:\depot`}
	}
	for _, path := range roots {
		if root, err := volumeRoot(path); root == "" || err != nil {
			t.Errorf("%s is a root: got %q, %v", path, root, err)
		}
	}
	for _, path := range others {
		if root, err := volumeRoot(path); root != "" || err != nil {
			t.Errorf("%s is no root: got %q, %v", path, root, err)
		}
	}
}
