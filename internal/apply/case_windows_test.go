package apply

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/durable"
	"nightferry/internal/runs"
	"nightferry/internal/testbed"
)

// The site has names of its own that differ from the release's only in case. A file or folder of the same kind
// becomes the release's; nothing else does.
func TestSitesOwnNamesInAnotherCase(t *testing.T) {
	for _, c := range []struct {
		name              string
		own, release, end tree
		want              map[string]runs.Outcome
	}{
		{"a file and a file", tree{"README": "mine"}, tree{"readme": "of the release"},
			tree{"readme": "of the release"}, map[string]runs.Outcome{"readme": runs.FileChanged}},
		{"a folder and a folder", tree{"Drivers/mine": "mine"}, tree{"drivers/x": "x"},
			tree{"drivers/": "", "drivers/mine": "mine", "drivers/x": "x"},
			map[string]runs.Outcome{"drivers": runs.FileChanged, "drivers/x": runs.FileAdded, "Drivers/mine": runs.FileExtra}},
		{"a file and a folder", tree{"Drivers": "mine"}, tree{"drivers/sub/x": "x"},
			tree{"Drivers": "mine"},
			map[string]runs.Outcome{"Drivers": runs.FileExtra, "drivers": runs.FileFailed, "drivers/sub": runs.FileFailed, "drivers/sub/x": runs.FileFailed}},
		{"a folder and a file", tree{"Drivers/mine": "mine"}, tree{"drivers": "a file"},
			tree{"Drivers/": "", "Drivers/mine": "mine"},
			map[string]runs.Outcome{"Drivers": runs.FileExtra, "Drivers/mine": runs.FileExtra, "drivers": runs.FileFailed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, src, dst := dirs(t, c.release)
			grow(t, src, tree{"k": "k"})
			p.publish(src)
			grow(t, dst, c.own)
			r, err := p.pull(dst, func(o *Options) { o.Partial = true })
			if err != nil {
				t.Fatal(err)
			}
			c.end["k"], c.want["k"] = "k", runs.FileAdded
			if d := cmp.Diff(c.end, seen(t, dst)); d != "" {
				t.Errorf("the folder (-want +have):\n%s", d)
			}
			wantOutcomes(t, r, c.want)
			for path, e := range r.files {
				if e.Outcome == runs.FileFailed && e.Cause == nil {
					t.Errorf("%s: failed without a cause", path)
				}
			}
		})
	}
}

// A file that was to be moved into a folder that cannot be made stays in place.
func TestNothingMovesIntoAFolderThatCannotBeMade(t *testing.T) {
	old := tree{"old": blob(1, 1000)}
	p, src, dst := dirs(t, old)
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"Drivers": "mine"})
	lay(t, src, tree{"drivers/new": old["old"]})
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) { o.Partial = true })
	if err != nil || r.Verdict != Incomplete {
		t.Fatal(r.Verdict, err)
	}
	if d := cmp.Diff(brief(with(old, func(tr tree) { tr["Drivers"] = "mine" })), brief(seen(t, dst))); d != "" {
		t.Errorf("the folder (-want +have):\n%s", d)
	}
}

// recased returns two folders that change their case. Each holds a file of the site's own.
func recased(t *testing.T) (p *press, dst string, old, new tree) {
	p, src, dst := dirs(t, tree{"Aa/x": "x", "Bb/y": "y"})
	p.publish(src)
	lay(t, src, tree{"aA/x": "x", "bB/y": "y"})
	p.publish(src)
	return p, dst, tree{"Aa/": "", "Aa/x": "x", "Aa/mine": "mine", "Bb/": "", "Bb/y": "y", "Bb/mine": "mine too"},
		tree{"aA/": "", "aA/x": "x", "aA/mine": "mine", "bB/": "", "bB/y": "y", "bB/mine": "mine too"}
}

