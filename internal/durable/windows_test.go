//go:build windows

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

func expose(t *testing.T, path string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;SY)(A;;FR;;;WD)")
	ok(t, err)
	dacl, _, err := sd.DACL()
	ok(t, err)
	ok(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil))
}

// hold opens a file with the given share mode, as careless programs do, and returns a function that closes it.
func hold(t *testing.T, r *Root, name string, share uint32) (release func()) {
	t.Helper()
	p, err := windows.UTF16PtrFromString(filepath.Join(r.Dir(), name))
	ok(t, err)
	h, err := windows.CreateFile(p, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, 0, 0)
	ok(t, err)
	return func() { ok(t, windows.CloseHandle(h)) }
}

// A file in use is reported as locked, by the probe and by the rename, and is free afterwards.
func TestPain13_LockedFile(t *testing.T) {
	for _, share := range []uint32{0, windows.FILE_SHARE_READ, windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE} {
		r := open(t, Options{})
		ok(t, r.WriteFile("used", []byte("old"), 0o644))
		ok(t, r.WriteFile("new", []byte("new"), 0o644))
		release := hold(t, r, "used", share)
		for what, err := range map[string]error{"probe": r.ProbeLocked("used"), "rename over": r.Rename("new", "used"),
			"remove": r.Remove("used"), "rename away": r.Rename("used", "x")} {
			if !IsLocked(err) {
				t.Errorf("share %d: %s: %v", share, what, err)
			}
		}
		if info, err := r.Lstat("used"); err != nil || info.Size() != 3 || info.Name() != "used" {
			t.Errorf("share %d: stat of a used file: %v %v", share, info, err)
		}
		release()
		ok(t, r.ProbeLocked("used"))
		ok(t, r.Rename("new", "used"))
		if got := read(t, r, "used"); got != "new" {
			t.Errorf("read %q", got)
		}
	}
	r := open(t, Options{})
	ok(t, r.ProbeLocked("none"))
}

// A read-only file in use keeps its attribute when it cannot be replaced.
func TestLockedReadOnlyStays(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.WriteFile("used", []byte("old"), 0o444))
	ok(t, r.WriteFile("new", []byte("new"), 0o644))
	release := hold(t, r, "used", windows.FILE_SHARE_READ)
	err := r.Rename("new", "used")
	if !IsLocked(err) {
		t.Errorf("%v", err)
	}
	release()
	info, err := r.Lstat("used")
	ok(t, err)
	if info.Mode()&0o200 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
}

// Our own readers never block a rename or a deletion.
func TestOpenSharesEverything(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.WriteFile("f", []byte("old"), 0o644))
	ok(t, r.WriteFile("new", []byte("new"), 0o644))
	f, err := r.Open("f")
	ok(t, err)
	ok(t, r.ProbeLocked("f"))
	err = r.Rename("f", "away")
	if err != nil {
		t.Errorf("rename of an open file: %v", err)
	}
	ok(t, r.Rename("new", "f"))
	ok(t, f.Close())
}

// The older way to delete, which Wine needs outside of tests.
func TestRemoveOldWay(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.WriteFile("f", nil, 0o444))
	ok(t, r.removeOld("f"))
	ok(t, r.MkdirAll("d/e", 0o755))
	if err := r.removeOld("d"); err == nil {
		t.Error("a full folder was removed")
	}
	ok(t, r.removeOld("d/e"))
	ok(t, r.removeOld("d"))
	if err := r.removeOld("d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

func TestKindsOfErrors(t *testing.T) {
	for err, want := range map[error][2]bool{
		windows.ERROR_DISK_FULL: {false, true}, windows.ERROR_SHARING_VIOLATION: {true, false}, windows.ERROR_LOCK_VIOLATION: {true, false},
		ErrLocked: {true, false}, windows.ERROR_ACCESS_DENIED: {false, false},
	} {
		if w := wrap("write", "x", &fs.PathError{Err: err}); IsLocked(w) != want[0] || IsDiskFull(w) != want[1] {
			t.Errorf("%v: locked %v, full %v", err, IsLocked(w), IsDiskFull(w))
		}
	}
}

func TestLinksAreRefused(t *testing.T) {
	outside := t.TempDir()
	r := open(t, Options{})
	if err := os.Symlink(outside, filepath.Join(r.Dir(), "out")); err != nil {
		t.Skipf("this system cannot make links: %v", err)
	}
	if info, err := os.Lstat(filepath.Join(r.Dir(), "out")); err != nil || !isLink(info) {
		t.Skip("this system (Wine 8) makes a file where a link was asked for")
	}
	ok(t, r.Mkdir("real", 0o755))
	ok(t, os.Symlink("real", filepath.Join(r.Dir(), "in")))
	for _, name := range []string{"out/f", "in/f", "out", "in"} {
		if err := r.WriteFile(name, nil, 0o644); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(r.Dir(), "in"), Options{}); !errors.Is(err, ErrLink) {
		t.Errorf("root: %v", err)
	}
	ok(t, r.Remove("out"))
}
