package scan

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// StatFile stats an open file. If it returns the same before and after the
// bytes are read, the file did not change meanwhile, except for changes
// within one tick of the file system's clock.
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

// MountOf returns the mount point of the volume that holds dir.
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
