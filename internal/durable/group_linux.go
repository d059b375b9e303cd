package durable

import (
	"bufio"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// trustsGroup reports whether a group has no untrusted member, so that its rights add no account. The members are
// known only if no directory service adds accounts: then /etc/passwd and /etc/group name all of them.
func trustsGroup(gid uint32) bool { return groupTrusted("/etc", strconv.FormatUint(uint64(gid), 10)) }

func groupTrusted(etc, gid string) bool {
	if !localAccounts(etc) {
		return false
	}
	known, uids, members := false, map[string]string{}, []string(nil)
	for f := range records(filepath.Join(etc, "group")) {
		if f[2] == gid {
			known = true
			members = append(members, strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })...)
		}
	}
	for f := range records(filepath.Join(etc, "passwd")) {
		uids[f[0]] = f[2]
		if f[3] == gid {
			members = append(members, f[0])
		}
	}
	return known && !slices.ContainsFunc(members, func(name string) bool {
		uid, err := strconv.ParseUint(uids[name], 10, 32)
		return err != nil || !trusts(uint32(uid))
	})
}

// records yields the lines of a file in the format of /etc/passwd that have four fields or more.
func records(path string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		for s := bufio.NewScanner(f); s.Scan(); {
			if r := strings.Split(s.Text(), ":"); len(r) >= 4 && !yield(r) {
				return
			}
		}
	}
}

// localAccounts reports whether nsswitch.conf names only sources on this machine for accounts and groups. systemd
// adds only accounts of its own, with groups of their own.
func localAccounts(etc string) bool {
	b, err := os.ReadFile(filepath.Join(etc, "nsswitch.conf"))
	if os.IsNotExist(err) {
		return true // the C library then reads only the files
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		base, sources, ok := strings.Cut(line, ":")
		if base = strings.TrimSpace(base); !ok || base != "passwd" && base != "group" && base != "initgroups" {
			continue
		}
		for _, s := range strings.Fields(sources) {
			if s != "files" && s != "systemd" && s != "altfiles" {
				return false
			}
		}
	}
	return err == nil
}

// readOnly reports whether the file is on a read-only mount.
func readOnly(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
