package durable

import (
	"errors"
	"fmt"
	"io/fs"
)

// damagedSuffix ends the names of entries that were set aside.
const damagedSuffix = ".damaged"

// maxAside bounds the entries that are set aside for one name.
const maxAside = 100

// IsBlocked reports whether err means that a folder, a link or a special file has the name of a file.
func IsBlocked(err error) bool { return errors.Is(err, ErrNotRegular) || errors.Is(err, ErrLink) }

// SetAside renames an entry of the caller's own that is damaged, and returns its new name: the name with ".damaged",
// and a number if that is taken. It removes an empty file or folder and returns "". A missing entry is not an error.
func SetAside(r *Root, name string) (to string, err error) {
	info, err := r.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.IsDir() || info.Mode().IsRegular() && info.Size() == 0 {
		if err := r.Remove(name); err == nil {
			return "", nil
		}
	}
	for n := 1; n <= maxAside; n++ {
		to = name + damagedSuffix
		if n > 1 {
			to = fmt.Sprintf("%s-%d", to, n)
		}
		if err = r.RenameNew(name, to); !errors.Is(err, fs.ErrExist) {
			return to, err
		}
	}
	return "", fmt.Errorf("set aside %q: %d damaged ones are kept already: look at them, then remove them: %w", name, maxAside, err)
}

// MakeRoom sets aside an entry that has the name of a file, or with dir of a folder, and is of another kind. It
// returns its new name, "" if nothing was kept.
func MakeRoom(r *Root, name string, dir bool) (to string, err error) {
	info, err := r.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (dir && info.IsDir() && !isLink(info) || !dir && info.Mode().IsRegular()) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return SetAside(r, name)
}
