package apply

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	accessList  = "system.posix_acl_access"
	defaultList = "system.posix_acl_default"
)

// acl encodes an access list attribute with one entry more than a mode has: owner, group, that group, mask, other.
func acl(owner, group, named, mask, other uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, 1<<32 - 1}, {4, group, 1<<32 - 1}, {8, named, 4242}, {0x10, mask, 1<<32 - 1}, {0x20, other, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func listOf(t *testing.T, name, key string) string {
	t.Helper()
	b := make([]byte, 1024)
	n, err := unix.Getxattr(name, key, b)
	if err == unix.ENODATA {
		return ""
	}
	try(t, err)
	return string(b[:n])
}

// New content has the rights that it would get if it were created in its folder. Rights set by administrators stay:
// neither a pull nor a check treats them as damage.
func TestRightsOfNewContent(t *testing.T) {
	p, src, dst := dirs(t, tree{"d/a": "a", "d/sub/b": "b", "plain/c": "c", "d/given": "g"})
	p.publish(src)
	p.must(dst, nil)
	try(t, unix.Setxattr(filepath.Join(dst, "d"), defaultList, acl(7, 5, 6, 7, 5), 0))
	try(t, os.Chown(filepath.Join(dst, "d"), -1, os.Getegid()))
	if os.Geteuid() == 0 {
		try(t, os.Chown(filepath.Join(dst, "d"), -1, 4343))
	}
	try(t, os.Chmod(filepath.Join(dst, "d"), 0o755|os.ModeSetgid))
	given := string(acl(6, 4, 6, 6, 4))
	try(t, unix.Setxattr(filepath.Join(dst, "d/given"), accessList, []byte(given), 0))
	r := p.must(dst, nil)
	if len(r.files) > 0 {
		t.Errorf("given rights are told as damage: %v", r.outcomes())
	}
	grow(t, src, tree{"d/new": "n", "d/made/n": "m", "plain/new": "n", "d/given": "given two"})
	p.publish(src)
	p.must(dst, nil)
	try(t, os.WriteFile(filepath.Join(dst, "d/by-hand"), nil, 0o644)) // with the rights that the system assigns
	want := listOf(t, filepath.Join(dst, "d/by-hand"), accessList)
	if want == "" {
		t.Fatal("this file system keeps no access lists")
	}
	for name, list := range map[string]string{"d/new": want, "d/made/n": want, "plain/new": "", "d/given": given} {
		if have := listOf(t, filepath.Join(dst, name), accessList); have != list {
			t.Errorf("%s has the list %x, want %x", name, have, list)
		}
	}
	gid := func(name string) uint32 {
		info, err := os.Lstat(filepath.Join(dst, name))
		try(t, err)
		return info.Sys().(*syscall.Stat_t).Gid
	}
	for _, name := range []string{"d/new", "d/made", "d/made/n"} {
		if gid(name) != gid("d/by-hand") {
			t.Errorf("%s has group %d, want %d", name, gid(name), gid("d/by-hand"))
		}
	}
	if info, err := os.Lstat(filepath.Join(dst, "d/made")); err != nil || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("d/made: %v, %v", info.Mode(), err)
	}
	try(t, os.Remove(filepath.Join(dst, "d/by-hand")))
	if !p.must(dst, nil).NoOp {
		t.Error("not a no-op after")
	}
	if r := p.must(dst, func(o *Options) { o.Rehash = true }); len(r.files) > 0 {
		t.Errorf("a pull that reads all repairs rights: %v", r.outcomes())
	}
}
