package apply

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/commit"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// keepsModes: permission bits are part of a release on this system.
const keepsModes = runtime.GOOS != "windows"

// pending is nil if the target has a commit under way.
func pending(root *durable.Root) error {
	return commit.New(root, commit.Options{Dir: stateDir, Stage: stageDir}).Pending()
}

// tree is a folder's content. A path that ends in a slash is a folder.
type tree map[string]string

// blob returns n bytes that are unique to the seed.
func blob(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

var epoch = time.Date(2024, 5, 6, 7, 8, 9, 123456700, time.UTC)

// lay makes dir hold exactly the tree. Each file's time depends on its content, so that equal trees are equal.
func lay(t testing.TB, dir string, tr tree) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	grow(t, dir, tr)
}

func grow(t testing.TB, dir string, tr tree) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for p, text := range tr {
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
		when := epoch.Add(time.Duration(len(text)) * time.Second)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
}

// seen returns the content of dir without nightferry's own folder.
func seen(t testing.TB, dir string) tree {
	t.Helper()
	tr := tree{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		rel = filepath.ToSlash(rel)
		switch {
		case err != nil || rel == ".":
			return err
		case rel == stateDir:
			return fs.SkipDir
		case d.IsDir():
			tr[rel+"/"] = ""
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			tr[rel] = "-> " + to
			return err
		default:
			b, err := os.ReadFile(p)
			tr[rel] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// sameTree fails the test when two folders differ in names, bytes, times or modes.
func sameTree(t testing.TB, want, have string) {
	t.Helper()
	if d := cmp.Diff(brief(seen(t, want)), brief(seen(t, have))); d != "" {
		t.Fatalf("the folder is not the release (-want +have):\n%s", d)
	}
	for p := range seen(t, want) {
		if strings.HasSuffix(p, "/") {
			continue
		}
		a, err := os.Stat(filepath.Join(want, p))
		b, berr := os.Stat(filepath.Join(have, p))
		if err != nil || berr != nil {
			t.Fatal(err, berr)
		}
		if a.ModTime().Sub(b.ModTime()).Abs() >= 100 || keepsModes && a.Mode() != b.Mode() {
			t.Errorf("%s: time or mode is %v %v, want %v %v", p, b.ModTime(), b.Mode(), a.ModTime(), a.Mode())
		}
	}
}

// try ends the test on an error.
func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// brief shortens content for messages.
func brief(tr tree) tree {
	out := tree{}
	for p, text := range tr {
		if len(text) > 40 {
			text = fmt.Sprintf("%d bytes %x", len(text), bytes.Clone([]byte(text[:8]))) + fmt.Sprint(hashOf(text))
		}
		out[p] = text
	}
	return out
}

func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// told is the result of a pull, with the last event of each path and the reported retries.
type told struct {
	*Result
	files map[string]Event
	retry []error
}

func options(ev func(Event)) Options {
	return Options{Channel: channel, Now: time.Now, OnEvent: ev}
}

func (p *press) pull(target string, edit func(*Options)) (told, error) {
	p.t.Helper()
	out := told{files: map[string]Event{}}
	o := options(func(e Event) {
		switch e.Kind {
		case FileEvent:
			out.files[e.Path] = e
		case RetryEvent:
			out.retry = append(out.retry, e.Cause)
		}
	})
	o.Key = p.seal
	if edit != nil {
		edit(&o)
	}
	var err error
	out.Result, err = Run(p.t.Context(), p.store, target, o)
	return out, err
}

// must runs a pull that must end verified.
func (p *press) must(target string, edit func(*Options)) told {
	p.t.Helper()
	r, err := p.pull(target, edit)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.Verdict != Verified {
		for _, e := range r.files {
			if e.Cause != nil {
				p.t.Logf("%s %s: %v", e.Outcome, e.Path, e.Cause)
			}
		}
		p.t.Fatalf("verdict %q", r.Verdict)
	}
	return r
}

func (r told) outcomes() map[string]runs.Outcome {
	m := map[string]runs.Outcome{}
	for p, e := range r.files {
		m[p] = e.Outcome
	}
	return m
}

func wantOutcomes(t testing.TB, r told, want map[string]runs.Outcome) {
	t.Helper()
	if d := cmp.Diff(want, r.outcomes()); d != "" {
		t.Errorf("outcomes (-want +have):\n%s", d)
	}
}

var small = tree{
	"a.txt":            "alpha",
	"b/c.txt":          "gamma",
	"b/d/e.bin":        blob(1, 100_000),
	"b/d/big.img":      blob(2, 3_000_000),
	"b-file":           "sorts after the folder b",
	"empty":            "",
	"hollow/":          "",
	"hollow/deep/":     "",
	"same1":            "twice the same content",
	"z/same2":          "twice the same content",
	"z/zeros.img":      strings.Repeat("\x00", 700_000),
	"z/half-zeros.img": blob(3, 600_000) + strings.Repeat("\x00", 2_000_000) + blob(4, 5000),
}

func with(tr tree, change func(tree)) tree {
	out := tree{}
	for k, v := range tr {
		out[k] = v
	}
	change(out)
	return out
}

// dirs returns a source, a target and a press.
func dirs(t testing.TB, tr tree) (p *press, src, dst string) {
	t.Helper()
	p = newPress(t, nil)
	base := t.TempDir()
	src, dst = filepath.Join(base, "src"), filepath.Join(base, "dst")
	lay(t, src, tr)
	return p, src, dst
}

func TestFirstPullThenNoOpThenUpdate(t *testing.T) {
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{7}, 32)} {
		t.Run(fmt.Sprintf("encrypted=%v", key != nil), func(t *testing.T) {
			p := newPress(t, key)
			base := t.TempDir()
			src, dst := filepath.Join(base, "src"), filepath.Join(base, "dst")
			lay(t, src, small)
			rel := p.publish(src)
			r := p.must(dst, nil)
			sameTree(t, src, dst)
			if r.Tree != rel.Tree || r.Totals != rel.Totals || r.Number != 1 {
				t.Errorf("result %+v does not match the release", r.Result)
			}
			if r.Added == 0 || r.Changed+r.Deleted+r.Extra+r.Failed != 0 {
				t.Errorf("counts %+v", r.Result)
			}
			r = p.must(dst, nil)
			if !r.NoOp || len(r.files) != 0 || r.BytesWire != 0 {
				t.Errorf("second pull is no no-op: %+v", r.Result)
			}
			left, err := os.ReadDir(filepath.Join(dst, stageDir))
			if err != nil || len(left) != 0 {
				t.Errorf("the stage holds %d names, %v", len(left), err)
			}

			next := with(small, func(tr tree) {
				tr["a.txt"] = "alpha, edited"
				tr["new/file"] = "new"
				delete(tr, "b/c.txt")
				tr["b/d/big.img"] = blob(2, 3_000_000)[:1_000_000] + "inserted" + blob(2, 3_000_000)[1_000_000:]
			})
			lay(t, src, next)
			p.publish(src)
			r = p.must(dst, nil)
			sameTree(t, src, dst)
			wantOutcomes(t, r, map[string]runs.Outcome{"a.txt": runs.FileChanged, "new": runs.FileAdded, "new/file": runs.FileAdded, "b/c.txt": runs.FileDeleted, "b/d/big.img": runs.FileChanged})
			if r.BytesFetched > 600_000 {
				t.Errorf("an insertion into 3 MB fetched %d bytes", r.BytesFetched)
			}
		})
	}
}

func TestMovesSwapsAndCase(t *testing.T) {
	p, src, dst := dirs(t, tree{"a": blob(1, 50_000), "b": blob(2, 50_000), "c/x": blob(3, 50_000), "Case.txt": blob(4, 50_000), "Dir/f": blob(5, 50_000), "e1": "", "gone/sub/f": blob(6, 9000)})
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, tree{"b": blob(1, 50_000), "a": blob(2, 50_000), "d/y": blob(3, 50_000), "case.txt": blob(4, 50_000), "dir/f": blob(5, 50_000), "e2": "", "c": blob(6, 9000)})
	p.publish(src)
	r := p.must(dst, nil)
	sameTree(t, src, dst)
	if r.BytesFetched != 0 || r.Moved != 6 || r.BytesWritten != 0 {
		t.Errorf("moves fetched %d bytes, wrote %d, moved %d: %v", r.BytesFetched, r.BytesWritten, r.Moved, r.outcomes())
	}
	if !p.must(dst, nil).NoOp {
		t.Error("not a no-op after the moves")
	}
}

