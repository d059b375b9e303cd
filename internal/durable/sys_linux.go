package durable

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// syncfs flushes everything in one call, many files at the disk's own speed.
const needsFileSync = false

func (r *Root) syncAll() error { return unix.Syncfs(int(r.self.Fd())) }

// resolve looks a path up from the root without following any link.
func (r *Root) resolve(name string, extra uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | extra,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(int(r.self.Fd()), name, &how)
		// EAGAIN: a rename elsewhere on the system raced the look-up.
		if err == unix.EINTR || (err == unix.EAGAIN && try < 100) {
			continue
		}
		return fd, err
	}
}

// noOpenat2 reports that the kernel is older than 5.6, or that a sandbox
// forbids the call.
func noOpenat2(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
}

func (r *Root) checkChain(name string) error {
	fd, err := r.resolve(name, 0)
	switch {
	case err == nil:
		return unix.Close(fd)
	case err == unix.ELOOP:
		return fmt.Errorf("%w: remove it", ErrLink)
	case noOpenat2(err) || err == unix.EAGAIN:
		return r.checkEach(name)
	}
	return nil // missing, or not a folder: the operation will say so
}

// sameVolume asks for the device, and whether a mount point is crossed: a bind
// mount of the same device forbids renames too.
func (r *Root) sameVolume(name string) (bool, error) {
	if err := r.check(name, true); err != nil {
		return false, err
	}
	var root, st unix.Stat_t
	if err := unix.Fstat(int(r.self.Fd()), &root); err != nil {
		return false, err
	}
	fd, err := r.resolve(name, unix.RESOLVE_NO_XDEV)
	if err == nil {
		err = errors.Join(unix.Fstat(fd, &st), unix.Close(fd))
		return err == nil && st.Dev == root.Dev, err
	}
	if err == unix.EXDEV {
		return false, nil
	}
	if !noOpenat2(err) {
		return false, err
	}
	info, err := r.lstat(name)
	if err != nil {
		return false, err
	}
	return deviceOf(info) == uint64(root.Dev), nil
}

func (r *Root) probe(name string) error {
	f, err := r.lstat(name)
	if err != nil {
		return err
	}
	if !f.Mode().IsRegular() {
		return nil
	}
	fd, err := r.resolve(name, 0)
	if err != nil {
		return nil // no openat2: nothing more to learn
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st); err != nil {
		return nil // an old kernel: the rename will tell
	}
	if st.Attributes&st.Attributes_mask&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
		return fmt.Errorf("%w: marked immutable: chattr -i -a it", ErrLocked)
	}
	return nil
}
