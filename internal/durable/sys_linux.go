package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// syncAll flushes everything in one call, which is fast for many files.
func (f *folder) syncAll() error { return unix.Syncfs(int(f.self.Fd())) }

// syncsWhole reports whether syncfs(2) flushes a folder's volume to the disk and reports failed writes. Before
// Linux 5.8 it reports none. FUSE does not ask its server to flush, and overlayfs and NFS hid errors in some
// kernels. So only file systems known to do both are trusted.
func syncsWhole(self *os.File) bool {
	var u unix.Utsname
	var st unix.Statfs_t
	if unix.Uname(&u) != nil || unix.Fstatfs(int(self.Fd()), &st) != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return release(unix.ByteSliceToString(u.Release[:])) >= 5<<16|8
	}
	return false
}

// release returns a kernel's major and minor number as one number, or 0 if text has none.
func release(text string) (n int) {
	var major, minor int
	if _, err := fmt.Sscanf(text, "%d.%d", &major, &minor); err != nil {
		return 0
	}
	return major<<16 | minor
}

// keepsInodes reports whether inode numbers and change times outlive a remount. FAT and exFAT store neither.
func keepsInodes(r *Root) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(r.self.Fd()), &st) == nil && st.Type != unix.MSDOS_SUPER_MAGIC && st.Type != unix.EXFAT_SUPER_MAGIC
}

// openat2 opens a name below the root without following any link.
func (f *folder) openat2(name string, how unix.OpenHow) (int, error) {
	how.Flags |= unix.O_CLOEXEC
	how.Resolve |= unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
	for try := 0; ; try++ {
		fd, err := unix.Openat2(int(f.self.Fd()), name, &how)
		// EAGAIN: a rename elsewhere on the system raced the lookup.
		if err == unix.EINTR || err == unix.EAGAIN && try < 100 {
			continue
		}
		runtime.KeepAlive(f)
		if err == unix.ELOOP {
			err = fmt.Errorf("%w: remove it", ErrLink)
		}
		return fd, err
	}
}

// walkFlags open a folder without the right to read it.
const walkFlags = unix.O_PATH

// looksUpInOne reports whether openat2 works: the kernel is 5.6 or newer, and no sandbox forbids the call.
func looksUpInOne(self *os.File) bool {
	fd, err := (&folder{self: self}).openat2(".", unix.OpenHow{Flags: unix.O_PATH})
	return err == nil && unix.Close(fd) == nil
}

func (f *folder) checkChain(name string) error {
	if !f.one {
		return f.checkEach(name)
	}
	fd, err := f.openat2(name, unix.OpenHow{Flags: unix.O_PATH})
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, ErrLink):
		return err
	}
	return nil // missing, or not a folder: the operation will report it
}

func (f *folder) openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	if !f.one {
		return f.root.OpenFile(name, flag, perm)
	}
	how := unix.OpenHow{Flags: uint64(flag) | unix.O_LARGEFILE}
	if flag&os.O_CREATE != 0 {
		how.Mode = uint64(perm.Perm())
	}
	fd, err := f.openat2(name, how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(f.dir, name)), nil
}

// inFolder calls fn with the folder of name and with name's last element.
func (f *folder) inFolder(name string, fn func(dir int, base string) error) error {
	cut := lastSlash(name)
	if cut < 0 {
		err := fn(int(f.self.Fd()), name)
		runtime.KeepAlive(f)
		return err
	}
	fd, err := f.openat2(name[:cut], unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY})
	if err != nil {
		return err
	}
	return errors.Join(fn(fd, name[cut+1:]), unix.Close(fd))
}

func (f *folder) lstat(name string) (fs.FileInfo, error) {
	if !f.one {
		return f.root.Lstat(name)
	}
	fd, err := f.openat2(name, unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW}) // if the last element is a link, opens the link itself
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	info, err := file.Stat()
	return info, errors.Join(err, file.Close())
}

func (f *folder) mkdir(name string, perm fs.FileMode) error {
	if !f.one {
		return f.root.Mkdir(name, perm)
	}
	return f.inFolder(name, func(dir int, base string) error { return unix.Mkdirat(dir, base, uint32(perm.Perm())) })
}

func (f *folder) rename(from, to string) error {
	if !f.one {
		return f.root.Rename(from, to)
	}
	return f.inFolder(from, func(source int, old string) error {
		return f.inFolder(to, func(target int, base string) error { return unix.Renameat(source, old, target, base) })
	})
}

func (f *folder) renameNew(from, to string) error {
	if f.one {
		err := f.inFolder(from, func(source int, old string) error {
			return f.inFolder(to, func(target int, base string) error {
				return unix.Renameat2(source, old, target, base, unix.RENAME_NOREPLACE)
			})
		})
		// NFS and some FUSE servers lack the flag, some sandboxes the call.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return f.renameByLink(from, to)
}

func (f *folder) chmod(name string, mode fs.FileMode) error {
	if f.one && mode&^fs.ModePerm == 0 {
		err := f.inFolder(name, func(dir int, base string) error {
			return unix.Fchmodat(dir, base, uint32(mode), unix.AT_SYMLINK_NOFOLLOW)
		})
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	// A special bit, Linux before 6.6, or a link, which check refuses.
	if err := f.check(name, true); err != nil {
		return err
	}
	return f.root.Chmod(name, mode)
}

func (f *folder) chtimes(name string, mtime time.Time) error {
	if !f.one {
		return f.root.Chtimes(name, time.Time{}, mtime)
	}
	fd, err := f.openat2(name, unix.OpenHow{Flags: unix.O_PATH})
	if err != nil {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	err = unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	if err == unix.EINVAL { // Linux before 5.8
		err = f.root.Chtimes(name, time.Time{}, mtime)
	}
	return errors.Join(err, unix.Close(fd))
}

func (f *File) chtimes(mtime time.Time) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	err := unix.UtimesNanoAt(int(f.f.Fd()), "", times, unix.AT_EMPTY_PATH)
	if err == unix.EINVAL { // Linux before 5.8
		err = f.r.chtimes(f.name, mtime)
	}
	return err
}

// sameVolume compares the device and detects mount points: a bind mount of the same device also prevents renames.
func (f *folder) sameVolume(name string) (bool, error) {
	if err := f.check(name, true); err != nil {
		return false, err
	}
	var root, st unix.Stat_t
	if err := unix.Fstat(int(f.self.Fd()), &root); err != nil {
		return false, err
	}
	if f.one {
		fd, err := f.openat2(name, unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_NO_XDEV})
		if err == unix.EXDEV {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		err = errors.Join(unix.Fstat(fd, &st), unix.Close(fd))
		return err == nil && st.Dev == root.Dev, err
	}
	info, err := f.lstat(name)
	if err != nil {
		return false, err
	}
	return deviceOf(info) == uint64(root.Dev), nil
}
