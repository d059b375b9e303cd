//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Otherwise opening a pipe would wait for its other end.
const dontWait = unix.O_NONBLOCK

// isLeased reports whether an open with dontWait failed because another process holds a lease on the file
// (fcntl(2)), such as a file server for its client.
func isLeased(err error) bool { return errors.Is(err, unix.EWOULDBLOCK) }

// Unix has permission bits, though not every file system keeps them.
const hasModes = true

// The umask may take bits from a new file's mode, so the mode is set again.
const umaskFree = false

func localName(string) bool                  { return true }
func isLink(info fs.FileInfo) bool           { return info.Mode()&fs.ModeSymlink != 0 }
func isVolumeMount(string, fs.FileInfo) bool { return false }
func setSparse(*os.File) error               { return nil }

// isSparse reports whether a file that was only extended takes no space.
func isSparse(_ *Root, info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Blocks == 0
}

func (f *folder) remove(name string) error { return f.root.Remove(name) }

func (f *folder) syncDir(name string) error {
	if err := f.check(name, true); err != nil {
		return err
	}
	d, err := f.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *folder) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.self.Fd()), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func isLockedErrno(err error) bool {
	return errors.Is(err, unix.ETXTBSY) || errors.Is(err, unix.EBUSY)
}

func isFullErrno(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func isReadOnlyErrno(err error) bool { return errors.Is(err, unix.EROFS) }

func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
			return ErrBusy
		}
		return err
	}
}

func unlockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

func createPrivate(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
}

func mkdirPrivate(path string) error { return os.Mkdir(path, 0o700) }

func syncParent(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// KeepOwnerRights clears the owner's bits in the umask of the process: under a umask such as 0177 an account could not
// use the folders and files that it makes itself. A program calls it once, when it starts.
func KeepOwnerRights() { unix.Umask(unix.Umask(0o777) &^ 0o700) }
