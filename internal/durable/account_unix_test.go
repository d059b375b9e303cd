//go:build unix

package durable

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBecomeOwner: root takes on the account of a folder for good: it can use the folder, and neither root's files nor
// root's rights.
func TestBecomeOwner(t *testing.T) {
	if dir := os.Getenv("NIGHTFERRY_TEST_OWNER"); dir != "" {
		ok(t, BecomeOwner(filepath.Join(dir, "missing")))
		ok(t, BecomeOwner(dir)) // root's
		if os.Geteuid() != 0 {
			t.Fatal("root's folder has changed the account")
		}
		state := filepath.Join(dir, "state")
		ok(t, BecomeOwner(state))
		r, err := Open(state, Options{Trusted: true})
		ok(t, err)
		ok(t, r.WriteFile("file", []byte("x"), 0o600))
		ok(t, r.Close())
		if _, err := os.ReadFile(filepath.Join(dir, "secret")); !errors.Is(err, os.ErrPermission) {
			t.Errorf("a file of root: %v", err)
		}
		if err := syscall.Setuid(0); err == nil {
			t.Error("root's rights have come back")
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Log("only root can become another account: nothing is tried")
		return
	}
	dir := openDir(t)
	ok(t, os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600))
	state := filepath.Join(dir, "state")
	ok(t, os.Mkdir(state, 0o700))
	ok(t, os.Chown(state, stranger, stranger))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBecomeOwner$", "-test.v")
	cmd.Env = append(os.Environ(), "NIGHTFERRY_TEST_OWNER="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(state, "file"))
	ok(t, err)
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != stranger {
		t.Errorf("the file belongs to %d", uid)
	}
}

// openDir returns a folder that any account can reach.
func openDir(t *testing.T) string {
	dir := t.TempDir()
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		ok(t, os.Chmod(p, 0o755))
	}
	return dir
}

// TestOwnerOf: root may rely on the account that owns a folder, and on no other.
func TestOwnerOf(t *testing.T) {
	dir := t.TempDir()
	if uid, err := OwnerOf(dir); err != nil || int(uid) != os.Geteuid() {
		t.Errorf("%d, %v", uid, err)
	}
	if os.Geteuid() != 0 {
		t.Log("only root can give files to another account: the rest is not tried")
		return
	}
	dir = openDir(t)
	loose := filepath.Join(dir, "loose")
	ok(t, os.Mkdir(loose, 0o755))
	ok(t, os.Chmod(loose, 0o777|os.ModeSticky))
	try := func(what string, want bool, prepare func(data string) error) {
		t.Helper()
		data := filepath.Join(dir, what)
		if what == "planted" {
			data = filepath.Join(loose, what)
		}
		ok(t, os.Mkdir(data, 0o755))
		ok(t, os.WriteFile(filepath.Join(data, "file"), nil, 0o600))
		ok(t, os.Chown(filepath.Join(data, "file"), stranger, stranger))
		ok(t, os.Chown(data, stranger, stranger))
		ok(t, prepare(data))
		uid, err := OwnerOf(data)
		if want && (err != nil || uid != stranger) || !want && !errors.Is(err, ErrUntrusted) && !errors.Is(err, ErrLink) {
			t.Errorf("%s: %d, %v", what, uid, err)
		}
	}
	try("service", true, func(string) error { return nil })
	try("planted", false, func(string) error { return nil })
	try("others may write", false, func(data string) error { return os.Chmod(data, 0o777) })
	try("third account", false, func(data string) error { return os.Chown(filepath.Join(data, "file"), stranger+1, stranger+1) })
	try("link", false, func(data string) error { return os.Symlink("/", filepath.Join(data, "link")) })
}
