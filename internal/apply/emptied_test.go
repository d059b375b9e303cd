package apply

import (
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
	held := func(o *Options) { o.Held = true }
	var gone *EmptiedError
	for name, empty := range map[string]func(dir string){
		"an empty mount point":     func(dir string) { try(t, os.MkdirAll(dir, 0o755)) },
		"no folder":                func(string) {},
		"files without the record": func(dir string) { lay(t, dir, small) },
		"another's files":          func(dir string) { lay(t, dir, tree{"other": "x"}) },
		"a folder of ours that is empty": func(dir string) {
			try(t, os.MkdirAll(filepath.Join(dir, stateDir, "stage"), 0o755))
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
			if err := Recover(t.Context(), dir, o); !errors.As(err, &gone) {
				t.Errorf("recover: %v", err)
			}
			if _, err := Foresee(t.Context(), p.store, dir, o, 0); !errors.As(err, &gone) {
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
			// The order to adopt stays in force until it is carried out.
			if _, err := p.pull(dir, func(o *Options) {
				held(o)
				o.Adopt = true
				o.Observer = refuser(func(op durable.Op) error {
					if op.Name == journalName || op.To == journalName {
						return errKilled
					}
					return nil
				})
			}); err == nil && name != "files without the record" {
				t.Fatal("was not interrupted")
			}
			p.must(dir, func(o *Options) { held(o); o.Prune = true })
			sameTree(t, src, dir)
		})
	}
}
