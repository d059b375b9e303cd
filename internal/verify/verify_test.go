package verify

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

var when = time.Date(2024, 5, 6, 7, 8, 9, 123456700, time.UTC)

// lay makes a folder and the entries of a release that matches it exactly.
func lay(t testing.TB, files map[string]string) (dir string, entries []manifest.Entry) {
	t.Helper()
	dir = t.TempDir()
	for p, text := range files {
		name := filepath.Join(dir, filepath.FromSlash(p))
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	err := scan.Walk(t.Context(), dir, scan.WalkOptions{}, func(it scan.Item) error {
		e := manifest.Entry{Path: it.Path, Mode: it.Stat.Mode & 0o777}
		if it.Kind == scan.Dir {
			e.Kind = manifest.Dir
		} else {
			b, err := os.ReadFile(filepath.Join(dir, it.Path))
			if err != nil {
				return err
			}
			e.Size, e.MTime, e.Digest = it.Stat.Size, it.Stat.MTime, digest.Of(b)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, entries
}

func next(entries []manifest.Entry) manifest.Next {
	return func() (*manifest.Entry, error) {
		if len(entries) == 0 {
			return nil, nil
		}
		e := &entries[0]
		entries = entries[1:]
		return e, nil
	}
}

func check(t testing.TB, dir string, entries []manifest.Entry, o Options) ([]string, Totals) {
	t.Helper()
	var out []string
	totals, err := Run(t.Context(), dir, next(entries), o, func(f Finding) { out = append(out, f.Path+" "+string(f.Problem)) })
	if err != nil {
		t.Fatal(err)
	}
	return out, totals
}

var files = map[string]string{"a": "alpha", "d/b": strings.Repeat("beta", 1000), "d/c": "gamma", "d-e": "x", "empty": "", "hollow/": "", "k/deep/f": "f"}

func TestEveryProblemIsFound(t *testing.T) {
	dir, entries := lay(t, files)
	if found, totals := check(t, dir, entries, Options{}); found != nil || totals.Files != 6 || totals.Dirs != 4 || totals.Bytes != 4012 {
		t.Fatalf("a right folder: %v %+v", found, totals)
	}
	at := func(p string) string { return filepath.Join(dir, filepath.FromSlash(p)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(at("a"), []byte("ALPHA"), 0o644)) // the same size and time
	must(os.Chtimes(at("a"), when, when))
	must(os.WriteFile(at("d/b"), []byte("short"), 0o644))
	must(os.Remove(at("d/c")))
	must(os.Chtimes(at("d-e"), when.Add(time.Hour), when.Add(time.Hour)))
	must(os.Mkdir(at("mine"), 0o755))
	must(os.WriteFile(at("mine/x"), nil, 0o644))
	must(os.RemoveAll(at("k")))
	must(os.WriteFile(at("k"), nil, 0o644))
	must(os.MkdirAll(at(manifest.StateDir+"/stage"), 0o755))
	want := []string{"a hash", "d/b time", "d/b size", "d/c missing", "d-e time", "k kind", "k/deep unreadable", "k/deep/f unreadable", "mine extra", "mine/x extra"}
	found, totals := check(t, dir, entries, Options{})
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
	if totals.Findings != 8 || totals.Extra != 2 {
		t.Errorf("%+v", totals)
	}
	mine, err := scan.ParsePatterns(nil, []string{"/mine/"})
	must(err)
	quick, _ := check(t, dir, entries, Options{Quick: true, Ignore: mine})
	if d := cmp.Diff(want[1:8], quick); d != "" {
		t.Error(d)
	}
}

func TestModeIsFound(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits on this system")
	}
	dir, entries := lay(t, files)
	if err := os.Chmod(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, _ := check(t, dir, entries, Options{Quick: true})
	if d := cmp.Diff([]string{"a mode", "d mode"}, found); d != "" {
		t.Error(d)
	}
}

func TestPain08_LinkIsNoFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs the right to make symlinks")
	}
	dir, entries := lay(t, files)
	real := filepath.Join(t.TempDir(), "real")
	if err := os.Rename(filepath.Join(dir, "d"), real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	found, _ := check(t, dir, entries, Options{})
	if d := cmp.Diff([]string{"d kind", "d/b unreadable", "d/c unreadable"}, found); d != "" {
		t.Error(d)
	}
}

func TestCancelledIsNoPass(t *testing.T) {
	dir, entries := lay(t, files)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, dir, next(entries), Options{}, func(Finding) {}); err == nil {
		t.Error("a cancelled verification passed")
	}
}

// The real coreutils must accept the list, including names that need escapes.
func TestSumsPassesCoreutils(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no sha256sum on this system")
	}
	dir, entries := lay(t, map[string]string{"a b": "1", `back\slash`: "2", "d/ü": "3", "-n": "4"})
	list := filepath.Join(t.TempDir(), "sums")
	var b bytes.Buffer
	if err := Sums(&b, next(entries)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "--strict", "-c", list)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), ": OK") != 4 {
		t.Fatalf("%v\n%s\n%s", err, out, b.String())
	}
	if err := os.WriteFile(filepath.Join(dir, "d/ü"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("sha256sum", "-c", list)
	cmd.Dir = dir
	if err := cmd.Run(); err == nil {
		t.Error("sha256sum passed a changed file")
	}
}

func BenchmarkFull(b *testing.B) {
	dir, entries := lay(b, map[string]string{"one": strings.Repeat("0123456789abcdef", 8<<20), "two": strings.Repeat("fedcba9876543210", 8<<20)})
	b.SetBytes(256 << 20)
	for b.Loop() {
		if _, err := Run(b.Context(), dir, next(entries), Options{}, func(f Finding) { b.Fatal(f) }); err != nil {
			b.Fatal(err)
		}
	}
}
