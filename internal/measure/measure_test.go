package measure_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/measure"
	"nightferry/internal/scan"
)

// source is a folder with the entries that publishing it would produce.
type source struct {
	t       *testing.T
	dir     string
	entries []manifest.Entry
}

func newSource(t *testing.T, files map[string]string) *source {
	t.Helper()
	s := &source{t: t, dir: t.TempDir()}
	for name, text := range files {
		s.write(name, text)
	}
	s.publish()
	return s
}

func (s *source) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *source) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *source) write(name, text string) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
	s.must(os.WriteFile(s.path(name), []byte(text), 0o644))
}

// publish records the folder's content, with another walk than the one under
// test.
func (s *source) publish() {
	s.t.Helper()
	s.entries = nil
	s.must(filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == s.dir {
			return err
		}
		rel, _ := filepath.Rel(s.dir, p)
		e := manifest.Entry{Path: filepath.ToSlash(rel), Kind: manifest.Dir}
		if !d.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			e.Kind, e.Size, e.MTime, e.Digest = manifest.File, st.Size(), st.ModTime().UnixNano(), digest.Of(b)
		}
		s.entries = append(s.entries, e)
		return nil
	}))
	slices.SortFunc(s.entries, func(a, b manifest.Entry) int { return manifest.ComparePaths(a.Path, b.Path) })
}

func (s *source) next() manifest.Next {
	i := 0
	return func() (*manifest.Entry, error) {
		if i == len(s.entries) {
			return nil, nil
		}
		i++
		return &s.entries[i-1], nil
	}
}

func (s *source) measure(o measure.Options) (measure.Result, []string) {
	s.t.Helper()
	var found []string
	res, err := measure.Run(s.t.Context(), s.dir, s.next(), o, func(f measure.Finding) { found = append(found, string(f.Outcome)+" "+f.Path) })
	s.must(err)
	return res, found
}

// keep changes a file and restores its old time.
func (s *source) keep(name string, change func(b []byte) []byte) {
	s.t.Helper()
	st, err := os.Stat(s.path(name))
	s.must(err)
	b, err := os.ReadFile(s.path(name))
	s.must(err)
	s.must(os.WriteFile(s.path(name), change(b), 0o644))
	s.must(os.Chtimes(s.path(name), st.ModTime(), st.ModTime()))
}

func content() map[string]string {
	return map[string]string{
		"a.sys": "alpha", "empty": "", "a/b.dll": strings.Repeat("b", 300_000), "a-b": "sorts between", "net/e1000.inf": "driver",
		"net/deep/er/x": "x", "größe.txt": "names are bytes", "with space": "y",
	}
}

// Each kind of change gets its own outcome, by path, and all other paths
// count as the same.
func TestOutcomes(t *testing.T) {
	s := newSource(t, content())
	whole, found := s.measure(measure.Options{})
	if len(found) > 0 || whole.Unchanged != int64(len(s.entries)) || whole.Differs+whole.Failed > 0 || whole.MovedOn() > 0 {
		t.Fatalf("nothing has changed: %v %+v", found, whole)
	}
	s.keep("a/b.dll", func(b []byte) []byte { b[200_000] ^= 1; return b })
	s.keep("a.sys", func([]byte) []byte { return []byte("longer than it was") }) // another size, the same time
	s.write("a-b", "sorts elsewhere")
	s.must(os.Chtimes(s.path("with space"), time.Now(), time.Now().Add(time.Hour))) // the same bytes
	s.write("net/new.inf", "new")
	s.must(os.RemoveAll(s.path("net/deep")))
	s.must(os.Remove(s.path("empty")))
	s.must(os.Mkdir(s.path("empty"), 0o755))
	res, found := s.measure(measure.Options{})
	want := []string{"changed a.sys", "changed a-b", "differs a/b.dll", "changed empty", "removed net/deep", "removed net/deep/er", "removed net/deep/er/x", "added net/new.inf", "changed with space"}
	if slices.Sort(found); !slices.Equal(found, slices.Sorted(slices.Values(want))) {
		t.Errorf("found %q,\nwant %q", found, want)
	}
	if res.Changed != 4 || res.Added != 1 || res.Deleted != 3 || res.Differs != 1 || res.Failed != 0 || res.Unchanged != int64(len(s.entries))-8 {
		t.Errorf("%+v", res)
	}
	// Sites must hold the published content, whatever happens to the source
	// later.
	if res.Tree != whole.Tree || res.WantFiles != whole.WantFiles || res.WantBytes != whole.WantBytes {
		t.Errorf("expected of sites: %+v, before %+v", res, whole)
	}
}

// A release with wrong digests, or with a file that never existed, is never
// taken for the same.
func TestReleaseThatLies(t *testing.T) {
	s := newSource(t, content())
	true1, _ := s.measure(measure.Options{})
	for i := range s.entries {
		if e := &s.entries[i]; e.Path == "net/e1000.inf" {
			e.Digest[31] ^= 1
		}
	}
	res, found := s.measure(measure.Options{})
	if !slices.Equal(found, []string{"differs net/e1000.inf"}) || res.Differs != 1 || res.Tree == true1.Tree {
		t.Errorf("%q %+v", found, res)
	}
}

