package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightferry/internal/disktest"
)

// Planted links lead outside and inside, in the middle of a name and at its end. Nothing is written through any of
// them. Either a check refuses them, in which case an observer sees no operation, or the operation itself does.
func TestLinksAreRefused(t *testing.T) {
	s := &script{}
	linksAreRefused(t, open(t, Options{Observer: s}), s)
	linksAreRefused(t, open(t, Options{}), s)
}

func linksAreRefused(t *testing.T, r *Root, s *script) {
	outside := t.TempDir()
	ok(t, r.MkdirAll("real/sub", 0o755))
	ok(t, r.WriteFile("real/f", []byte("keep"), 0o644))
	ok(t, os.WriteFile(filepath.Join(outside, "f"), []byte("keep"), 0o644))
	for link, target := range map[string]string{"out": outside, "in": "real", "real/up": "sub", "file": "real/f", "outfile": filepath.Join(outside, "f"), "loop": "loop", "dangling": "none"} {
		ok(t, os.Symlink(target, filepath.Join(r.Dir(), link)))
	}
	s.ops = nil
	for _, name := range []string{"out/f", "in/f", "in/new", "out/new", "real/up/new", "file", "outfile", "loop", "loop/x", "dangling"} {
		_, e1 := r.Create(name, 0)
		_, e2 := r.OpenRW(name)
		_, e3 := r.Open(name)
		for i, err := range []error{e1, e2, e3, r.WriteFile(name, []byte("evil"), 0o644), r.Chmod(name, 0o777), r.Chtimes(name, time.Unix(1, 0))} {
			if !errors.Is(err, ErrLink) {
				t.Errorf("%s, call %d: %v", name, i, err)
			}
		}
	}
	for _, name := range []string{"out/f", "in/f", "out/new", "real/up/new"} {
		for i, err := range []error{r.Mkdir(name, 0o755), r.Remove(name), r.RemoveAll(name), r.Rename("real/f", name), r.Rename(name, "x"), r.MkdirAll(name, 0o755)} {
			if !errors.Is(err, ErrLink) {
				t.Errorf("%s, call %d: %v", name, i, err)
			}
		}
	}
	if len(s.ops) != 0 {
		t.Errorf("%d operations got through: %v", len(s.ops), s.kinds())
	}
	if _, err := r.ReadDir("out"); !errors.Is(err, ErrLink) {
		t.Errorf("ReadDir: %v", err)
	}
	if _, err := r.Lstat("out/f"); !errors.Is(err, ErrLink) {
		t.Errorf("Lstat: %v", err)
	}
	if info, err := r.Lstat("out"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat of a link: %v %v", info, err)
	}
	// A link itself can be removed and replaced.
	ok(t, r.Remove("out"))
	ok(t, r.RemoveAll("in"))
	ok(t, r.WriteFile("new", []byte("new"), 0o644))
	ok(t, r.Rename("new", "file"))
	for path, want := range map[string]string{filepath.Join(outside, "f"): "keep", filepath.Join(r.Dir(), "real", "f"): "keep"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
}

// Kernels before 5.6, and some sandboxes, have no openat2. The same rules hold there.
func TestWithoutOpenat2(t *testing.T) {
	if r := open(t, Options{}); !r.one {
		t.Fatal("this kernel has no openat2: the tests of this package show nothing about it")
	}
	stepwise = true
	defer func() { stepwise = false }()
	for name, test := range map[string]func(*testing.T){
		"links": TestLinksAreRefused, "swapped": TestSwappedLinkNeverLeadsOut, "files": TestFile, "sequence": TestWriteFileSequence, "leaving": TestNamesThatLeaveAreRefused,
		"rename": TestRenameRemove, "times": TestTimesAndModes, "stopped": TestObserverStopsEveryChange, "long": TestLongPaths, "leased": TestLeasedFileIsWaitedFor, "volume": TestSpaceAndVolume,
	} {
		t.Run(name, test)
	}
}

// The code for kernels without openat2 gives the same results.
func TestCheckEach(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.MkdirAll("a/b", 0o755))
	ok(t, os.Symlink("b", filepath.Join(r.Dir(), "a", "l")))
	for name, want := range map[string]error{"a/b/c": nil, "none/x": nil, "a/l": ErrLink, "a/l/x": ErrLink} {
		if err := r.checkEach(name); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err := r.checkChain(name); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: openat2 says %v, want %v", name, err, want)
		}
	}
}

