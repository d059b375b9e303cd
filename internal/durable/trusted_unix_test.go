//go:build unix

package durable

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stranger is the owner of the files of other accounts in these tests.
const stranger = 4242

// judged reads a file and adopts its folder, by path.
func judged(path string) []error {
	_, trusted := ReadTrusted(path, 100)
	_, private := ReadPrivate(path, 100)
	return []error{trusted, private}
}

func adopt(dir string) error {
	r, err := Open(dir, Options{Trusted: true})
	if err == nil {
		err = r.Close()
	}
	return err
}

// world makes a/b/key in a folder that every account can reach.
func world(t *testing.T) (a, b, key string) {
	dir, err := os.MkdirTemp("", "trusted")
	ok(t, err)
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	ok(t, os.Chmod(dir, 0o755))
	a = filepath.Join(dir, "a")
	b = filepath.Join(a, "b")
	key = filepath.Join(b, "key")
	for _, dir := range []string{a, b} {
		ok(t, os.Mkdir(dir, 0o755))
		ok(t, os.Chmod(dir, 0o755))
	}
	ok(t, os.WriteFile(key, []byte("secret"), 0o600))
	return a, b, key
}

// Files that only this account can change are trusted, regardless of links that it made above them.
func TestTrustedIsRead(t *testing.T) {
	a, b, key := world(t)
	ok(t, os.Symlink("b/../../a", filepath.Join(a, "link")))
	ok(t, os.Symlink(a, filepath.Join(b, "absolute")))
	sticky := filepath.Join(a, "sticky")
	ok(t, os.Mkdir(sticky, 0o777))
	ok(t, os.Chmod(sticky, 0o777|os.ModeSticky))
	ok(t, os.WriteFile(filepath.Join(sticky, "key"), []byte("secret"), 0o600))
	for _, path := range []string{key, filepath.Join(a, "link", "b", "key"), filepath.Join(b, "absolute", "b", "key"), filepath.Join(sticky, "key")} {
		if err := errors.Join(judged(path)...); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	ok(t, adopt(t.TempDir()))
	if b, err := ReadTrusted(key, 6); err != nil || string(b) != "secret" {
		t.Errorf("read %q: %v", b, err)
	}
}

// Rights of others on a folder or a file do no harm if they cannot reach it.
func TestTrustedBelowAClosedFolder(t *testing.T) {
	a, b, key := world(t)
	for _, path := range []string{b, key} {
		ok(t, os.Chmod(path, 0o777))
		if _, err := ReadTrusted(key, 100); !errors.Is(err, ErrUntrusted) {
			t.Errorf("others can reach and change %s: %v", path, err)
		}
		ok(t, os.Chmod(a, 0o700))
		if _, err := ReadTrusted(key, 100); err != nil {
			t.Errorf("only this account can reach %s: %v", path, err)
		}
		ok(t, os.Chmod(a, 0o755))
		ok(t, os.Chmod(path, 0o755))
	}
	ok(t, os.Chmod(b, 0o775))
	ok(t, os.Chmod(a, 0o700))
	if err := adopt(b); err != nil {
		t.Errorf("only this account can reach the folder: %v", err)
	}
	ok(t, os.Chmod(key, 0o666))
	ok(t, os.Link(key, filepath.Join(filepath.Dir(a), "outside")))
	if _, err := ReadTrusted(key, 100); !errors.Is(err, ErrUntrusted) {
		t.Errorf("others can reach another name of the file: %v", err)
	}
}

// Links of trusted accounts lead to the file, as those of a ConfigMap do.
func TestTrustedThroughLinks(t *testing.T) {
	a, b, key := world(t)
	ok(t, os.Rename(b, filepath.Join(a, "..2026")))
	ok(t, os.Symlink("..2026", filepath.Join(a, "..data")))
	ok(t, os.Symlink("..data/key", filepath.Join(a, "key")))
	if err := errors.Join(judged(filepath.Join(a, "key"))...); err != nil {
		t.Error(err)
	}
	ok(t, os.Chmod(filepath.Join(a, "..2026", filepath.Base(key)), 0o666))
	if _, err := ReadTrusted(filepath.Join(a, "key"), 100); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a file that all can write to, behind a link: %v", err)
	}
}

