package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// Ownership survives a damaged, truncated or missing catalogue: files that a later release drops are still deleted,
// and files that the site added stay.
func TestLostCatalogueKeepsOwnership(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, cat string){
		"a flipped bit in a block":    func(t *testing.T, cat string) { flip(t, cat, 20) },
		"a flipped bit in the header": func(t *testing.T, cat string) { flip(t, cat, -30) },
		"cut short":                   func(t *testing.T, cat string) { try(t, os.Truncate(cat, 100)) },
		"gone":                        func(t *testing.T, cat string) { try(t, os.Remove(cat)) },
	} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, tree{"keep": "0"})
			p.publish(src)
			p.must(dst, nil)
			lay(t, src, tree{"keep": "1", "gone": "2", "d/gone": "3"})
			p.publish(src)
			p.must(dst, nil)
			grow(t, dst, tree{"own": "the site's", "gone.txt": "too"})
			lose(t, filepath.Join(dst, catalogueName))
			lay(t, src, tree{"keep": "1x"})
			p.publish(src)
			r := p.must(dst, nil)
			want := tree{"keep": "1x", "own": "the site's", "gone.txt": "too"}
			if r.files["gone"].Outcome != runs.FileDeleted {
				t.Errorf("told: %v", r.outcomes())
			}
			if d := cmp.Diff(want, seen(t, dst)); d != "" {
				t.Errorf("the folder (-want +have):\n%s", d)
			}
			if !p.must(dst, nil).NoOp {
				t.Error("not a no-op after")
			}
		})
	}
}

// flip changes one bit of a file. A negative at counts from its end.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	try(t, err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	try(t, os.WriteFile(name, b, 0o644))
}

// If every record of ownership is lost, the folder is not verified while it holds files that may be ours to delete.
// Adopt ends that.
func TestOwnershipLost(t *testing.T) {
	for name, order := range map[string]func(*Options){
		"adopt": func(o *Options) { o.Adopt = true },
		"prune": func(o *Options) { o.Prune = true },
	} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, tree{"keep": "1", "gone": "2"})
			p.publish(src)
			p.must(dst, nil)
			for _, f := range []string{catalogueName, beforeName, checksName} {
				if err := os.Remove(filepath.Join(dst, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			lay(t, src, tree{"keep": "1x"})
			p.publish(src)
			held := func(o *Options) { o.Held = &Held{} }
			for range 3 { // any number of pulls
				r, err := p.pull(dst, held)
				if err != nil || r.Verdict != Incomplete || !r.Unowned {
					t.Fatalf("%v, %v, unowned %t", err, r.Verdict, r.Unowned)
				}
			}
			p.must(dst, func(o *Options) { held(o); order(o) })
			p.must(dst, held)
			_, err := os.Lstat(filepath.Join(dst, "gone"))
			if (err == nil) != (name == "adopt") {
				t.Errorf("the file that was dropped: %v", err)
			}
		})
	}
	t.Run("nothing but the release is there", func(t *testing.T) {
		p, src, dst := dirs(t, tree{"keep": "1"})
		p.publish(src)
		p.must(dst, nil)
		for _, f := range []string{catalogueName, checksName} {
			try(t, os.Remove(filepath.Join(dst, f)))
		}
		p.must(dst, func(o *Options) { o.Held = &Held{} })
	})
}

// Files that an interrupted commit had moved out of the way survive the loss of its journal.
func TestLostJournalKeepsWhatWasMoved(t *testing.T) {
	p, src, dst := dirs(t, tree{"turn": "ours"})
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, tree{"turn/in": "a folder now"})
	p.publish(src)
	grow(t, dst, tree{"turn": "the site's edit"})
	moved := false
	if _, err := p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if moved {
				return errKilled
			}
			moved = op.Kind == durable.Rename && op.Name == "turn"
			return nil
		})
	}); err == nil {
		t.Fatal("was not interrupted")
	}
	flip(t, filepath.Join(dst, journalName), 20)
	r := p.must(dst, nil)
	sameTree(t, src, dst)
	kept, err := filepath.Glob(filepath.Join(dst, asideDir, "*", "*", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %q, %v: %v", kept, err, r.retry)
	}
	if b, err := os.ReadFile(kept[0]); err != nil || string(b) != "the site's edit" {
		t.Errorf("kept %q, %v", b, err)
	}
}

// A target whose state folder is gone, as after a restore without it, is proven but not verified while it holds more
// than the release. The files of the release that the site held are still ours, on another machine as well.
func TestStateFolderLost(t *testing.T) {
	for name, held := range map[string]func(*Result) *Held{
		"the release held is known": func(r *Result) *Held { return &Held{Applied: Applied{r.Number, r.Release}} },
		"on another machine":        func(r *Result) *Held { return &Held{Applied: Applied{r.Number, r.Release}, Replaced: true} },
		"some release was held":     func(*Result) *Held { return &Held{} },
	} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, tree{"keep": "0", "older": "ours"})
			p.publish(src)
			p.must(dst, nil)
			backup := seen(t, dst)
			lay(t, src, tree{"keep": "1", "gone": "ours"})
			p.publish(src)
			was := p.must(dst, nil)
			grow(t, dst, tree{"own": "the site's", "older": backup["older"]})
			try(t, os.RemoveAll(filepath.Join(dst, stateDir)))
			lay(t, src, tree{"keep": "1x"})
			p.publish(src)
			known := func(o *Options) { o.Held = held(was.Result) }
			want := tree{"keep": "1x", "own": "the site's", "older": "ours"}
			if held(was.Result).Number == 0 {
				want["gone"] = "ours"
			}
			for range 2 {
				r, err := p.pull(dst, known)
				if err != nil || r.Verdict != Incomplete || !r.Unowned {
					t.Fatalf("%v, %v, unowned %t", err, r.Verdict, r.Unowned)
				}
				if d := cmp.Diff(want, seen(t, dst)); d != "" {
					t.Errorf("the folder (-want +have):\n%s", d)
				}
			}
			// A check keeps the loss in mind, and so does the catalogue if the record of checks is lost as well.
			for _, lost := range []func(){func() {}, func() { try(t, os.Remove(filepath.Join(dst, checksName))) }, func() { flip(t, filepath.Join(dst, checksName), 0) }} {
				lost()
				x, err := Inspect(dst, Options{Channel: channel, Now: time.Now})
				try(t, err)
				if !x.Checks.Unowned {
					t.Error("the loss is forgotten")
				}
				x.Checks.ClearSuspects()
				try(t, errors.Join(x.Passed(t.Context()), x.Close()))
			}
			p.must(dst, func(o *Options) { known(o); o.Adopt = true })
		})
	}
}

// Lost checks beside a whole catalogue make every file suspect; the target stays ours.
func TestChecksLostAlone(t *testing.T) {
	p, src, dst := dirs(t, tree{"keep": "1", "gone": "2"})
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"own": "the site's"})
	try(t, os.Remove(filepath.Join(dst, checksName)))
	x, err := Inspect(dst, Options{Channel: channel, Now: time.Now})
	try(t, err)
	if !x.Checks.All || x.Checks.Unowned || x.Checks.Applied == nil {
		t.Errorf("%+v", x.Checks)
	}
	try(t, x.Close())
	lay(t, src, tree{"keep": "1"})
	p.publish(src)
	if r := p.must(dst, nil); r.files["gone"].Outcome != runs.FileDeleted {
		t.Errorf("told: %v", r.outcomes())
	}
}
