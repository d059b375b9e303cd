package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/disktest"
	"nightferry/internal/durable"
)

func TestPain13_SpaceIsCheckedBefore(t *testing.T) {
	big := tree{"one": blob(1, 10<<20), "two": blob(2, 10<<20), "zeros": strings.Repeat("\x00", 30<<20)}
	p, src, dst := dirs(t, big)
	p.publish(src)
	disktest.Volume(t, dst, 24<<20)
	_, err := p.pull(dst, nil)
	var se *SpaceError
	if !errors.As(err, &se) || se.Needed < 20<<20 || se.Needed > 32<<20 || se.Free > 24<<20 {
		t.Fatalf("error %v", err)
	}
	staged, err := filepath.Glob(filepath.Join(dst, stageDir, "*", "*"))
	if err != nil || len(staged) > 0 {
		t.Errorf("staged %v, %v", staged, err)
	}
	disktest.Resize(t, dst, 34<<20)
	p.must(dst, nil) // holes need no space
	sameTree(t, src, dst)
}

// Staged bytes do not count as needed: a 20 MiB release fits on a 30 MiB volume after 10 MiB of it were staged.
func TestPain13_SpaceCountsWhatIsStaged(t *testing.T) {
	big := tree{}
	for _, n := range []string{"one", "two", "three", "four"} {
		big[n] = blob(hashOf(n), 5<<20)
	}
	p, src, dst := dirs(t, big)
	p.publish(src)
	disktest.Volume(t, dst, 30<<20)
	written := 0
	if _, err := p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) {
				if written += len(op.Data); written > 12<<20 {
					return errKilled
				}
			}
			return nil
		})
		o.Connections = 1
	}); err == nil {
		t.Fatal("was not stopped")
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}

// The volume fills up during staging, although it had enough space before.
func TestPain13_RealDiskFullInMidStage(t *testing.T) {
	p, src, dst := dirs(t, tree{"one": blob(1, 10<<20), "two": blob(2, 10<<20)})
	p.publish(src)
	disktest.Volume(t, dst, 40<<20)
	hog := filepath.Join(dst, "hog")
	filled := false
	_, err := p.pull(dst, func(o *Options) {
		o.OnEvent = func(e Event) {
			if e.Kind == ProgressEvent && !filled {
				filled = true
				if err := os.WriteFile(hog, make([]byte, 28<<20), 0o644); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err == nil || !durable.IsDiskFull(err) {
		t.Fatalf("error %v", err)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}

func TestVolumeMountedInsideIsRefused(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	disktest.Volume(t, filepath.Join(dst, "b", "d"), 30<<20)
	_, err := p.pull(dst, nil)
	if err == nil || !strings.Contains(err.Error(), "another volume") {
		t.Fatalf("error %v", err)
	}
}

func TestHolesStayHoles(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	for name, most := range map[string]int64{"z/zeros.img": 0, "z/half-zeros.img": 2_000_000} {
		info, err := os.Stat(filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > most {
			t.Errorf("%s takes %d bytes on the disk, want at most %d", name, used, most)
		}
	}
}

// Chunks that are part data, part zeros keep their zeros as holes: the file takes no more space at the site than in
// the source.
func TestHolesWithinChunksStayHoles(t *testing.T) {
	p, src, dst := dirs(t, tree{"other": "x"})
	f, err := os.Create(filepath.Join(src, "thin.img"))
	if err != nil {
		t.Fatal(err)
	}
	const size, period = 8 << 20, 128 << 10
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off := int64(100); off < size; off += period {
		if _, err := f.WriteAt([]byte(blob(uint64(off), 3000)), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p.publish(src)
	p.must(dst, nil)
	sameTree(t, src, dst)
	info, err := os.Stat(filepath.Join(dst, "thin.img"))
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > size/8 {
		t.Errorf("it takes %d bytes on the disk, want at most %d", used, size/8)
	}
}

// closed returns to root, which may write anywhere, the errors that other accounts get.
func closed(dst string) refuser {
	return func(op durable.Op) error {
		for _, n := range []string{op.Name, op.To} {
			if (op.Kind == durable.Rename || op.Kind == durable.Remove) && n != "" {
				if info, err := os.Stat(filepath.Join(dst, filepath.Dir(n))); err == nil && info.Mode()&0o200 == 0 {
					return fs.ErrPermission
				}
			}
		}
		return nil
	}
}

// A release with a read-only folder can be applied and changed.
func TestFolderWithoutWriteRight(t *testing.T) {
	p, src, dst := dirs(t, tree{"ro/a": "one", "ro/sub/b": "two"})
	if err := os.Chmod(filepath.Join(src, "ro"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(src, "ro"), 0o755)
		_ = os.Chmod(filepath.Join(dst, "ro"), 0o755)
	})
	p.publish(src)
	p.must(dst, nil)
	sameTree(t, src, dst)
	if err := os.Chmod(filepath.Join(src, "ro"), 0o755); err != nil {
		t.Fatal(err)
	}
	grow(t, src, tree{"ro/c": "three"})
	if err := os.Remove(filepath.Join(src, "ro/a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(src, "ro"), 0o555); err != nil {
		t.Fatal(err)
	}
	p.publish(src)
	p.must(dst, func(o *Options) { o.Observer = closed(dst) })
	sameTree(t, src, dst)
	info, err := os.Stat(filepath.Join(dst, "ro"))
	if err != nil || info.Mode().Perm() != 0o555 {
		t.Errorf("the folder's mode is %v, %v", info.Mode(), err)
	}
	if !p.must(dst, nil).NoOp {
		t.Error("not a no-op after")
	}
}

// A folder made writable for a commit is closed again by the run that finishes the commit, or by the next run if
// that was not possible.
func TestFolderLeftOpen(t *testing.T) {
	for name, after := range map[string]error{"killed": errKilled, "cannot be closed": fs.ErrPermission} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, tree{"ro/a": "one", "ro/b": "two"})
			try(t, os.Chmod(filepath.Join(src, "ro"), 0o555))
			t.Cleanup(func() {
				_ = os.Chmod(filepath.Join(src, "ro"), 0o755)
				_ = os.Chmod(filepath.Join(dst, "ro"), 0o755)
			})
			p.publish(src)
			p.must(dst, nil)
			try(t, os.Chmod(filepath.Join(src, "ro"), 0o755))
			try(t, os.Remove(filepath.Join(src, "ro/b")))
			try(t, os.Chmod(filepath.Join(src, "ro"), 0o555))
			p.publish(src)
			opened := false
			_, err := p.pull(dst, func(o *Options) {
				o.Observer = refuser(func(op durable.Op) error {
					if opened && (after == errKilled || op.Kind == durable.Chmod && op.Name == "ro") {
						return after
					}
					opened = opened || op.Kind == durable.Chmod && op.Name == "ro"
					return closed(dst)(op)
				})
			})
			if (err != nil) != (after == errKilled) {
				t.Fatal(err)
			}
			if info, err := os.Stat(filepath.Join(dst, "ro")); err != nil || info.Mode().Perm() == 0o555 {
				t.Fatalf("it was not left open: %v, %v", info.Mode(), err)
			}
			p.must(dst, nil)
			if info, err := os.Stat(filepath.Join(dst, "ro")); err != nil || info.Mode().Perm() != 0o555 {
				t.Errorf("verified with the mode %v, %v", info.Mode(), err)
			}
			if !p.must(dst, nil).NoOp {
				t.Error("not a no-op after")
			}
		})
	}
}
