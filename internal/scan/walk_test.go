package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func walk(t testing.TB, dir string, o WalkOptions) []Item {
	t.Helper()
	var got []Item
	if err := Walk(context.Background(), dir, o, func(i Item) error { got = append(got, i); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func paths(items []Item) []string {
	var out []string
	for _, i := range items {
		out = append(out, i.Path)
	}
	return out
}

func TestWalkOrder(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"a/x": "1", "a!b": "22", "a/b/c": "", "a-": "", "a.txt": "", "Z": "", "b/": "", "a/b!": "333", "é/ü": ""})
	got := walk(t, dir, WalkOptions{})
	want := []string{"Z", "a", "a/b", "a/b/c", "a/b!", "a/x", "a!b", "a-", "a.txt", "b", "é", "é/ü"}
	if d := cmp.Diff(want, paths(got)); d != "" {
		t.Fatal(d)
	}
	if !slices.IsSortedFunc(got, func(a, b Item) int { return Compare(a.Path, b.Path) }) {
		t.Error("Compare does not agree with the order of the walk")
	}
	for _, it := range got {
		info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(it.Path)))
		if err != nil {
			t.Fatal(err)
		}
		if it.Err != nil || it.Stat.MTime != info.ModTime().UnixNano() {
			t.Errorf("%s: mtime %d, want %d (%v)", it.Path, it.Stat.MTime, info.ModTime().UnixNano(), it.Err)
		}
		if (it.Kind == Dir) != info.IsDir() || (it.Kind == File && it.Stat.Size != info.Size()) {
			t.Errorf("%s: %v, %d bytes", it.Path, it.Kind, it.Stat.Size)
		}
		if it.Stat.ID == 0 || it.Stat.CTime == 0 {
			t.Errorf("%s: no id or change time: %+v", it.Path, it.Stat)
		}
		if runtime.GOOS == "windows" && it.Stat.Mode != 0 {
			t.Errorf("%s: mode %o on Windows", it.Path, it.Stat.Mode)
		}
	}
}

// For any tree and any number of workers, Walk agrees with a plain sorted
// walk.
func TestWalkAgreesWithFilepath(t *testing.T) {
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		names := rapid.SliceOfN(rapid.StringMatching(`[a-c]{1,2}(/[a-c!]{1,2}){0,4}`), 0, 40).Draw(rt, "names")
		for _, name := range names {
			_ = os.MkdirAll(filepath.Join(dir, filepath.FromSlash(name)), 0o755)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			rt.Fatal(err)
		}
		var want []string
		_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, p)
			if rel != "." {
				want = append(want, filepath.ToSlash(rel))
			}
			return err
		})
		got := walk(t, dir, WalkOptions{Workers: rapid.IntRange(1, 5).Draw(rt, "workers")})
		if d := cmp.Diff(want, paths(got)); d != "" {
			rt.Fatal(d)
		}
		_ = os.RemoveAll(dir)
	})
}

func TestWalkSkipPrunes(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"keep/a": "", "drop/b/c": "", "x.tmp": "", "y": ""})
	skip := func(p string, d bool) bool { return p == "drop" && d || strings.HasSuffix(p, ".tmp") }
	if d := cmp.Diff([]string{"keep", "keep/a", "y"}, paths(walk(t, dir, WalkOptions{Skip: skip}))); d != "" {
		t.Fatal(d)
	}
}

func TestWalkErrors(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	none := func(Item) error { t.Error("called"); return nil }
	if err := Walk(ctx, filepath.Join(dir, "gone"), WalkOptions{}, none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing root: %v", err)
	}
	plant(t, dir, map[string]string{"f": "x"})
	if err := Walk(ctx, filepath.Join(dir, "f"), WalkOptions{}, none); err == nil {
		t.Error("a file as the root: no error")
	}
	stop := errors.New("stop")
	if err := Walk(ctx, dir, WalkOptions{}, func(Item) error { return stop }); err != stop {
		t.Errorf("error of fn: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Walk(canceled, dir, WalkOptions{}, none); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A folder that is deleted after its name was listed is an item with an
// error, not an empty folder: an empty one would delete its files at every
// site.
func TestPain02_VanishedFolderIsAnError(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 60 {
		files[fmt.Sprintf("d%02d/f", i)] = "x"
	}
	plant(t, dir, files)
	var bad, good int
	err := Walk(context.Background(), dir, WalkOptions{Workers: 1}, func(it Item) error {
		if it.Path == "d00" {
			return os.RemoveAll(filepath.Join(dir, "d59"))
		}
		if it.Path == "d59" {
			bad++
			if !errors.Is(it.Err, fs.ErrNotExist) || it.Kind != Dir {
				t.Errorf("vanished folder: %+v", it)
			}
		} else if it.Err != nil {
			t.Errorf("%s: %v", it.Path, it.Err)
		}
		if it.Kind == File {
			good++
		}
		return nil
	})
	if err != nil || bad != 1 || good != 59 {
		t.Errorf("%v: %d bad, %d good", err, bad, good)
	}
}

func TestWalkLongPaths(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("long-folder-name/", 30) + "f.txt"
	plant(t, dir, map[string]string{long: "deep"})
	got := walk(t, dir, WalkOptions{})
	last := got[len(got)-1]
	if len(got) != 31 || last.Path != long || last.Stat.Size != 4 || last.Err != nil {
		t.Fatalf("%d items, last %+v", len(got), last)
	}
}
