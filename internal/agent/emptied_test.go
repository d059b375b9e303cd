package agent

import (
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// A target that held a release and holds nothing of it any more, as the mount point
// of an absent volume, is left empty and reported; the Core's order to adopt it
// fills it, and ends the problem.
func TestTargetThatLostItsRelease(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	target := filepath.Join(root, "x")
	w.start(w.enrolled(root), nil)
	w.publish(tree(5, "one"), target)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.mu.Lock()
	f := w.finished(0)
	w.mu.Unlock()
	if f.Verdict != "verified" {
		t.Fatalf("%s: %s", f.Verdict, f.Error)
	}
	w.await("its files to be free", func() bool { return os.RemoveAll(target) == nil }) // Windows removes no open file, and the agent closes them after its report
	w.try(os.Mkdir(target, 0o755))
	w.publish(tree(5, "two"), target)
	w.await("an end in that state", func() bool { f := w.finished(1); return f != nil && f.Verdict == runs.Emptied })
	if left, err := os.ReadDir(target); err != nil || len(left) > 0 {
		t.Errorf("written to the empty folder: %v, %v", left, err)
	}
	w.want(func(s *wire.State) { s.Desired[0].Start++; s.Desired[0].Adopt = true })
	w.await("adoption", func() bool {
		for n := 2; ; n++ {
			if f := w.finished(n); f == nil || f.Verdict == runs.Verified {
				return f != nil
			}
		}
	})
	if _, err := os.Stat(filepath.Join(target, ".nightferry")); err != nil {
		t.Error(err)
	}
}
