package apply

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The site has names of its own that the release has in another case. A file
// or folder of the same kind becomes the release's, and nothing else does.
func TestSitesOwnNamesInAnotherCase(t *testing.T) {
	for _, c := range []struct {
		name              string
		own, release, end tree
		want              map[string]Outcome
	}{
		{"a file and a file", tree{"README": "mine"}, tree{"readme": "of the release"},
			tree{"readme": "of the release"}, map[string]Outcome{"readme": Changed}},
		{"a folder and a folder", tree{"Drivers/mine": "mine"}, tree{"drivers/x": "x"},
			tree{"drivers/": "", "drivers/mine": "mine", "drivers/x": "x"},
			map[string]Outcome{"drivers": Changed, "drivers/x": Added, "Drivers/mine": Extra}},
		{"a file and a folder", tree{"Drivers": "mine"}, tree{"drivers/sub/x": "x"},
			tree{"Drivers": "mine"},
			map[string]Outcome{"Drivers": Extra, "drivers": Failed, "drivers/sub": Failed, "drivers/sub/x": Failed}},
		{"a folder and a file", tree{"Drivers/mine": "mine"}, tree{"drivers": "a file"},
			tree{"Drivers/": "", "Drivers/mine": "mine"},
			map[string]Outcome{"Drivers": Extra, "Drivers/mine": Extra, "drivers": Failed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, src, dst := dirs(t, c.release)
			grow(t, src, tree{"k": "k"})
			p.publish(src)
			grow(t, dst, c.own)
			r, err := p.pull(dst, func(o *Options) { o.Locked = Partial })
			if err != nil {
				t.Fatal(err)
			}
			c.end["k"], c.want["k"] = "k", Added
			if d := cmp.Diff(c.end, seen(t, dst)); d != "" {
				t.Errorf("the folder (-want +have):\n%s", d)
			}
			wantOutcomes(t, r, c.want)
			for path, e := range r.files {
				if e.Outcome == Failed && e.Cause == nil {
					t.Errorf("%s: failed without a cause", path)
				}
			}
		})
	}
}

// A file that was to be moved into a folder that cannot be made stays where it
// is.
func TestNothingMovesIntoAFolderThatCannotBeMade(t *testing.T) {
	old := tree{"old": blob(1, 1000)}
	p, src, dst := dirs(t, old)
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"Drivers": "mine"})
	lay(t, src, tree{"drivers/new": old["old"]})
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) { o.Locked = Partial })
	if err != nil || r.Verdict != Incomplete {
		t.Fatal(r.Verdict, err)
	}
	if d := cmp.Diff(with(old, func(tr tree) { tr["Drivers"] = "mine" }), seen(t, dst)); d != "" {
		t.Errorf("the folder (-want +have):\n%s", d)
	}
}