// A file is refused if another account could change its content in any way.
func TestUntrustedIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a, b, key string) error
		want   error
		root   bool // only root can change an owner
	}{
		"the file is another account's": {func(_, _, key string) error { return os.Chown(key, stranger, stranger) }, ErrUntrusted, true},
		"so is its folder":              {func(_, b, _ string) error { return os.Chown(b, stranger, stranger) }, ErrUntrusted, true},
		"so is a folder above":          {func(a, _, _ string) error { return os.Chown(a, stranger, stranger) }, ErrUntrusted, true},
		"others can write to it":        {func(_, _, key string) error { return os.Chmod(key, 0o602) }, ErrUntrusted, false},
		"its group can write to it":     {func(_, _, key string) error { return os.Chmod(key, 0o620) }, ErrUntrusted, false},
		"others can replace it":         {func(_, b, _ string) error { return os.Chmod(b, 0o757) }, ErrUntrusted, false},
		"it is a link of another account": {func(_, b, key string) error {
			return errors.Join(os.Rename(key, key+".real"), os.Symlink(key+".real", key), os.Lchown(key, stranger, stranger))
		}, ErrUntrusted, true},
		"it is a link into a folder of another account": {func(_, b, key string) error {
			return errors.Join(os.Mkdir(b+"/theirs", 0o755), os.Rename(key, b+"/theirs/key"), os.Symlink("theirs/key", key), os.Chown(b+"/theirs", stranger, stranger))
		}, ErrUntrusted, true},
		"it is a link to itself": {func(_, b, key string) error {
			return errors.Join(os.Remove(key), os.Symlink("key", key))
		}, unix.ELOOP, false},
		"it is a pipe": {func(_, _, key string) error { return errors.Join(os.Remove(key), unix.Mkfifo(key, 0o600)) }, ErrNotRegular, false},
		"a link above is another account's": {func(a, b, _ string) error {
			return errors.Join(os.Rename(b, b+".real"), os.Symlink(b+".real", b), os.Lchown(b, stranger, stranger))
		}, ErrUntrusted, true},
		"a link leads round in circles": {func(_, b, _ string) error {
			return errors.Join(os.Rename(b, b+".real"), os.Symlink("b", b))
		}, unix.ELOOP, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Log("only root can give files away: nothing is tried")
				return
			}
			a, b, key := world(t)
			ok(t, c.change(a, b, key))
			for i, err := range judged(key) {
				exposed := i == 1 && errors.Is(err, ErrExposed) // for a key, this error comes first
				if !errors.Is(err, c.want) && !exposed {
					t.Errorf("read %d: %v, want %v", i, err, c.want)
				}
			}
		})
	}
}

// A folder is adopted only if it holds no entry of another account.
func TestUntrustedFolderIsNotAdopted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a, b, key string) error
		want   error
		root   bool
	}{
		"another account's":                    {func(_, b, _ string) error { return os.Chown(b, stranger, stranger) }, ErrUntrusted, true},
		"holds a planted file":                 {func(_, _, key string) error { return os.Chown(key, stranger, stranger) }, ErrUntrusted, true},
		"holds a link":                         {func(_, b, _ string) error { return os.Symlink("/etc/passwd", filepath.Join(b, "site.json")) }, ErrLink, false},
		"is a link":                            {func(_, b, _ string) error { return errors.Join(os.Rename(b, b+".real"), os.Symlink(b+".real", b)) }, ErrLink, false},
		"is in a folder that all can write to": {func(a, _, _ string) error { return os.Chmod(a, 0o777) }, ErrUntrusted, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Log("only root can give files away: nothing is tried")
				return
			}
			a, b, key := world(t)
			ok(t, os.Chmod(b, 0o700)) // as a folder of nightferry's is
			ok(t, c.change(a, b, key))
			err := MkdirPrivate(b)
			if err == nil {
				err = adopt(b)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if name != "holds a planted file" {
				return
			}
			ok(t, os.Remove(key))
			ok(t, adopt(b))
		})
	}
}

// A link in place of the folder is not followed, and its target keeps its mode.
func TestMkdirPrivateFollowsNoLink(t *testing.T) {
	_, b, _ := world(t)
	ok(t, os.Symlink(b, b+".link"))
	if err := MkdirPrivate(b + ".link"); !errors.Is(err, ErrLink) {
		t.Errorf("%v, want ErrLink", err)
	}
	if info, err := os.Stat(b); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, want 0755: %v", info.Mode(), err)
	}
}

// The same holds for an account without root's rights. It trusts root's files and its own, but not those of a third
// account.
func TestTrustedAsAnotherAccount(t *testing.T) {
	if paths := os.Getenv("NIGHTFERRY_TEST_TRUSTED"); paths != "" {
		for i, path := range strings.Split(paths, ":") {
			_, err := ReadTrusted(path, 100)
			fmt.Println(i, errors.Is(err, ErrUntrusted), err == nil)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Log("only root can become another account: nothing is tried")
		return
	}
	dir, err := os.MkdirTemp("/tmp", "trusted")
	ok(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	ok(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "durable.test")
	exe, err := os.ReadFile(os.Args[0])
	ok(t, err)
	ok(t, os.WriteFile(binary, exe, 0o755))
	var paths []string
	for _, uid := range []int{0, 65534, stranger} {
		p := filepath.Join(dir, fmt.Sprint(uid))
		ok(t, os.WriteFile(p, nil, 0o644))
		ok(t, os.Chown(p, uid, uid))
		paths = append(paths, p)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestTrustedAsAnotherAccount$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "NIGHTFERRY_TEST_TRUSTED="+strings.Join(paths, ":"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if got := strings.Split(string(out), "\n"); err != nil || len(got) < 3 || !slices.Equal(got[:3], []string{"0 false true", "1 false true", "2 true false"}) {
		t.Errorf("%v\n%s", err, out)
	}
}
