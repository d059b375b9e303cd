//go:build !windows

package durable

import (
	"errors"
	"io/fs"
	"os"
)

// renameByLink is renameNew for a file system that cannot do it in one call.
func (f *folder) renameByLink(from, to string) error {
	err := f.root.Link(from, to)
	switch {
	case err == nil:
		return f.remove(from)
	case errors.Is(err, fs.ErrExist):
		old, oldErr := f.lstat(from)
		now, nowErr := f.lstat(to)
		if oldErr != nil || nowErr != nil || !os.SameFile(old, now) {
			return err
		}
		if n, err := f.links(from, old); err == nil && n == 1 {
			return f.rename(from, to) // one file, whose two names the file system does not distinguish
		}
		return f.remove(from) // an earlier call died between its two steps
	}
	if _, err := f.lstat(to); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.rename(from, to)
}
