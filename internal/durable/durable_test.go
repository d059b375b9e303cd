package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script records operations and fails the one for which fail returns an error.
type script struct {
	mu   sync.Mutex
	ops  []Op
	fail func(Op) error
}

func (s *script) Before(op Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.Data = bytes.Clone(op.Data)
	s.ops = append(s.ops, op)
	if s.fail != nil {
		return s.fail(op)
	}
	return nil
}

func (s *script) kinds() string {
	var out []string
	for _, op := range s.ops {
		out = append(out, op.Kind.String())
	}
	return strings.Join(out, " ")
}

// stepwise makes roots check links folder by folder, as on systems without openat2.
var stepwise bool

func open(t *testing.T, o Options) *Root {
	t.Helper()
	r, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.one = r.one && !stepwise
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r *Root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.Dir(), filepath.FromSlash(name)))
	ok(t, err)
	return string(b)
}

func TestWriteFileSequence(t *testing.T) {
	s := &script{}
	r := open(t, Options{Observer: s})
	ok(t, r.Mkdir("d", 0o755))
	ok(t, r.WriteFile("d/f", []byte("one"), 0o644))
	want := "mkdir create write chmod sync rename syncdir"
	if umaskFree {
		want = "mkdir create write sync rename syncdir"
	}
	if s.kinds() != want {
		t.Errorf("operations: %s\nwant:       %s", s.kinds(), want)
	}
	last := s.ops[len(s.ops)-1]
	if last.Name != "d" {
		t.Errorf("synced folder %q, want the file's own", last.Name)
	}
	ok(t, r.WriteFile("d/f", []byte("two"), 0o600))
	if got := read(t, r, "d/f"); got != "two" {
		t.Errorf("read %q", got)
	}
	info, err := r.Lstat("d/f")
	ok(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// If any operation of WriteFile fails, the old bytes stay. After a failed rename nothing is synced.
func TestWriteFileFailsWhole(t *testing.T) {
	boom := errors.New("boom")
	for _, kind := range []OpKind{Create, Write, SyncFile, Rename} {
		s := &script{}
		r := open(t, Options{Observer: s})
		ok(t, r.WriteFile("f", []byte("old"), 0o644))
		s.fail = func(op Op) error {
			if op.Kind == kind {
				return boom
			}
			return nil
		}
		if err := r.WriteFile("f", []byte("new"), 0o644); !errors.Is(err, boom) {
			t.Errorf("%v: %v", kind, err)
		}
		if got := read(t, r, "f"); got != "old" {
			t.Errorf("%v: read %q", kind, got)
		}
	}
	r := open(t, Options{})
	if err := r.WriteStream("f", 0o644, func(io.Writer) error { return boom }); err != boom {
		t.Errorf("fill's error: %v", err)
	}
	if list, err := r.ReadDir("."); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

func TestFile(t *testing.T) {
	r := open(t, Options{})
	f, err := r.Create("f", 3<<20)
	ok(t, err)
	ok(t, f.SetSparse())
	_, err = f.WriteAt([]byte("abc"), 2<<20)
	ok(t, err)
	ok(t, f.Sync())
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 2<<20-1); err != nil || string(b) != "\x00abc\x00" {
		t.Errorf("read %q %v", b, err)
	}
	if _, err := f.ReadAt(b, 3<<20); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	ok(t, f.Truncate(10))
	info, err := f.Stat()
	ok(t, err)
	if info.Size() != 10 {
		t.Errorf("size %d", info.Size())
	}
	ok(t, f.Close())
	// Create empties an existing file.
	f, err = r.Create("f", 0)
	ok(t, err)
	ok(t, f.Close())
	if got := read(t, r, "f"); got != "" {
		t.Errorf("read %q", got)
	}
	if _, err := r.OpenRW("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenRW of nothing: %v", err)
	}
}

func TestNamesThatLeaveAreRefused(t *testing.T) {
	r := open(t, Options{})
	bad := []string{"", "..", "../x", "/x", "a/../x", "a//b", "a/", "./a"}
	if runtime.GOOS == "windows" {
		bad = append(bad, `C:x`, `C:\x`, `a\b`, `..\x`, "f:stream", "aux", "d/NUL", `\\server\share\x`)
	}
	// The folders exist, so that only the name can cause a failure.
	ok(t, r.Mkdir("a", 0o755))
	ok(t, r.Mkdir("d", 0o755))
	for _, name := range bad {
		if f, err := r.Create(name, 0); !errors.Is(err, fs.ErrInvalid) {
			if f != nil {
				_ = f.Close()
			}
			t.Errorf("Create(%q): %v", name, err)
		}
		if err := r.WriteFile(name, nil, 0o644); err == nil {
			t.Errorf("WriteFile(%q) worked", name)
		}
		if err := r.Mkdir(name, 0o755); err == nil {
			t.Errorf("Mkdir(%q) worked", name)
		}
	}
}

func TestRenameRemove(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.MkdirAll("a/b/c", 0o755))
	ok(t, r.MkdirAll("a/b/c", 0o755))
	ok(t, r.WriteFile("a/f", []byte("f"), 0o644))
	ok(t, r.WriteFile("a/b/g", []byte("g"), 0o644))
	ok(t, r.Rename("a/f", "a/b/g"))
	if got := read(t, r, "a/b/g"); got != "f" {
		t.Errorf("read %q", got)
	}
	if err := r.Rename("a/b/g", "a/b/c"); err == nil {
		t.Error("a file replaced a folder")
	}
	if err := r.Rename("none", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename of nothing: %v", err)
	}
	if err := r.Remove("a"); err == nil {
		t.Error("a full folder was removed")
	}
	if err := r.MkdirAll("a/b/g/h", 0o755); err == nil {
		t.Error("a folder was made below a file")
	}
	ok(t, r.RemoveAll("a"))
	ok(t, r.RemoveAll("a"))
	if _, err := r.Lstat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestReadOnlyFilesAreReplacedAndRemoved(t *testing.T) {
	r := open(t, Options{})
	for _, name := range []string{"old", "del"} {
		ok(t, r.WriteFile(name, []byte("old"), 0o444))
		if info, err := r.Lstat(name); err != nil || info.Mode()&0o200 != 0 {
			t.Fatalf("%s is not read-only: %v %v", name, info, err)
		}
	}
	ok(t, r.WriteFile("new", []byte("new"), 0o644))
	ok(t, r.Rename("new", "old"))
	if got := read(t, r, "old"); got != "new" {
		t.Errorf("read %q", got)
	}
	ok(t, r.Remove("del"))
	ok(t, r.WriteFile("old", []byte("newer"), 0o444))
	ok(t, r.WriteFile("old", []byte("newest"), 0o444))
}

func TestCaseOnlyRename(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.Mkdir("Dir", 0o755))
	ok(t, r.WriteFile("Dir/readme.TXT", []byte("x"), 0o644))
	ok(t, r.Rename("Dir/readme.TXT", "Dir/README.txt"))
	ok(t, r.Rename("Dir", "DIR"))
	list, err := r.ReadDir(".")
	ok(t, err)
	if len(list) != 1 || list[0].Name() != "DIR" {
		t.Errorf("folder: %v", list)
	}
	list, err = r.ReadDir("DIR")
	ok(t, err)
	if len(list) != 1 || list[0].Name() != "README.txt" {
		t.Errorf("file: %v", list)
	}
}