// The tree digest equals the one computed by the recipe in the format's page.
func TestTreeIsTheRecipes(t *testing.T) {
	page, err := os.ReadFile("../../docs/format/release.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, ok := strings.Cut(string(page), "```sh\n")
	script, _, ok2 := strings.Cut(script, "```")
	if !ok || !ok2 {
		t.Fatal("docs/format/release.md has no recipe")
	}
	s := newSource(t, content())
	res, _ := s.measure(measure.Options{Workers: 3})
	var tree manifest.TreeHash
	for i := range s.entries {
		tree.Add(s.entries[i].Kind, s.entries[i].Path, s.entries[i].Digest)
	}
	if res.Tree != tree.Sum() {
		t.Errorf("measured %s, a manifest has %s", res.Tree, tree.Sum())
	}
	if _, err := exec.LookPath("sha256sum"); err != nil {
		return // another system: manifest's own test covers the recipe
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = s.dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Fields(out)[0]); got != res.Tree.String() {
		t.Errorf("coreutils say %s, measured %s", got, res.Tree)
	}
}

// Paths excluded by the channel's rules are not checked.
func TestRulesOfTheChannel(t *testing.T) {
	s := newSource(t, map[string]string{"keep/a": "a", "b": "b"})
	s.write("c.tmp", "left out")
	s.write("cache/x", "left out")
	s.write(".nightferry/state", "ours")
	p, err := scan.ParsePatterns(nil, []string{"*.tmp", "cache/"})
	if err != nil {
		t.Fatal(err)
	}
	linked := false // not every Windows account may create one
	if os.Symlink("a", s.path("keep/link")) == nil {
		st, err := os.Lstat(s.path("keep/link"))
		linked = err == nil && st.Mode()&fs.ModeSymlink != 0
	}
	for _, skip := range []bool{true, false} {
		var want []string
		if linked && !skip {
			want = []string{"added keep/link"}
		}
		res, found := s.measure(measure.Options{Patterns: p, SkipLinks: skip})
		if !slices.Equal(found, want) || res.Unchanged != 3 {
			t.Errorf("links skipped %v: %q %+v", skip, found, res)
		}
	}
}

// A missing source is an error, not an empty source.
func TestNoSource(t *testing.T) {
	s := newSource(t, nil)
	if _, err := measure.Run(t.Context(), s.path("nowhere"), s.next(), measure.Options{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A file that is written while it is read has moved on; it is not damaged.
func TestChangedWhileRead(t *testing.T) {
	s := newSource(t, map[string]string{"big": strings.Repeat("z", 1<<20)})
	began, written := make(chan bool, 1), make(chan bool)
	entries := s.next()
	go func() {
		defer close(written)
		<-began
		s.write("big", strings.Repeat("y", 1<<20))
		s.must(os.Chtimes(s.path("big"), time.Now(), time.Now().Add(time.Minute)))
	}()
	var found []string
	_, err := measure.Run(t.Context(), s.dir, func() (*manifest.Entry, error) {
		e, err := entries()
		if e == nil && len(began) == 0 {
			began <- true // the file is being read, at 512 KiB a second
		}
		return e, err
	}, measure.Options{Rate: 512 << 10}, func(f measure.Finding) { found = append(found, string(f.Outcome)+" "+f.Path) })
	<-written
	if err != nil || !slices.Equal(found, []string{"changed big"}) {
		t.Errorf("%q %v", found, err)
	}
}

// The rate is kept, and a stopped measurement ends and proves nothing.
func TestRateAndStop(t *testing.T) {
	const size, rate = 3 << 20, 1 << 20
	s := newSource(t, map[string]string{"a": strings.Repeat("z", size/2), "b": strings.Repeat("y", size/2)})
	began := time.Now()
	s.measure(measure.Options{Rate: rate, Workers: 2})
	if took := time.Since(began).Seconds(); took < 0.9*(size-128<<10)/rate {
		t.Errorf("%d bytes at %d a second took %.2f s", size, rate, took)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	order := fmt.Errorf("halt")
	calls, next := 0, s.next()
	res, err := measure.Run(ctx, s.dir, func() (*manifest.Entry, error) {
		if calls++; calls == 2 {
			stop(order)
		}
		return next()
	}, measure.Options{Rate: rate}, func(measure.Finding) {})
	if err == nil || !res.Tree.IsZero() {
		t.Errorf("stopped: %v %+v", err, res)
	}
}

// A stopped measurement returns the cause, and reports nothing about the file
// that it was reading. Each round detects a mistake with a probability of one
// half only, so the test runs many rounds.
func TestStoppedBlamesNoFile(t *testing.T) {
	s := newSource(t, map[string]string{"a": "a", "b": string(make([]byte, 4<<20)), "c": "c"})
	why := errors.New("told to stop")
	for i := range 20 {
		at := []int64{1, 3}[i%2] // in the middle of b, and after c
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			_, err := measure.Run(ctx, s.dir, s.next(), measure.Options{Workers: 1, Rate: 256 << 10, OnProgress: func(r measure.Result) {
				if r.Unchanged != at {
					return
				}
				synctest.Wait() // b is being read, and waits for its rate
				cancel(why)
				synctest.Wait() // the reading has ended
			}}, func(f measure.Finding) { t.Errorf("told: %+v", f) })
			if !errors.Is(err, why) {
				t.Errorf("error %v", err)
			}
		})
	}
}
