package scan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Open opens a path of a walk for reading. Windows folders hold no pipes.
func Open(root *os.Root, path string) (*os.File, error) {
	return root.Open(filepath.FromSlash(path))
}

var procReOpenFile = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReOpenFile")

// OpenStill is [Open] for callers whose bytes must not change while they
// read: no other process can open the file for writing meanwhile. It fails if
// one already has.
func OpenStill(root *os.Root, path string) (*os.File, error) {
	f, err := Open(root, path)
	if err != nil {
		return nil, err
	}
	// os.Root opens with write sharing. Its handle is known to be below the
	// root, so reopen the same file from that handle without write sharing.
	r, _, callErr := procReOpenFile.Call(f.Fd(), windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, windows.FILE_FLAG_SEQUENTIAL_SCAN)
	if h := windows.Handle(r); h != windows.InvalidHandle {
		return os.NewFile(r, f.Name()), f.Close()
	}
	return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: fmt.Errorf("another program writes it: %w", callErr)}, f.Close())
}

// StatFile stats an open file. If it returns the same before and after the
// bytes are read, the file did not change meanwhile.
func StatFile(f *os.File) (Opened, error) {
	var basic windows.ByHandleFileInformation
	h := windows.Handle(f.Fd())
	if err := windows.GetFileInformationByHandle(h, &basic); err != nil {
		return Opened{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	o := Opened{Kind: File, Birth: basic.CreationTime.Nanoseconds(), Stat: Stat{
		Size: int64(basic.FileSizeHigh)<<32 | int64(basic.FileSizeLow), MTime: unixNano(uint64(basic.LastWriteTime.HighDateTime)<<32 | uint64(basic.LastWriteTime.LowDateTime)),
		ID: uint64(basic.FileIndexHigh)<<32 | uint64(basic.FileIndexLow)}}
	if basic.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 {
		o.Kind = Dir
	}
	var times struct {
		Creation, Access, Write, Change int64
		Attributes, _                   uint32
	}
	// If a share does not support the change time, the other fields decide.
	if windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&times)), uint32(unsafe.Sizeof(times))) == nil {
		o.Stat.CTime = unixNano(uint64(times.Change))
	}
	return o, nil
}

// Vanished reports whether an error means that a path no longer exists. A
// file server that does not answer returns another error.
func Vanished(err error) bool {
	return errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || errors.Is(err, windows.ERROR_PATH_NOT_FOUND) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

// MountOf returns the mount point of the volume that holds dir: a drive, a share, or the folder in which it is mounted.
func MountOf(dir string) (string, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return "", err
	}
	buf := make([]uint16, windows.MAX_LONG_PATH)
	if err := windows.GetVolumePathName(name, &buf[0], uint32(len(buf))); err != nil {
		return "", &os.PathError{Op: "find the volume of", Path: dir, Err: err}
	}
	return filepath.Clean(windows.UTF16ToString(buf)), nil
}
