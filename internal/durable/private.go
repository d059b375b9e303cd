package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WritePrivate creates a key file that only its owner can read (on Windows: the owner, SYSTEM and the
// administrators) and makes it durable. It never overwrites: if the file exists, errors.Is(err, fs.ErrExist) is
// true.
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
		// A partial key is useless and would block the next attempt.
		return errors.Join(wrap("write key file", path, err), os.Remove(path))
	}
	return wrap("write key file", path, syncParent(filepath.Dir(path)))
}

// MkdirPrivate makes a folder, and its missing parents. Only its owner (on Windows also SYSTEM and the
// administrators) can access it and everything made in it later. An existing folder becomes private if its owner is
// trusted, else the error is ErrUntrusted. On Windows its existing content inherits the rights. Open the folder
// with [Options].Trusted, which checks its existing content.
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
