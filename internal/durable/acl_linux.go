package durable

import (
	"encoding/binary"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The attributes that hold a file's POSIX access list, and a folder's default list, which new files in it inherit.
const (
	accessList  = "system.posix_acl_access"
	defaultList = "system.posix_acl_default"
)

// attribute returns an extended attribute, or "" if there is none. It looks the name up below the root; /proc turns
// the result into a path, as xattr(7) needs.
func attribute(r *Root, name, key string) (value string) {
	_ = byPath(r, name, func(path string) error {
		b := make([]byte, 4<<10)
		n, err := unix.Getxattr(path, key, b)
		if err == nil {
			value = string(b[:n])
		}
		return err
	})
	return value
}

func byPath(r *Root, name string, fn func(path string) error) error {
	fd, err := r.openat2(name, unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return fn("/proc/self/fd/" + strconv.Itoa(fd))
}

func hasAccessList(r *Root, name string) bool {
	return r.one && attribute(r, name, accessList) != ""
}

// legacy holds the rights that new files in a folder inherit.
type legacy struct {
	list  string // its default list; "": none
	group int    // the folder's group, if new files get it; else -1
}

func legacyOf(r *Root, dir string) legacy {
	l := legacy{group: -1}
	if !r.one {
		return l
	}
	l.list = attribute(r, dir, defaultList)
	if info, err := r.lstat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Mode&unix.S_ISGID != 0 {
			l.group = int(st.Gid)
		}
	}
	return l
}

// endow gives the file from the rights that it must have as to.
func endow(r *Root, from, to string, over bool, have, want legacy) (after func()) {
	if !r.one {
		return nil
	}
	list, narrow := want.list, true
	if over {
		if old := attribute(r, to, accessList); old != "" {
			list, narrow = old, false // an administrator set it
		}
	}
	if list == "" && have.list == "" && (want.group < 0 || want.group == have.group) {
		return nil
	}
	info, err := r.lstat(from)
	if err != nil {
		return nil // the rename will report it
	}
	mode := info.Mode().Perm()
	_ = byPath(r, from, func(path string) error {
		if want.group >= 0 && want.group != have.group {
			_ = unix.Chown(path, -1, want.group)
		}
		if list = fit(list, uint16(mode), narrow); list != "" {
			return unix.Setxattr(path, accessList, []byte(list), 0)
		}
		if have.list != "" && unix.Removexattr(path, accessList) == nil {
			return unix.Chmod(path, uint32(mode))
		}
		return nil
	})
	return nil
}

// The tags of acl(5) in the attribute's encoding.
const (
	aclOwner = 1
	aclMask  = 0x10
	aclOther = 0x20
)

// fit adapts a list to a file with a mode: the entries of owner and other are the mode's. narrow means that the
// list is inherited; the mode then limits the rights that it grants. fit returns "" for a list that grants nothing
// beyond a mode, or that does not parse.
func fit(list string, mode uint16, narrow bool) string {
	b := []byte(list)
	if len(b) < 4 || (len(b)-4)%8 != 0 || len(b) <= 4+3*8 {
		return ""
	}
	for e := b[4:]; len(e) > 0; e = e[8:] {
		perm := binary.LittleEndian.Uint16(e[2:])
		switch binary.LittleEndian.Uint16(e) {
		case aclOwner:
			perm = mode >> 6 & 7
		case aclOther:
			perm = mode & 7
		case aclMask:
			if narrow {
				perm &= mode >> 3 & 7
			}
		}
		binary.LittleEndian.PutUint16(e[2:], perm)
	}
	return string(b)
}
