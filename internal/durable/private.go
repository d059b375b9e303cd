package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WritePrivate creates a key file that only its owner can read (on Windows:
// the owner, SYSTEM and the administrators) and makes it durable. It never
// overwrites: an existing file gives an error for which
// errors.Is(err, fs.ErrExist) holds.
func WritePrivate(path string, data []byte) error {
	f, err := createPrivate(path)
	if err != nil {
		return wrap("create key file", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		// Half a key is worth nothing, and would stand in the way.
		return errors.Join(wrap("write key file", path, err), os.Remove(path))
	}
	return wrap("write key file", path, syncParent(filepath.Dir(path)))
}

// MkdirPrivate makes a folder, and its parents where they are missing, that
// only its owner can look into (on Windows: the owner, SYSTEM and the
// administrators), with all that will be made in it. A folder that is there
// already becomes so if its owner is trusted, else the error is ErrUntrusted;
// what it holds on Windows inherits that. Open it with [Options].Trusted, which
// judges what was put there before.
func MkdirPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return wrap("create folder", path, err)
	}
	err := mkdirPrivate(path)
	if errors.Is(err, fs.ErrExist) {
		return wrap("close folder to others", path, closeFolder(path))
	}
	return wrap("create folder", path, err)
}