func TestFileBecomesFolderAndBack(t *testing.T) {
	one := tree{"x": blob(1, 1000), "y/a": "a", "y/b/c": "c", "q": "stays"}
	two := tree{"x/in": "now a folder", "y": blob(1, 1000), "q": "stays"}
	p, src, dst := dirs(t, one)
	p.publish(src)
	p.must(dst, nil)
	for range 2 {
		lay(t, src, two)
		p.publish(src)
		p.must(dst, nil)
		sameTree(t, src, dst)
		one, two = two, one
	}
}

func TestAdoptionFetchesNothing(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	lay(t, dst, with(small, func(tr tree) { tr["site.log"] = "the site's own" }))
	r := p.must(dst, nil)
	if r.BytesFetched != 0 || r.BytesWritten != 0 {
		t.Errorf("adoption fetched %d, wrote %d", r.BytesFetched, r.BytesWritten)
	}
	wantOutcomes(t, r, map[string]runs.Outcome{"site.log": runs.FileExtra})
	if r = p.must(dst, nil); !r.NoOp {
		t.Error("not a no-op after adoption")
	}
}

func TestDriftIsRepairedByFetchingOnlyWhatItNeeds(t *testing.T) {
	p, src, dst := dirs(t, with(small, func(tr tree) { tr["b/d/big.img"] = blob(2, 20_000_000) }))
	p.publish(src)
	p.must(dst, nil)
	big := filepath.Join(dst, "b/d/big.img")
	// Same size and time: only the change time and --rehash detect it.
	f, err := os.OpenFile(big, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := f.Stat()
	if _, err := f.WriteAt([]byte("drift"), 9_500_000); err != nil {
		t.Fatal(err)
	}
	try(t, f.Close())
	try(t, os.Chtimes(big, info.ModTime(), info.ModTime()))
	try(t, os.Remove(filepath.Join(dst, "a.txt")))
	try(t, os.Truncate(filepath.Join(dst, "b/d/e.bin"), 10))
	r := p.must(dst, func(o *Options) { o.Rehash = keepsModes == false })
	sameTree(t, src, dst)
	wantOutcomes(t, r, map[string]runs.Outcome{"b/d/big.img": runs.FileRepaired, "a.txt": runs.FileRepaired, "b/d/e.bin": runs.FileRepaired})
	if e := r.files["b/d/big.img"]; e.Fetched == 0 || e.Fetched > 512<<10 {
		t.Errorf("one edit fetched %d bytes of the image", e.Fetched)
	}
	if r.BytesWire > 4<<20 {
		t.Errorf("repair moved %d bytes", r.BytesWire)
	}
}

func TestExtrasStayUnlessPruned(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"mine": "m", "b/own/x": "x", "keep/me": "k"})
	r := p.must(dst, nil)
	wantOutcomes(t, r, map[string]runs.Outcome{"mine": runs.FileExtra, "b/own": runs.FileExtra, "b/own/x": runs.FileExtra, "keep": runs.FileExtra, "keep/me": runs.FileExtra})
	r = p.must(dst, func(o *Options) {
		o.Prune = true
		o.Ignore = []string{"/keep/"}
	})
	wantOutcomes(t, r, map[string]runs.Outcome{"mine": runs.FileDeleted, "b/own": runs.FileDeleted, "b/own/x": runs.FileDeleted})
	try(t, os.RemoveAll(filepath.Join(dst, "keep")))
	sameTree(t, src, dst)
}

