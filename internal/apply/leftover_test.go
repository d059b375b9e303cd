package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"nightferry/internal/durable"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestStageIsReadBack(t *testing.T) {
	for name, fits := range map[string]func(n int) bool{
		"a file of one chunk":   func(n int) bool { return n > 10 && n < 1000 },
		"a file of many chunks": func(n int) bool { return n > 40_000 },
	} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, small)
			p.publish(src)
			// The disk returns wrong bytes for one file, once.
			var mu sync.Mutex
			spoiled := 0
			r := p.must(dst, func(o *Options) {
				o.Observer = refuser(func(op durable.Op) error {
					mu.Lock()
					defer mu.Unlock()
					if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) && fits(len(op.Data)) && spoiled < 1 {
						spoiled++
						op.Data[5] ^= 1 // corrupt the buffer itself: the written bytes are wrong although their id was checked
					}
					return nil
				})
			})
			if spoiled != 1 || len(r.retry) == 0 {
				t.Errorf("spoiled %d, retried %v", spoiled, r.retry)
			}
			sameTree(t, src, dst)
		})
	}
}

// A commit moves files out of the way. If they were not removed yet, the next commit does not mistake them for its
// own.
func TestLeftoversOfACommitAreNotMovedIntoPlace(t *testing.T) {
	// The files have the same size and time, so that only their bytes differ.
	old := tree{"0": "moved later", "a": "makes way!!", "gone": "deleted"}
	turned := tree{"0": old["0"], "a/in": "in the folder"}
	over := false
	for name, leave := range map[string]refuser{
		"a delete that a lock forbids": locked(durable.Remove, "gone"),
		"a kill before the sweep": func(op durable.Op) error {
			if over && strings.HasPrefix(op.Name, stageDir) {
				return errKilled
			}
			over = over || op.Kind == durable.Remove && op.Name == journalName
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, old)
			p.publish(src)
			p.must(dst, nil)
			lay(t, src, turned)
			p.publish(src)
			if r, err := p.pull(dst, func(o *Options) { o.Observer = leave }); err == nil && r.Verdict == Verified {
				t.Fatal("nothing was left")
			}
			if left, err := filepath.Glob(filepath.Join(dst, outDir, "*", "*")); err != nil || len(left) != 1 {
				t.Fatalf("left: %q, %v", left, err)
			}
			lay(t, src, tree{"a/in": turned["a/in"], "z": old["0"]})
			p.publish(src)
			p.must(dst, nil)
			sameTree(t, src, dst)
		})
	}
}

// A program runs from a file that was moved out of the way, so the file cannot be deleted. This delays neither this
// commit nor later ones.
func TestLeftoverThatCannotBeDeleted(t *testing.T) {
	for _, denied := range []error{durable.ErrLocked, fs.ErrPermission} {
		p, src, dst := dirs(t, tree{"turn": "a file"})
		p.publish(src)
		p.must(dst, nil)
		held := func(o *Options) {
			o.Observer = refuser(func(op durable.Op) error {
				if op.Kind == durable.Remove && strings.HasPrefix(op.Name, outDir+"/") {
					return denied
				}
				return nil
			})
		}
		lay(t, src, tree{"turn/in": "a folder now"})
		p.publish(src)
		if r := p.must(dst, held); len(r.retry) != 1 || !errors.Is(r.retry[0], denied) {
			t.Errorf("%v: told %v", denied, r.retry)
		}
		if r := p.must(dst, held); !r.NoOp {
			t.Errorf("%v: not a no-op after", denied)
		}
		lay(t, src, tree{"turn/in": "another"})
		p.publish(src)
		p.must(dst, held)
		p.must(dst, nil)
		sameTree(t, src, dst)
		if left, err := os.ReadDir(filepath.Join(dst, stageDir)); err != nil || len(left) != 0 {
			t.Errorf("%v: the stage holds %d names, %v", denied, len(left), err)
		}
	}
}

// A new file cannot be put in place, because a program locks the old one or removes the staged one. The run must
// not verify the old file although it has the same size and time: only the bytes differ.
func TestOldBytesAreNotTakenForNewOnes(t *testing.T) {
	for name, hinder := range map[string]func(t *testing.T, dst string) refuser{
		"locked in the burst": func(*testing.T, string) refuser { return locked(durable.Rename, "img") },
		"staged file taken away": func(t *testing.T, dst string) refuser {
			return func(op durable.Op) error {
				if op.Kind == durable.Rename && op.To == "img" {
					try(t, os.Remove(filepath.Join(dst, op.Name)))
				}
				return nil
			}
		},
	} {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, moved %v", name, moved), func(t *testing.T) {
				old, new := tree{"img": blob(1, 5000), "k": "k"}, tree{"img": blob(2, 5000), "k": "k"}
				if moved {
					old["a"] = new["img"]
				}
				p, src, dst := dirs(t, old)
				p.publish(src)
				p.must(dst, nil)
				lay(t, src, new)
				p.publish(src)
				r, err := p.pull(dst, func(o *Options) { o.Observer = hinder(t, dst) })
				if err != nil || r.Verdict != Incomplete || r.files["img"].Cause == nil {
					t.Errorf("%v, %v, %v", r.Verdict, err, r.files["img"])
				}
				p.must(dst, nil)
				sameTree(t, src, dst)
			})
		}
	}
}
