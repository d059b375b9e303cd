//go:build unix

package record

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"nightferry/internal/durable"
)

// access is an Access with its names resolved. Group -1: only the owner can
// read.
type access struct {
	group int
	name  string
}

func resolveAccess(a Access) (access, error) {
	if a.Group == "" {
		return access{group: -1}, nil
	}
	if n, err := strconv.ParseUint(a.Group, 10, 31); err == nil {
		return access{int(n), a.Group}, nil
	}
	g, err := user.LookupGroup(a.Group)
	if err != nil {
		return access{}, fmt.Errorf("group %q: %w: create it, or name another", a.Group, err)
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return access{}, fmt.Errorf("group %q: id %q: %w", a.Group, g.Gid, err)
	}
	return access{n, a.Group}, nil
}

// fileMode returns the mode of a folder or file. The set-group-id bit gives
// everything created in a folder the folder's group.
func (a access) fileMode(dir bool) fs.FileMode {
	m := fs.FileMode(fileMode)
	if dir {
		m = folderMode | fs.ModeSetgid
	}
	if a.group < 0 {
		m &^= 0o070
	}
	return m
}

func (a access) mkdir(root *durable.Root, name string) error {
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	return a.setAccess(root, name, true, true)
}

func (a access) setAccess(root *durable.Root, name string, dir, _ bool) error {
	if a.group >= 0 {
		if err := changeGroup(root, name, a.group); err != nil {
			return fmt.Errorf("give %s to group %s: %w: make the account of the Core a member of the group", name, a.name, err)
		}
	}
	return root.Chmod(name, a.fileMode(dir)) // after chgrp, which clears bits
}

// changeGroup changes the group of the name itself (never of a link's target),
// inside the root.
func changeGroup(root *durable.Root, name string, group int) error {
	r, err := os.OpenRoot(root.Dir())
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Lchown(name, -1, group)
}

// describeDifference describes how a folder's access differs from the configured one.
func (a access) describeDifference(root *durable.Root, name string, _ bool) (string, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return "", err
	}
	const bits = fs.ModePerm | fs.ModeSetgid
	// A folder for the owner alone may have any mode as long as group and
	// others have no rights.
	if got, want := info.Mode()&bits, a.fileMode(true); got != want && (a.group >= 0 || got&0o077 != 0) {
		return fmt.Sprintf("its mode is %v, it should be %v", got, want), nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && a.group >= 0 && int(st.Gid) != a.group {
		return fmt.Sprintf("its group is %d, it should be %s (%d)", st.Gid, a.name, a.group), nil
	}
	return "", nil
}

// inheritDir gives a new folder the mode of its parent, regardless of the umask.
func inheritDir(root *durable.Root, name string) error { return likeParent(root, name, true) }

// inheritFile does the same for a file.
func inheritFile(root *durable.Root, name string) error { return likeParent(root, name, false) }
