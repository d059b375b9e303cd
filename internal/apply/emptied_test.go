package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/durable"
)

// A target that held a release and has no record of it, such as a mount point without its volume, is not changed by
// any run without Adopt.
func TestEmptiedTarget(t *testing.T) {
	p, src, _ := dirs(t, small)
	p.publish(src)
	held := func(o *Options) { o.Held = &Held{} }
	var gone *EmptiedError
	for name, empty := range map[string]func(dir string){
		"an empty mount point":    func(dir string) { try(t, os.MkdirAll(dir, 0o755)) },
		"no folder":               func(string) {},
		"a note in a mount point": func(dir string) { lay(t, dir, tree{"NOT MOUNTED": "x"}) },
		"a volume's own folders":  func(dir string) { lay(t, dir, tree{"lost+found/x": "x"}) },
		"a folder of ours that is empty": func(dir string) {
			try(t, os.MkdirAll(filepath.Join(dir, stateDir, "stage"), 0o755))
		},
		"what a run left in the mount point that failed before its volume was mounted": func(dir string) {
			if _, err := p.pull(dir, func(o *Options) { o.Gate = func(context.Context) error { return errKilled } }); err == nil {
				t.Fatal("did not fail")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "mount")
			empty(dir)
			before, err := filepath.Glob(filepath.Join(dir, "*"))
			try(t, err)
			_, statErr := os.Lstat(filepath.Join(dir, stateDir))
			for _, dry := range []bool{true, false} {
				if _, err := p.pull(dir, func(o *Options) { held(o); o.DryRun = dry }); !errors.As(err, &gone) {
					t.Errorf("dry run %t: %v", dry, err)
				}
			}
			o := options(nil)
			held(&o)
			if err := Recover(t.Context(), dir, o); !errors.As(err, &gone) && (err != nil || len(before) == 0) {
				t.Errorf("recover: %v", err)
			}
			if _, err := Foresee(t.Context(), p.store, dir, o, 0); !errors.As(err, &gone) && !errors.Is(err, errUnrecorded) {
				t.Errorf("foresee: %v", err)
			}
			if _, err := Inspect(dir, Options{Channel: channel, Now: time.Now}); !errors.Is(err, ErrNothingApplied) {
				t.Errorf("inspect: %v", err)
			}
			after, err := filepath.Glob(filepath.Join(dir, "*"))
			try(t, err)
			if _, err := os.Lstat(filepath.Join(dir, stateDir)); len(after) != len(before) || (err == nil) != (statErr == nil) {
				t.Errorf("the folder was written to: %q, was %q", after, before)
			}
			// An order to adopt that was interrupted leaves the folder as empty as before; it is given until it is carried out.
			if _, err := p.pull(dir, func(o *Options) {
				held(o)
				o.Adopt = true
				o.Observer = refuser(func(op durable.Op) error {
					if op.Name == journalName || op.To == journalName {
						return errKilled
					}
					return nil
				})
			}); err == nil {
				t.Fatal("was not interrupted")
			}
			if _, err := p.pull(dir, held); !errors.As(err, &gone) {
				t.Errorf("after an interrupted adoption: %v", err)
			}
			p.must(dir, func(o *Options) { held(o); o.Adopt, o.Prune = true, true })
			p.must(dir, held)
			sameTree(t, src, dir)
		})
	}
}

// A folder that another machine filled is filled anew, as a new server's: also if it has files of the site's own.
func TestReplacedServerIsFilled(t *testing.T) {
	p, src, _ := dirs(t, small)
	p.publish(src)
	for name, have := range map[string]tree{"an empty volume": {}, "with files of the site's own": {"own": "x"}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "volume")
			lay(t, dir, have)
			replaced := func(o *Options) { o.Held = &Held{Replaced: true} }
			o := options(nil)
			replaced(&o)
			if f, err := Foresee(t.Context(), p.store, dir, o, 0); err != nil || len(f.Packs) == 0 {
				t.Errorf("%v, %v", f, err)
			}
			r := p.must(dir, replaced)
			if r.Verdict != Verified || r.Extra != int64(len(have)) {
				t.Errorf("%s, %d extra", r.Verdict, r.Extra)
			}
		})
	}
}
