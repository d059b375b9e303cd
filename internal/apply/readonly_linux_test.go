package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/durable"
	"nightferry/internal/trust"
)

// modes are files and folders whose modes deny some access even to their owner.
var modes = map[string]fs.FileMode{"ro": 0o444, "secret": 0o400, "none": 0o010, "wo": 0o200, "shut/in": 0o444, "shut/deep/in": 0o400,
	"img": 0o444, "listed/in": 0o644, "shut/deep": 0o555, "shut": 0o555, "listed": 0o444}

// unreadable reports whether a mode prevents an ordinary owner from publishing.
func unreadable(mode fs.FileMode, folder bool) bool {
	return mode&0o400 == 0 || folder && mode&0o100 == 0
}

// closeTree sets the modes of the files of dir, folders last.
func closeTree(t *testing.T, dir string) {
	t.Helper()
	for _, folders := range []bool{false, true} {
		for p, mode := range modes {
			info, err := os.Lstat(filepath.Join(dir, p))
			if err != nil || info.IsDir() != folders || os.Geteuid() != 0 && unreadable(mode, folders) {
				continue
			}
			try(t, os.Chmod(filepath.Join(dir, p), mode))
		}
	}
}

func openTree(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o755)
		}
		return nil
	})
}

// An ordinary account resumes, replaces, moves and deletes files that it may not write to or read, in folders that
// it may not write to, under any umask. This also works after the write permission was removed from nightferry's
// own folder.
func TestModesStopNothing(t *testing.T) {
	started := os.Geteuid()
	for name, umask := range map[string]int{"umask 022": 0o022, "umask 077": 0o077, "umask 000": 0, "umask 0777": 0o777} {
		t.Run(name, func(t *testing.T) {
			one := tree{"ro": "r", "secret": "s", "none": "n", "wo": "w", "shut/in": "i", "shut/deep/in": "d", "img": blob(1, 600_000), "listed/in": "l"}
			p, src, dst := dirs(t, one)
			closeTree(t, src)
			p.publish(src)
			openTree(src)
			two := tree{"ro": "r2", "secret": "s2", "none": "n2", "shut/deep/in": "d2", "shut/moved": one["img"], "listed/in": "l2", "listed/more": "m"}
			lay(t, src, two)
			closeTree(t, src)
			p.publish(src)
			openTree(src)
			try(t, os.MkdirAll(dst, 0o755))
			nobody(t, dst)
			t.Cleanup(func() { openTree(dst) })
			old := syscall.Umask(umask)
			t.Cleanup(func() { syscall.Umask(old) })
			for _, release := range []trust.ReleaseNumber{1, 2} {
				want := func(o *Options) { o.Release = release }
				if _, err := p.pull(dst, func(o *Options) {
					want(o)
					o.Observer = refuser(func(op durable.Op) error {
						if strings.HasPrefix(op.Name, nextName) {
							return errKilled // everything is staged
						}
						return nil
					})
				}); err == nil {
					t.Fatal("was not interrupted")
				}
				try(t, filepath.WalkDir(filepath.Join(dst, stateDir), func(p string, d fs.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						err = os.Chmod(p, 0o444)
					}
					if d == nil || errors.Is(err, fs.ErrPermission) {
						return nil
					}
					return err
				}))
				for _, d := range []string{stageDir, pagesDir, ""} {
					try(t, os.Chmod(filepath.Join(dst, stateDir, strings.TrimPrefix(d, stateDir)), 0o555))
				}
				p.must(dst, want)
				if r := p.must(dst, want); !r.NoOp {
					t.Errorf("release %d: not a no-op after: %v", release, r.outcomes())
				}
			}
			for path, mode := range modes {
				info, err := os.Lstat(filepath.Join(dst, path))
				if err != nil || started != 0 && unreadable(mode, info.IsDir()) {
					continue
				}
				least := fs.FileMode(0o400)
				if info.IsDir() {
					least = 0o500
				}
				if have := info.Mode().Perm(); have != mode|least {
					t.Errorf("%s: mode %04o, want %04o", path, have, mode|least)
				}
			}
			if d := len(seen(t, dst)); d != len(mustHave(two)) {
				t.Errorf("%d names in the target, want %d", d, len(mustHave(two)))
			}
		})
	}
}

// While a file is staged, before it has its own mode, no other account can read it or, under any umask, write to
// it.
func TestStagedFilesArePrivate(t *testing.T) {
	p, src, dst := dirs(t, tree{"one": "1", "img": blob(1, 600_000)})
	p.publish(src)
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	looked := 0
	p.must(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) {
				looked++
				if info, err := os.Lstat(filepath.Join(dst, op.Name)); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", op.Name, info.Mode(), err)
				}
			}
			return nil
		})
	})
	try(t, filepath.WalkDir(filepath.Join(dst, stateDir), func(p string, d fs.DirEntry, err error) error {
		if info, ierr := d.Info(); err == nil && ierr == nil && info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s: others may write to it: %v", p, info.Mode())
		}
		return err
	}))
	if looked == 0 {
		t.Error("nothing was staged")
	}
}