func TestTimesAndModes(t *testing.T) {
	r := open(t, Options{})
	ok(t, r.WriteFile("f", nil, 0o644))
	want := time.Date(2019, 3, 4, 5, 6, 7, 123456700, time.UTC)
	ok(t, r.Chtimes("f", want))
	info, err := r.Lstat("f")
	ok(t, err)
	if !info.ModTime().Equal(want) {
		t.Errorf("mtime %v, want %v", info.ModTime(), want)
	}
	ok(t, r.Mkdir("d", 0o755))
	ok(t, r.Chtimes("d", want))
	ok(t, r.Chmod("f", 0o444))
	info, err = r.Lstat("f")
	ok(t, err)
	if info.Mode()&0o222 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
	ok(t, r.Chmod("f", 0o644))
}

func TestObserverStopsEveryChange(t *testing.T) {
	s := &script{}
	r := open(t, Options{Observer: s})
	ok(t, r.WriteFile("f", []byte("keep"), 0o644))
	ok(t, r.Mkdir("d", 0o755))
	f, err := r.OpenRW("f")
	ok(t, err)
	defer func() { ok(t, f.Close()) }()
	full := errors.New("no more")
	s.fail = func(Op) error { return full }
	s.ops = nil
	_, wErr := f.WriteAt([]byte("x"), 0)
	_, cErr := r.Create("f", 1)
	for i, err := range []error{wErr, cErr, f.Truncate(0), f.Sync(), r.Rename("f", "g"), r.Remove("f"), r.Mkdir("e", 0o755), r.SyncDir("."),
		r.SyncAll(), r.Chmod("f", 0o444), r.Chtimes("f", time.Unix(0, 0)), r.ProbeLocked("f"), r.RemoveAll("d"), r.MkdirAll("x/y", 0o755)} {
		if !errors.Is(err, full) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	want := "write create truncate sync rename remove mkdir syncdir syncall chmod chtimes probe remove mkdir"
	if d := cmp.Diff(want, s.kinds()); d != "" {
		t.Error(d)
	}
	if got := read(t, r, "f"); got != "keep" {
		t.Errorf("read %q", got)
	}
}

func TestLongPaths(t *testing.T) {
	r := open(t, Options{})
	dir := strings.TrimSuffix(strings.Repeat("a-long-folder-name/", 25), "/")
	ok(t, r.MkdirAll(dir, 0o755))
	ok(t, r.WriteFile(dir+"/f", []byte("deep"), 0o644))
	ok(t, r.Rename(dir+"/f", dir+"/g"))
	ok(t, r.ProbeLocked(dir+"/g"))
	if got := read(t, r, dir+"/g"); got != "deep" {
		t.Errorf("read %q", got)
	}
	deep, err := Open(filepath.Join(r.Dir(), filepath.FromSlash(dir)), Options{})
	ok(t, err)
	if n, err := deep.Free(); err != nil || n <= 0 {
		t.Errorf("free space of a deep folder: %d %v", n, err)
	}
	ok(t, deep.Remove("g"))
	ok(t, deep.Close())
	ok(t, r.RemoveAll("a-long-folder-name"))
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	r, err := Open(filepath.Join(dir, "x", "y"), Options{Create: true})
	ok(t, err)
	ok(t, r.Close())
	ok(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	if _, err := Open(filepath.Join(dir, "f"), Options{}); err == nil {
		t.Error("a file was opened as a folder")
	}
}

func TestSpaceAndVolume(t *testing.T) {
	r := open(t, Options{})
	if n, err := r.Free(); err != nil || n <= 0 {
		t.Errorf("free: %d %v", n, err)
	}
	ok(t, r.Mkdir("d", 0o755))
	for _, name := range []string{".", "d"} {
		if same, err := r.SameVolume(name); err != nil || !same {
			t.Errorf("%s: %v %v", name, same, err)
		}
	}
	if _, err := r.SameVolume("none"); err == nil {
		t.Error("a missing folder has a volume")
	}
	ok(t, r.SyncAll())
	ok(t, r.SyncDir("d"))
}

func TestLock(t *testing.T) {
	r := open(t, Options{})
	unlock, err := Lock(r, "lock")
	ok(t, err)
	if _, err := Lock(r, "lock"); !errors.Is(err, ErrBusy) {
		t.Errorf("second: %v", err)
	}
	ok(t, unlock())
	unlock, err = Lock(r, "lock")
	ok(t, err)
	ok(t, unlock())
}

func TestPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	ok(t, WritePrivate(path, []byte("secret")))
	if b, err := ReadPrivate(path, 6); err != nil || string(b) != "secret" {
		t.Errorf("read %q %v", b, err)
	}
	if _, err := ReadPrivate(path, 5); err == nil {
		t.Error("a file above the limit was read")
	}
	if err := WritePrivate(path, []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwrite: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "secret" {
		t.Errorf("read %q %v", b, err)
	}
	expose(t, path)
	if _, err := ReadPrivate(path, 6); !errors.Is(err, ErrExposed) {
		t.Errorf("exposed: %v", err)
	}
	if _, err := ReadTrusted(path, 6); err != nil {
		t.Errorf("no secret, and others may read it: %v", err)
	}
	if _, err := ReadPrivate(path+".none", 6); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestErrorsNameActAndThing(t *testing.T) {
	r := open(t, Options{})
	_, err := r.Open("drivers/x.sys")
	want := `open "drivers/x.sys": `
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "x.sys") != 1 {
		t.Errorf("%v", err)
	}
	err = r.Rename("a", "b")
	if err == nil || !strings.HasPrefix(err.Error(), `rename "a" to "b": `) {
		t.Errorf("%v", err)
	}
}

// A private folder is closed to other accounts from its creation.
func TestMkdirPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	ok(t, MkdirPrivate(dir))
	ok(t, MkdirPrivate(dir))
	f, err := openTrusted(dir, false, noAccount)
	ok(t, err)
	ok(t, errors.Join(judgePrivate(f), f.Close()))
}
