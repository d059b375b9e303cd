package scan

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// StatFile looks at an open file. Two equal answers, one before and one after its
// bytes were read, say that it did not change meanwhile, as far as the clock of
// the file system is finer than the changes.
func StatFile(f *os.File) (o Opened, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return o, err
	}
	var st unix.Statx_t
	controlErr := conn.Control(func(fd uintptr) { err = statx(int(fd), []byte{0}, unix.AT_EMPTY_PATH, &st) })
	if controlErr != nil {
		return o, controlErr
	}
	if err != nil {
		return o, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	o.Kind, o.Stat = statOf(&st)
	o.Birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	return o, nil
}

// MountOf returns the folder at which the volume is mounted that holds a folder.
func MountOf(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	at, err := volumeOf(dir)
	for err == nil && dir != "/" && !at.root {
		var above volume
		if above, err = volumeOf(filepath.Dir(dir)); err != nil || above.dev != at.dev {
			break
		}
		dir, at = filepath.Dir(dir), above
	}
	return dir, err
}

func volumeOf(dir string) (volume, error) {
	var st unix.Statx_t
	if err := statx(unix.AT_FDCWD, append([]byte(dir), 0), 0, &st); err != nil {
		return volume{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return volume{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), root: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}, nil
}
