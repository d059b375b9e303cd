package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// explain adds to "operation not permitted" why the name could not be changed, if the file system shows it: an
// attribute of the name or of its folder, or a sticky folder with a file of another account.
func (f *folder) explain(name string, err error) error {
	if !errors.Is(err, unix.EPERM) || errors.Is(err, ErrImmutable) {
		return err
	}
	if marked := f.immutable(name); marked != nil {
		return marked
	}
	dir, derr := f.lstat(path.Dir(name))
	file, ferr := f.lstat(name)
	if derr != nil || ferr != nil || dir.Mode()&fs.ModeSticky == 0 {
		return err
	}
	self := uint32(os.Geteuid())
	if owner := ownerOf(file); owner != self && ownerOf(dir) != self {
		return fmt.Errorf("it belongs to account %d, and its folder has the sticky bit: %w", owner, unix.EPERM)
	}
	return err
}

func ownerOf(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

// immutable returns an ErrImmutable if an attribute of the name or of its folder forbids to replace or delete it.
func (f *folder) immutable(name string) error {
	if f.isMarked(name) {
		return fmt.Errorf("%w: %w", ErrImmutable, unix.EPERM)
	}
	if f.isMarked(path.Dir(name)) {
		return fmt.Errorf("its folder is %w: %w", ErrImmutable, unix.EPERM)
	}
	return nil
}

// isMarked reports whether a file or folder has the attribute immutable or append-only. Without openat2, or on an old
// kernel, it does not find out.
func (f *folder) isMarked(name string) bool {
	if !f.one {
		return false
	}
	fd, err := f.openat2(name, unix.OpenHow{Flags: unix.O_PATH})
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statx_t
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st) == nil &&
		st.Attributes&st.Attributes_mask&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
}

func (f *folder) probe(name string) error {
	info, err := f.lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return f.immutable(name)
}
