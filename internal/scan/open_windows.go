package scan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Open opens a path of a walk for reading. No folder of Windows holds a pipe.
func Open(root *os.Root, path string) (*os.File, error) {
	return root.Open(filepath.FromSlash(path))
}

var procReOpenFile = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReOpenFile")

// OpenStill is [Open] for who needs the bytes to stay as they are: while the file
// is open, nobody can open it to write, and while somebody has, it is an error.
func OpenStill(root *os.Root, path string) (*os.File, error) {
	f, err := Open(root, path)
	if err != nil {
		return nil, err
	}
	// os.Root shares writing. The handle that it gives is proven to be below
	// the root, so the same file is opened once more from there.
	r, _, callErr := procReOpenFile.Call(f.Fd(), windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, windows.FILE_FLAG_SEQUENTIAL_SCAN)
	if h := windows.Handle(r); h != windows.InvalidHandle {
		return os.NewFile(r, f.Name()), f.Close()
	}
	return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: fmt.Errorf("another program writes it: %w", callErr)}, f.Close())
}

// StatFile looks at an open file. Two equal answers, one before and one after its
// bytes were read, say that it did not change meanwhile.
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
	// A share that does not know the change time is judged by the rest.
	if windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&times)), uint32(unsafe.Sizeof(times))) == nil {
		o.Stat.CTime = unixNano(uint64(times.Change))
	}
	return o, nil
}

// Vanished reports whether an error says that a path, which was there, is gone. A
// file server that does not answer says something else.
func Vanished(err error) bool {
	return errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || errors.Is(err, windows.ERROR_PATH_NOT_FOUND) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

// MountOf returns the volume that holds a folder.
func MountOf(dir string) (string, error) { return filepath.VolumeName(dir), nil }