// A process that keeps swapping a folder for a link cannot make writes leave the root. os.Root guarantees that; the
// check is an addition.
func TestSwappedLinkNeverLeadsOut(t *testing.T) {
	outside := t.TempDir()
	r := open(t, Options{})
	ok(t, r.Mkdir("d", 0o755))
	ok(t, os.Symlink(outside, filepath.Join(r.Dir(), "l")))
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		d, l := filepath.Join(r.Dir(), "d"), filepath.Join(r.Dir(), "l")
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, l, unix.RENAME_EXCHANGE)
			}
		}
	}()
	refused := 0
	for range 2000 {
		if err := r.WriteFile("d/f", []byte("x"), 0o644); err != nil {
			refused++
		}
		_ = r.MkdirAll("d/e", 0o755)
	}
	close(done)
	<-stopped
	if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
		t.Fatalf("outside: %v %v", list, err)
	}
	if refused == 0 {
		t.Error("the link was never met: the test shows nothing")
	}
}

func TestOpenRefusesLink(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	ok(t, os.Symlink("d", filepath.Join(dir, "l")))
	for _, name := range []string{"l", "l/", "l/."} {
		if _, err := Open(dir+"/"+name, Options{Create: true}); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestModeSurvivesUmask(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	r := open(t, Options{})
	ok(t, r.WriteStream("f", 0o644, func(w io.Writer) error { return nil }))
	info, err := r.Lstat("f")
	ok(t, err)
	if info.Mode() != fs.FileMode(0o644) {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestKindsOfErrors(t *testing.T) {
	for err, want := range map[error][2]bool{
		unix.ENOSPC: {false, true}, unix.EDQUOT: {false, true}, unix.ETXTBSY: {true, false}, ErrLocked: {true, false}, unix.EACCES: {false, false},
	} {
		if w := wrap("write", "x", &fs.PathError{Err: err}); IsLocked(w) != want[0] || IsDiskFull(w) != want[1] {
			t.Errorf("%v: locked %v, full %v", err, IsLocked(w), IsDiskFull(w))
		}
	}
}

// An attribute of a file or of its folder, or a sticky folder, forbids the change of a name. The error names that, and
// waiting does not help.
func TestChangesThatAreForbidden(t *testing.T) {
	r := open(t, Options{})
	for _, dir := range []string{"d", "shared"} {
		ok(t, r.Mkdir(dir, 0o755))
		ok(t, r.WriteFile(dir+"/f", []byte("old"), 0o644))
	}
	ok(t, r.WriteFile("new", []byte("new"), 0o644))
	changes := func(name string) map[string]error {
		return map[string]error{"replace": r.Rename("new", name), "remove": r.Remove(name)}
	}
	for name, mark := range map[string]int{"d/f": disktest.Immutable, "d": disktest.AppendOnly} {
		t.Run(name, func(t *testing.T) {
			ok(t, r.ProbeLocked("d/f"))
			unmark := disktest.Mark(t, filepath.Join(r.Dir(), name), mark)
			probe, errs := r.ProbeLocked("d/f"), changes("d/f")
			unmark()
			errs["probe"] = probe
			for act, err := range errs {
				if !errors.Is(err, ErrImmutable) || !errors.Is(err, unix.EPERM) || IsLocked(err) {
					t.Errorf("%s: %v", act, err)
				}
			}
		})
	}
	t.Run("sticky", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to make a file of another account")
		}
		for p := r.Dir(); strings.HasPrefix(p, filepath.Clean(os.TempDir())+"/"); p = filepath.Dir(p) {
			ok(t, os.Chmod(p, 0o755))
		}
		ok(t, os.Chmod(filepath.Join(r.Dir(), "shared"), 0o777|fs.ModeSticky))
		ok(t, os.Chmod(r.Dir(), 0o777))
		ok(t, syscall.Setresuid(-1, 65534, -1))
		errs := changes("shared/f")
		ok(t, syscall.Setresuid(-1, 0, -1))
		for act, err := range errs {
			if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "belongs to account 0, and its folder has the sticky bit") || errors.Is(err, ErrImmutable) {
				t.Errorf("%s: %v", act, err)
			}
		}
	})
	for name, want := range map[string]string{"d/f": "old", "shared/f": "old", "new": "new"} {
		if got := read(t, r, name); got != want {
			t.Errorf("%s: read %q", name, got)
		}
	}
}
