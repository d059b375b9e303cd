package apply

import (
	"errors"
	"io/fs"
	"syscall"
)

// sameMode reports whether a file's permission bits are what this target makes of
// the mode want. If the file has an access list, the bits of the group are that
// list's mask, which belongs to whoever made the list.
func (s *site) sameMode(name string, have, want uint16) bool {
	have &= 0o777
	return !s.keeps.Modes || have == want || (have^want)&0o707 == 0 && s.root.HasAccessList(name)
}

// setMode sets a file's permission bits to want, where they differ. The mask of an
// access list stays, and so do a folder's setgid and sticky bits.
func (s *site) setMode(name string, info fs.FileInfo, want uint16) error {
	if s.sameMode(name, uint16(info.Mode().Perm()), want) {
		return nil
	}
	mode := fs.FileMode(want)
	if info.IsDir() {
		mode |= info.Mode() & (fs.ModeSetgid | fs.ModeSticky)
	}
	if s.root.HasAccessList(name) {
		mode = mode&^0o070 | info.Mode()&0o070
	}
	return s.root.Chmod(name, mode)
}

// tolerate reports that the target refused a mode or a time, and returns every
// other error. The content is right, so the run continues; a check finds the
// difference.
func (s *site) tolerate(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		s.retry(err)
		return nil
	}
	return err
}
