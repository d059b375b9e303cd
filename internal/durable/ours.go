package durable

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// retake runs act. If act fails for want of permission on a name below Options.Ours, retake restores the owner's
// rights and runs act once more. With self, it also restores the rights of the name itself, not only those of its
// folders.
func retake(r *Root, name string, self bool, act func() error) error {
	err := act()
	if r.ours == "" || !errors.Is(err, fs.ErrPermission) || name != r.ours && !strings.HasPrefix(name, r.ours+"/") {
		return err
	}
	if !self {
		name = path.Dir(name)
	}
	if !regain(r, name) {
		return err
	}
	return act()
}

// regain gives the owner the right to read and write a name, and to search the
// folders on the way to it from Options.Ours. It reports whether it changed any.
func regain(r *Root, name string) (changed bool) {
	for i := len(r.ours); i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := r.lstat(name[:i])
		if err != nil || isLink(info) {
			return changed
		}
		want := fs.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if mode := info.Mode().Perm(); mode&want != want {
			if r.Chmod(name[:i], mode|want) != nil {
				return changed
			}
			changed = true
		}
	}
	return changed
}
