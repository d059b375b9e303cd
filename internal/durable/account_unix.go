//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// BecomeOwner makes root the account that owns the folder dir, with that account's groups, until the process ends. It
// is for commands that root may use on the folder of a service: the account's rights suffice for them, the account
// keeps access to the files that they make, and files that it has planted give it none of root's rights. BecomeOwner
// does nothing if the process is not root's, if the folder is root's, or if there is none.
func BecomeOwner(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return wrap("open folder", dir, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	gid, groups := int(st.Gid), []int{}
	if u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10)); err == nil {
		if n, err := strconv.Atoi(u.Gid); err == nil {
			gid = n
		}
		names, _ := u.GroupIds() // without them, the account's own group remains
		for _, name := range names {
			if n, err := strconv.Atoi(name); err == nil {
				groups = append(groups, n)
			}
		}
	}
	for _, set := range []func() error{ // Setuid is last: it ends the right to do the others
		func() error { return syscall.Setgroups(groups) },
		func() error { return syscall.Setgid(gid) },
		func() error { return syscall.Setuid(int(st.Uid)) },
	} {
		if err := set(); err != nil {
			return wrap(fmt.Sprintf("act as account %d, which owns", st.Uid), dir, err)
		}
	}
	return nil
}

// OwnerOf returns the account that owns the folder dir. It refuses a folder that any further account can change or
// replace, except root. For root, the owner may be an ordinary account, to which entries and folders above may belong,
// too, but not in a folder where any account could have made it.
func OwnerOf(dir string) (uid uint32, err error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return 0, wrap("open folder", dir, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, wrap("open folder", dir, errors.ErrUnsupported)
	}
	keeper := noAccount
	if os.Geteuid() == 0 {
		keeper = st.Uid
	}
	return st.Uid, wrap("open folder", dir, judgeFolder(dir, info, keeper))
}