// TestKilledWhileFoldersChangeCase kills a pull before each of its changes in turn. The sweep of the staging folder
// never removes the site's own files.
func TestKilledWhileFoldersChangeCase(t *testing.T) {
	p, dst, old, new := recased(t)
	journaled, stride := 0, 1
	if !testbed.Soak() {
		stride = 5 // Wine takes seconds for each
	}
	for n, total := 0, 0; n == 0 || n <= total; n += stride {
		dst := filepath.Join(filepath.Dir(dst), fmt.Sprint("dst", n))
		p.must(dst, func(o *Options) { o.Release = 1 })
		grow(t, dst, tree{"Aa/mine": old["Aa/mine"], "Bb/mine": old["Bb/mine"]})
		k := &killer{at: n}
		r, err := p.pull(dst, func(o *Options) { o.Observer = k })
		if n == 0 {
			total = k.n
			wantOutcomes(t, r, map[string]runs.Outcome{"aA": runs.FileChanged, "aA/x": runs.FileMoved, "Aa/mine": runs.FileExtra, "bB": runs.FileChanged, "bB/y": runs.FileMoved, "Bb/mine": runs.FileExtra})
		}
		if jerr := pending(rootOf(t, dst)); jerr == nil {
			journaled++
		}
		if n == 0 && err != nil {
			t.Fatal(err)
		}
		p.must(dst, nil)
		if d := cmp.Diff(new, seen(t, dst)); d != "" {
			t.Fatalf("killed at change %d of %d (-want +have):\n%s", n, total, d)
		}
	}
	if journaled < 8/stride { // two folders, two renames each
		t.Errorf("only %d kills hit the commit", journaled)
	}
}

// If a folder cannot take its new name, it gets its old one back, as do folders that were renamed before it. If
// even that fails, the next run finishes the commit.
func TestFolderThatCannotChangeCase(t *testing.T) {
	for name, c := range map[string]struct {
		refused []string
		undone  bool
	}{
		"taken back":           {[]string{"bB"}, true},
		"cannot be taken back": {[]string{"bB", "Bb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, dst, old, new := recased(t)
			p.must(dst, func(o *Options) { o.Release = 1 })
			grow(t, dst, tree{"Aa/mine": old["Aa/mine"], "Bb/mine": old["Bb/mine"]})
			r, err := p.pull(dst, func(o *Options) {
				o.Observer = refuser(func(op durable.Op) error {
					for _, n := range c.refused {
						if op.Kind == durable.Rename && op.To == n {
							return durable.ErrLocked
						}
					}
					return nil
				})
			})
			if (err == nil) != c.undone || r.Verdict != Incomplete {
				t.Errorf("%v, %v", r.Verdict, err)
			}
			if c.undone {
				if d := cmp.Diff(old, seen(t, dst)); d != "" {
					t.Errorf("not as before (-want +have):\n%s", d)
				}
			}
			p.must(dst, nil)
			if d := cmp.Diff(new, seen(t, dst)); d != "" {
				t.Errorf("after the next run (-want +have):\n%s", d)
			}
		})
	}
}

// A folder becomes a file and a folder again, in another case each time.
func TestFolderBecomesFileInAnotherCase(t *testing.T) {
	p, src, dst := dirs(t, tree{"Foo/sub/x": "x", "Foo/y": "y"})
	p.publish(src)
	p.must(dst, nil)
	for _, tr := range []tree{{"foo": "a file now"}, {"FOO/y": "y"}} {
		lay(t, src, tr)
		p.publish(src)
		p.must(dst, nil)
		sameTree(t, src, dst)
	}
}

// Under the waiting policy, nothing is committed if the site's own files have one of the release's names in another
// case.
func TestNameInAnotherCaseHoldsTheWholeReleaseBack(t *testing.T) {
	p, src, dst := dirs(t, tree{"k": "k"})
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"Foo/mine": "mine"})
	lay(t, src, tree{"k": "k, newer", "foo": "a file"})
	p.publish(src)
	r, err := p.pull(dst, nil)
	if err != nil || r.Verdict != Incomplete {
		t.Fatal(r.Verdict, err)
	}
	wantOutcomes(t, r, map[string]runs.Outcome{"Foo": runs.FileExtra, "Foo/mine": runs.FileExtra, "foo": runs.FileFailed})
	if d := cmp.Diff(tree{"k": "k", "Foo/": "", "Foo/mine": "mine"}, seen(t, dst)); d != "" {
		t.Errorf("something became visible (-want +have):\n%s", d)
	}
}
