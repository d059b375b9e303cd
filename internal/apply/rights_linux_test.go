package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/runs"
)

// nobody changes this process, until the test ends, to an account that has only the owner's rights on dir, and may
// read the files beside it.
func nobody(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // it has no special rights already
	}
	const uid = 65534
	for p := dir; strings.HasPrefix(p, filepath.Clean(os.TempDir())+"/"); p = filepath.Dir(p) {
		try(t, os.Chmod(p, 0o755))
	}
	try(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(p, uid, uid)
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil // the file system has no owners: every account may write there
		}
		return err
	}))
	try(t, syscall.Setresuid(-1, uid, -1))
	t.Cleanup(func() {
		if err := syscall.Setresuid(-1, 0, -1); err != nil {
			panic(err) // later tests would run with the wrong account
		}
	})
}

// The release deletes a file that cannot be checked: its folder cannot be listed, or it was changed and cannot be
// read. It is deleted once that is possible.
func TestDeletionThatCannotBeLookedAt(t *testing.T) {
	old := tree{"k": "k", "top/d/x": "x", "top/d/sub/y": "y", "touched": "t"}
	p, src, dst := dirs(t, old)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, tree{"k": "newer"})
	p.publish(src)
	nobody(t, dst)
	try(t, os.Chtimes(filepath.Join(dst, "touched"), time.Time{}, time.Now()))
	try(t, os.Chmod(filepath.Join(dst, "touched"), 0))
	try(t, os.Chmod(filepath.Join(dst, "top/d"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dst, "top/d"), 0o755) })

	for range 2 { // any number of pulls
		r, err := p.pull(dst, func(o *Options) { o.Partial = true })
		if err != nil || r.Verdict != Incomplete {
			t.Fatal(r.Verdict, err)
		}
		for _, path := range []string{"top/d", "top/d/x", "top/d/sub", "top/d/sub/y", "touched"} {
			if e := r.files[path]; e.Outcome != runs.FileFailed || e.Cause == nil {
				t.Errorf("%s: %q, %v", path, e.Outcome, e.Cause)
			}
		}
	}
	try(t, os.Chmod(filepath.Join(dst, "top/d"), 0o755))
	try(t, os.Chmod(filepath.Join(dst, "touched"), 0o644))
	p.must(dst, nil)
	if d := cmp.Diff(tree{"k": "newer"}, seen(t, dst)); d != "" {
		t.Errorf("the folder (-want +have):\n%s", d)
	}
}
