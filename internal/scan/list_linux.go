package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nightferry/internal/durable"
)

// lister reads folders with getdents and statx relative to the folder's own
// descriptor: two system calls per file and no allocation for its name.
type lister struct{ root *os.File }

// scratch is one goroutine's reused memory.
type scratch struct {
	dents []byte
	names []byte // "folder/name\0" for each entry
	ends  []entry
}

type entry struct {
	start, name, end int // in names: the path, its last element, the closing NUL
	kind             byte
}

func openLister(dir string) (*lister, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, err
	}
	return &lister{root: f}, nil
}

func (l *lister) close() error { return l.root.Close() }

// openFolder opens a folder below the root. It fails if a link has replaced the
// folder since the walk listed it.
func (l *lister) openFolder(dir string) (int, error) {
	if dir == "" {
		dir = "."
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	root := int(l.root.Fd())
	for try := 0; ; try++ {
		fd, err := unix.Openat2(root, dir, &how)
		switch {
		case err == unix.ENOSYS || err == unix.EPERM:
			fd, err = unix.Openat(root, dir, flags, 0)
		case err == unix.EAGAIN && try < 100:
			continue
		}
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (l *lister) listFolder(dir string, skip func(string, bool) bool, s *scratch) (items []Item, on volume, err error) {
	fd, err := l.openFolder(dir)
	if err != nil {
		return nil, on, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Statx_t
	if err := statx(fd, []byte{0}, unix.AT_EMPTY_PATH, &st); err != nil {
		return nil, on, err
	}
	on = volume{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), root: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}
	items, again, err := s.statNames(fd, dir, skip, nil)
	// A name that is listed but missing was removed, unless the next listing
	// still has it. Then it was recreated, or the file system cannot look up
	// its own name; that case must not be taken for a deletion.
	for try := 0; err == nil && len(again) > 0; try++ {
		if _, err = unix.Seek(fd, 0, io.SeekStart); err != nil {
			break
		}
		more, still, lookErr := s.statNames(fd, dir, skip, again)
		for _, it := range more {
			delete(again, it.Path)
		}
		for path := range again {
			switch {
			case !still[path]:
				more = append(more, Item{Path: path, Err: unix.ENOENT})
			case try == lookTries:
				more = append(more, Item{Path: path, Err: errNameless})
				delete(still, path)
			}
		}
		items, again, err = append(items, more...), still, lookErr
	}
	return items, on, err
}

var errNameless = errors.New("it is listed, and cannot be looked up by that name: is the file system damaged, or its encoding of names wrong?")

// lookTries is the number of lookups of a name that is listed but missing.
const lookTries = 8

// statNames lists an open folder and stats each name, or only the names in only.
// It returns the names that are missing.
func (s *scratch) statNames(fd int, dir string, skip func(string, bool) bool, only map[string]bool) (items []Item, vanished map[string]bool, err error) {
	if err := s.readNames(fd, dir); err != nil {
		return nil, nil, err
	}
	paths := string(s.names) // one allocation for all paths of the folder
	items = make([]Item, 0, len(s.ends))
	for _, e := range s.ends {
		it := Item{Path: paths[e.start:e.end]}
		if only != nil && !only[it.Path] {
			continue
		}
		known := e.kind != unix.DT_UNKNOWN
		if known && skip != nil && skip(it.Path, e.kind == unix.DT_DIR) {
			continue
		}
		it.Kind, it.Stat, it.Err = statAt(fd, s.names[e.name:e.end+1])
		if it.Err == unix.ENOENT {
			if vanished == nil {
				vanished = map[string]bool{}
			}
			vanished[it.Path] = true
			continue
		}
		if !known && skip != nil && skip(it.Path, it.Kind == Dir) {
			continue
		}
		items = append(items, it)
	}
	return items, vanished, nil
}

// readNames fills names and ends with the entries of an open folder.
func (s *scratch) readNames(fd int, dir string) error {
	if s.dents == nil {
		s.dents = make([]byte, 64<<10)
	}
	s.names, s.ends = s.names[:0], s.ends[:0]
	for {
		n, err := unix.Getdents(fd, s.dents)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for buf := s.dents[:n]; len(buf) > 0; {
			// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name to NUL
			size := int(binary.NativeEndian.Uint16(buf[16:]))
			kind, name := buf[18], buf[19:size]
			buf = buf[size:]
			name = name[:bytes.IndexByte(name, 0)]
			if string(name) == "." || string(name) == ".." {
				continue
			}
			e := entry{start: len(s.names), kind: kind}
			if dir != "" {
				s.names = append(append(s.names, dir...), '/')
			}
			e.name = len(s.names)
			s.names = append(s.names, name...)
			e.end = len(s.names)
			s.names = append(s.names, 0)
			s.ends = append(s.ends, e)
		}
	}
}

// statx stats a NUL-terminated name. It makes the system call itself because
// the package's own function allocates a copy of each name.
func statx(fd int, name []byte, flags uintptr, st *unix.Statx_t) error {
	const mask = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_MTIME | unix.STATX_CTIME | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_BTIME
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&name[0])), flags, mask,
			uintptr(unsafe.Pointer(st)), 0)
		runtime.KeepAlive(name)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// statAt stats a NUL-terminated name without following links.
func statAt(fd int, name []byte) (Kind, Stat, error) {
	var st unix.Statx_t
	if err := statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, &st); err != nil {
		return 0, Stat{}, err
	}
	kind, out := statOf(&st)
	return kind, out, nil
}

func statOf(st *unix.Statx_t) (Kind, Stat) {
	out := Stat{
		MTime: durable.Nanoseconds(time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))),
		CTime: durable.Nanoseconds(time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))),
		ID:    st.Ino,
		Mode:  st.Mode & 0o7777,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		out.Size = int64(st.Size)
		return File, out
	case unix.S_IFDIR:
		return Dir, out
	case unix.S_IFLNK:
		return Link, out
	}
	return Special, out
}