func TestEditedFileThatTheReleaseDropsIsKept(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	try(t, os.WriteFile(filepath.Join(dst, "a.txt"), []byte("the site's own words"), 0o644))
	lay(t, src, with(small, func(tr tree) { delete(tr, "a.txt"); delete(tr, "b-file") }))
	p.publish(src)
	r := p.must(dst, nil)
	wantOutcomes(t, r, map[string]runs.Outcome{"a.txt": runs.FileExtra, "b-file": runs.FileDeleted})
}

// A folder that the release drops, but that still holds an entry, is reported with its real outcome, also by a dry
// run.
func TestFolderThatSomethingStaysIn(t *testing.T) {
	old := tree{"k": "k", "edited/x": "x", "mine/deep/x": "x", "held/deep/x": "x", "gone/x": "x"}
	p, src, dst := dirs(t, old)
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"mine/deep/own": "the site's own", "edited/x": "the site's own words"})
	lay(t, src, tree{"k": "k"})
	p.publish(src)
	want := map[string]runs.Outcome{
		"edited": runs.FileExtra, "edited/x": runs.FileExtra,
		"mine": runs.FileExtra, "mine/deep": runs.FileExtra, "mine/deep/own": runs.FileExtra, "mine/deep/x": runs.FileDeleted,
		"held": runs.FileDeleted, "held/deep": runs.FileDeleted, "held/deep/x": runs.FileDeleted,
		"gone": runs.FileDeleted, "gone/x": runs.FileDeleted,
	}
	r, err := p.pull(dst, func(o *Options) { o.DryRun = true })
	if err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, r, want)

	want["held"], want["held/deep"], want["held/deep/x"] = runs.FileLocked, runs.FileLocked, runs.FileLocked
	for _, in := range []durable.OpKind{durable.Probe, durable.Remove} { // before the commit, and during it
		dst := filepath.Join(filepath.Dir(dst), fmt.Sprint("locked", in))
		p.must(dst, func(o *Options) { o.Release = 1 })
		grow(t, dst, tree{"mine/deep/own": "the site's own", "edited/x": "the site's own words"})
		other := map[string]runs.Outcome{}
		r, err = p.pull(dst, func(o *Options) {
			o.Partial, o.Observer = true, locked(in, "held/deep/x")
			o.Settle = func(events []Event) error {
				for _, e := range events {
					other[e.Path] = e.Outcome
				}
				return nil
			}
		})
		if err != nil || r.Verdict != Incomplete {
			t.Fatal(r.Verdict, err)
		}
		wantOutcomes(t, r, want)
		settled := map[string]runs.Outcome{}
		if in == durable.Remove {
			settled = map[string]runs.Outcome{"held": runs.FileLocked, "held/deep": runs.FileLocked, "held/deep/x": runs.FileLocked}
		}
		if d := cmp.Diff(settled, other); d != "" {
			t.Errorf("settled (-want +have):\n%s", d)
		}
		p.must(dst, nil)
		if d := cmp.Diff(tree{"k": "k", "edited/": "", "edited/x": "the site's own words", "mine/": "", "mine/deep/": "", "mine/deep/own": "the site's own"}, seen(t, dst)); d != "" {
			t.Errorf("the folder (-want +have):\n%s", d)
		}
	}
}

