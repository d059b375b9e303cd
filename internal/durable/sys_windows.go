package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// syncsWhole is false: each writer flushes its own files. Only an administrator may flush a volume, and that would
// also flush the writes of all other programs.
func syncsWhole(*os.File) bool { return false }

// The read-only attribute is not a permission bit.
const hasModes = false

func hasAccessList(*Root, string) bool { return false }

// isSparse checks for the feature that setSparse needs.
func isSparse(r *Root, _ fs.FileInfo) bool {
	var flags uint32
	err := windows.GetVolumeInformationByHandle(windows.Handle(r.self.Fd()), nil, 0, nil, nil, &flags, nil, 0)
	return err == nil && flags&windows.FILE_SUPPORTS_SPARSE_FILES != 0
}

// keepsInodes is false for FAT, whose file ids do not outlive a remount.
func keepsInodes(r *Root) bool {
	var flags uint32
	err := windows.GetVolumeInformationByHandle(windows.Handle(r.self.Fd()), nil, 0, nil, nil, &flags, nil, 0)
	return err != nil || flags&windows.FILE_PERSISTENT_ACLS != 0
}

// Folders on Windows hold no pipes.
const dontWait = 0

func isLeased(error) bool { return false }

// A new file inherits its rights from the folder; there is no umask.
const umaskFree = true

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

func (f *folder) syncAll() error       { return nil }
func (f *folder) syncDir(string) error { return nil }
func syncParent(string) error          { return nil }

func looksUpInOne(*os.File) bool { return false }

func (f *folder) openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return f.root.OpenFile(name, flag, perm)
}

func (f *folder) mkdir(name string, perm fs.FileMode) error { return f.root.Mkdir(name, perm) }
func (f *folder) chmod(name string, mode fs.FileMode) error { return f.root.Chmod(name, mode) }

func (f *folder) chtimes(name string, mtime time.Time) error {
	return f.root.Chtimes(name, time.Time{}, mtime)
}

// chtimes sets the time on the file's own handle. A time that is set by name is replaced when a handle that has written is closed.
func (f *File) chtimes(mtime time.Time) error {
	t := windows.NsecToFiletime(mtime.UnixNano())
	return windows.SetFileTime(windows.Handle(f.f.Fd()), nil, nil, &t)
}

// localName refuses names that Windows interprets as more than a name: a stream (a:b), a device (aux), another
// separator.
func localName(name string) bool {
	return filepath.IsLocal(name) && !strings.ContainsAny(name, `\?`)
}

// isLink also treats reparse points of unknown kinds as links, because their targets are unknown.
func isLink(info fs.FileInfo) bool {
	if info.Mode()&fs.ModeSymlink != 0 {
		return true
	}
	d, ok := info.Sys().(*syscall.Win32FileAttributeData)
	return ok && info.Mode()&fs.ModeIrregular != 0 && d.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0
}

// isVolumeMount distinguishes a volume's mount point from a junction. Both are mount-point reparse points, but the
// former's target names a volume.
func isVolumeMount(path string, info fs.FileInfo) bool {
	if !isLink(info) || info.Mode()&fs.ModeSymlink != 0 {
		return false
	}
	target, err := os.Readlink(path)
	return err == nil && isVolumeName(target)
}

func isVolumeName(target string) bool {
	const volume = `\\?\Volume{`
	return len(target) > len(volume) && strings.EqualFold(target[:len(volume)], volume)
}

