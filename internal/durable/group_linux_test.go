package durable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGroupTrusted: a group adds no account if it has no untrusted member and no directory service may add one.
func TestGroupTrusted(t *testing.T) {
	own := fmt.Sprint(os.Geteuid())
	passwd := "root:x:0:0::/root:/bin/sh\nferry:x:" + own + ":900::/:/bin/sh\nsyslog:x:104:110::/:/bin/false\nkay:x:4242:4242::/:/bin/sh\n"
	group := "root:x:0:\nstaff:x:50:\nops:x:51:root,ferry\nadm:x:4:syslog,kay\nsyslog:x:110:\nferry:x:900:\nlost:x:52:gone\n"
	for _, c := range []struct {
		gid, nsswitch string
		want          bool
	}{
		{"50", "", true}, {"51", "", true}, {"900", "", true},
		{"4", "", false}, {"110", "", false}, {"52", "", false}, {"12345", "", false},
		{"50", "passwd: files systemd\ngroup: files [SUCCESS=merge] systemd # sss\n", false},
		{"50", "passwd: files systemd\ngroup:\tfiles # sss\nhosts: files dns\n", true},
		{"50", "passwd: files sss\ngroup: files\n", false},
	} {
		dir := t.TempDir()
		ok(t, os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd), 0o644))
		ok(t, os.WriteFile(filepath.Join(dir, "group"), []byte(group), 0o644))
		if c.nsswitch != "" {
			ok(t, os.WriteFile(filepath.Join(dir, "nsswitch.conf"), []byte(c.nsswitch), 0o644))
		}
		if got := groupTrusted(dir, c.gid); got != c.want {
			t.Errorf("group %s with %q: %v, want %v", c.gid, c.nsswitch, got, c.want)
		}
	}
}

// TestSystemGroupsFolder: a folder of root that an empty group can write to, such as /usr/local, is trusted. A group
// with members, such as that of /var/log, needs the sticky bit, which the error names.
func TestSystemGroupsFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give folders to groups: nothing is tried")
		return
	}
	a, _, key := world(t)
	ok(t, unix.Chmod(a, 0o2775))
	ok(t, os.Chown(a, 0, 0))
	if groupTrusted("/etc", "0") {
		if _, err := ReadTrusted(key, 100); err != nil {
			t.Error(err)
		}
	}
	ok(t, os.Chown(a, 0, stranger))
	ok(t, unix.Chmod(a, 0o2775))
	if _, err := ReadTrusted(key, 100); !errors.Is(err, ErrUntrusted) {
		t.Error(err)
	}
	ok(t, unix.Chmod(a, 0o3775))
	if _, err := ReadTrusted(key, 100); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyMount: the mode of a ConfigMap's or Secret's folder does not matter, because its mount is read-only.
func TestReadOnlyMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount: nothing is tried")
		return
	}
	_, b, key := world(t)
	ok(t, os.Chmod(b, 0o777))
	ok(t, os.Chmod(key, 0o666))
	if out, err := exec.CommandContext(t.Context(), "mount", "--bind", b, b).CombinedOutput(); err != nil {
		t.Logf("this machine lets no test mount: nothing is tried: %s", out)
		return
	}
	defer func() { ok(t, unix.Unmount(b, 0)) }()
	if _, err := ReadTrusted(key, 100); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a writable mount: %v", err)
	}
	ok(t, exec.CommandContext(t.Context(), "mount", "-o", "remount,ro,bind", b).Run())
	if _, err := ReadTrusted(key, 100); err != nil {
		t.Error(err)
	}
}