func TestModeAndTimeOnly(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	when := epoch.Add(-time.Hour)
	try(t, os.Chtimes(filepath.Join(src, "a.txt"), when, when))
	want := map[string]runs.Outcome{"a.txt": runs.FileChanged}
	if keepsModes {
		try(t, os.Chmod(filepath.Join(src, "b"), 0o700))
		try(t, os.Chmod(filepath.Join(src, "b-file"), 0o600))
		want["b"], want["b-file"] = runs.FileChanged, runs.FileChanged
	}
	p.publish(src)
	r := p.must(dst, nil)
	sameTree(t, src, dst)
	wantOutcomes(t, r, want)
	if r.BytesWritten != 0 {
		t.Errorf("wrote %d bytes", r.BytesWritten)
	}
}

func TestSeedFolders(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	seeds := filepath.Join(filepath.Dir(dst), "seeds")
	lay(t, seeds, with(small, func(tr tree) { tr["elsewhere"] = tr["b/d/e.bin"]; delete(tr, "b/d/e.bin"); delete(tr, "a.txt") }))
	r := p.must(dst, func(o *Options) { o.Seeds = []string{seeds} })
	sameTree(t, src, dst)
	if r.BytesFetched != 5 {
		t.Errorf("fetched %d bytes, want only a.txt", r.BytesFetched)
	}
}

// A missing folder of seeds, such as an unplugged disk, is reported and costs only a fetch.
func TestSeedFolderThatIsNotThere(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	r := p.must(dst, func(o *Options) { o.Seeds = []string{filepath.Join(filepath.Dir(dst), "unplugged"), src} })
	sameTree(t, src, dst)
	if len(r.retry) != 1 || !strings.Contains(r.retry[0].Error(), "unplugged") || r.BytesFetched != 0 {
		t.Errorf("told %v, fetched %d bytes of what the other folder has", r.retry, r.BytesFetched)
	}
}

func TestTwoAtOnce(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) {
		o.OnEvent = func(e Event) {
			if e.Kind == PhaseEvent && e.Phase == PhaseStage {
				_, err := Run(t.Context(), p.store, dst, options(nil))
				if err == nil || !strings.Contains(err.Error(), "in use by another process") {
					t.Errorf("second pull: %v", err)
				}
			}
		}
	})
	if err != nil || r.Verdict != Verified {
		t.Fatal(r.Verdict, err)
	}
}
