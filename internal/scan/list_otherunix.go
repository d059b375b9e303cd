//go:build unix && !linux

package scan

import (
	"io/fs"
	"os"
	"path/filepath"
)

type lister struct{ root string }

type scratch struct{}

func openLister(dir string) (*lister, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	return &lister{root: dir}, nil
}

func (l *lister) close() error { return nil }

func (l *lister) listFolder(dir string, skip func(string, bool) bool, _ *scratch) ([]Item, volume, error) {
	items, err := listPortable(filepath.Join(l.root, dir), dir, skip)
	return items, volume{}, err
}

func unixMode(info fs.FileInfo) uint16 { return uint16(info.Mode().Perm()) }