// openAt opens a name below the root. The system refuses any reparse point in the path; with the matching options,
// it opens the last element itself.
func (f *folder) openAt(name string, access, options uint32) (windows.Handle, error) {
	u, err := windows.NewNTUnicodeString(strings.ReplaceAll(name, "/", `\`))
	if err != nil {
		return 0, err
	}
	oa := windows.OBJECT_ATTRIBUTES{
		RootDirectory: windows.Handle(f.self.Fd()),
		ObjectName:    u,
		Attributes:    windows.OBJ_CASE_INSENSITIVE | windows.OBJ_DONT_REPARSE,
	}
	oa.Length = uint32(unsafe.Sizeof(oa))
	var h windows.Handle
	var iosb windows.IO_STATUS_BLOCK
	err = windows.NtCreateFile(&h, access|windows.SYNCHRONIZE, &oa, &iosb, nil, 0, shareAll, windows.FILE_OPEN,
		options|windows.FILE_SYNCHRONOUS_IO_NONALERT|windows.FILE_OPEN_FOR_BACKUP_INTENT, 0, 0)
	runtime.KeepAlive(f.self)
	if st, ok := err.(windows.NTStatus); ok {
		switch st {
		case windows.STATUS_REPARSE_POINT_ENCOUNTERED:
			return 0, ErrLink
		case windows.STATUS_DELETE_PENDING:
			return 0, windows.ERROR_DELETE_PENDING
		case windows.STATUS_NOT_A_DIRECTORY:
			return 0, syscall.ENOTDIR // as os.Root does
		}
		return 0, st.Errno()
	}
	return h, err
}

// links returns how many names a file has.
func (f *folder) links(name string, _ fs.FileInfo) (uint64, error) {
	h, err := f.openAt(name, windows.FILE_READ_ATTRIBUTES, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return 0, err
	}
	var info windows.ByHandleFileInformation
	err = errors.Join(windows.GetFileInformationByHandle(h, &info), windows.CloseHandle(h))
	return uint64(info.NumberOfLinks), err
}

func (f *folder) checkChain(name string) error {
	h, err := f.openAt(name, windows.FILE_READ_ATTRIBUTES, 0)
	switch {
	case err == nil:
		return windows.CloseHandle(h)
	case errors.Is(err, ErrLink):
		return f.checkEach(name) // names the element
	}
	return nil // missing, or no right: the operation will report it
}

// rename adds three things to os.Root's: it replaces a read-only file, it returns "locked" if Windows reports
// "access denied" for a file in use, and it enforces a change of case.
func (f *folder) rename(from, to string) error {
	err := f.root.Rename(from, to)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		err = f.renameOver(from, to, err)
	}
	if err != nil || from == to || !strings.EqualFold(from, to) {
		return err
	}
	if base, err := f.storedName(to); err != nil || base == filepath.Base(to) {
		return nil
	}
	temp := tempName(to)
	if err := f.root.Rename(from, temp); err != nil {
		return err
	}
	return f.root.Rename(temp, to)
}

func (f *folder) renameNew(from, to string) error {
	cut := lastSlash(to)
	dir := "" // the root
	if cut > 0 {
		dir = to[:cut]
	}
	name, err := windows.UTF16FromString(to[cut+1:])
	if err != nil {
		return err
	}
	name = name[:len(name)-1]
	target, err := f.openAt(dir, windows.FILE_READ_ATTRIBUTES, windows.FILE_DIRECTORY_FILE)
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(target) }()
	h, err := f.openAt(from, windows.DELETE|windows.FILE_READ_ATTRIBUTES, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	// FILE_RENAME_INFORMATION of a 64-bit system: do not replace, the folder, the length of the name, the name.
	info := binary.LittleEndian.AppendUint64(make([]byte, 8, 24+2*len(name)), uint64(target))
	info = binary.LittleEndian.AppendUint32(info, uint32(2*len(name)))
	for _, c := range name {
		info = binary.LittleEndian.AppendUint16(info, c)
	}
	info = append(info, make([]byte, max(0, 24-len(info)))...)
	var iosb windows.IO_STATUS_BLOCK
	err = windows.NtSetInformationFile(h, &iosb, &info[0], uint32(len(info)), windows.FileRenameInformation)
	if st, ok := err.(windows.NTStatus); ok {
		err = st.Errno()
	}
	return errors.Join(err, windows.CloseHandle(h))
}

func (f *folder) renameOver(from, to string, denied error) error {
	info, err := f.lstat(to)
	if err != nil || info.IsDir() {
		return denied
	}
	readOnly := info.Mode()&0o200 == 0
	if readOnly {
		if err := f.root.Chmod(to, 0o666); err != nil {
			return denied
		}
		err := f.root.Rename(from, to)
		if err == nil {
			return nil
		}
		_ = f.root.Chmod(to, 0o444) // the old file stays as it was
		denied = err
	}
	for _, name := range []string{to, from} {
		if err := f.probe(name); IsLocked(err) {
			return fmt.Errorf("%w: %w", ErrLocked, denied)
		}
	}
	// Deleting is allowed but replacing is not: the file is open with shared deletion, or mapped. That ends when
	// the other process closes it.
	if errors.Is(denied, windows.ERROR_ACCESS_DENIED) && f.deletable(to) {
		return fmt.Errorf("%w: %w", ErrLocked, denied)
	}
	return denied
}

// deletable reports whether this account has the right to delete name.
func (f *folder) deletable(name string) bool {
	h, err := f.openAt(name, windows.DELETE, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return false
	}
	_ = windows.CloseHandle(h)
	return true
}

// storedName returns the name's last element in the case that the folder stores.
func (f *folder) storedName(name string) (string, error) {
	p, err := windows.UTF16PtrFromString(filepath.Join(f.dir, filepath.FromSlash(name)))
	if err != nil {
		return "", err
	}
	var d windows.Win32finddata
	h, err := windows.FindFirstFile(p, &d)
	if err != nil {
		return "", err
	}
	_ = windows.FindClose(h)
	return windows.UTF16ToString(d.FileName[:]), nil
}

// remove uses the older way to delete if the system does not support the newer one and os.Root does not notice
// (Wine 8 returns "invalid function").
func (f *folder) remove(name string) error {
	err := f.root.Remove(name)
	if err == nil || !errors.Is(err, windows.ERROR_INVALID_FUNCTION) {
		return err
	}
	return f.removeOld(name)
}

func (f *folder) removeOld(name string) error {
	// This call cannot delete a read-only file.
	if info, err := f.lstat(name); err == nil && info.Mode()&0o200 == 0 && !isLink(info) {
		if err := f.root.Chmod(name, 0o666); err != nil {
			return err
		}
	}
	h, err := f.openAt(name, windows.DELETE|windows.FILE_READ_ATTRIBUTES, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	yes := [1]byte{1}
	err = windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes[0], 1)
	return errors.Join(err, windows.CloseHandle(h))
}

// explain adds nothing: the system's own errors tell a file in use from a right that is missing.
func (f *folder) explain(_ string, err error) error { return err }

func (f *folder) probe(name string) error {
	h, err := f.openAt(name, windows.DELETE, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return err
	}
	return windows.CloseHandle(h)
}

func (f *folder) free() (int64, error) {
	p, err := windows.UTF16PtrFromString(f.dir)
	if err != nil {
		return 0, err
	}
	var n uint64
	if err := windows.GetDiskFreeSpaceEx(p, &n, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(n, 1<<62)), nil
}

func (f *folder) sameVolume(name string) (bool, error) {
	if target, err := f.root.Readlink(filepath.FromSlash(name)); err == nil && isVolumeName(target) {
		return false, nil
	}
	if err := f.check(name, true); err != nil {
		return false, err
	}
	h, err := f.openAt(self(name), windows.FILE_READ_ATTRIBUTES, 0)
	if err != nil {
		return false, err
	}
	var a, b windows.ByHandleFileInformation
	err = errors.Join(windows.GetFileInformationByHandle(h, &a), windows.CloseHandle(h),
		windows.GetFileInformationByHandle(windows.Handle(f.self.Fd()), &b))
	return err == nil && a.VolumeSerialNumber == b.VolumeSerialNumber, err
}

func setSparse(f *os.File) error {
	var n uint32
	err := windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	if errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) {
		return nil // FAT, some shares
	}
	return err
}

func isLockedErrno(err error) bool {
	for _, e := range []error{windows.ERROR_SHARING_VIOLATION, windows.ERROR_LOCK_VIOLATION,
		windows.ERROR_USER_MAPPED_FILE, windows.ERROR_DELETE_PENDING} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isReadOnlyErrno(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

func isFullErrno(err error) bool {
	for _, e := range []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrBusy
	}
	return err
}

func unlockFile(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, new(windows.Overlapped))
}

// self converts the root's name to the form that the system uses.
func self(name string) string {
	if name == "." {
		return ""
	}
	return name
}

// lstat requests only the attributes. os.Root's own Lstat requests the right to read, which fails if another
// process holds the file exclusively.
func (f *folder) lstat(name string) (fs.FileInfo, error) {
	h, err := f.openAt(self(name), windows.FILE_READ_ATTRIBUTES, windows.FILE_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(h), filepath.Base(name))
	info, err := file.Stat()
	return info, errors.Join(err, file.Close())
}

// KeepOwnerRights does nothing: there is no umask.
func KeepOwnerRights() {}
