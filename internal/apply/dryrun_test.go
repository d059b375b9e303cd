package apply

import (
	"errors"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDryRunChangesNothing(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, with(small, func(tr tree) { tr["a.txt"] = "longer than before"; delete(tr, "b-file") }))
	p.publish(src)
	before := seen(t, dst)
	r, err := p.pull(dst, func(o *Options) { o.DryRun = true })
	if err != nil || r.Verdict != Planned {
		t.Fatal(r.Verdict, err)
	}
	wantOutcomes(t, r, map[string]runs.Outcome{"a.txt": runs.FileChanged, "b-file": runs.FileDeleted})
	if r.BytesNeeded != 18 {
		t.Errorf("needs %d bytes", r.BytesNeeded)
	}
	if d := cmp.Diff(before, seen(t, dst)); d != "" {
		t.Error(d)
	}
}

// A dry run keeps files that an earlier run staged for any release, and an interrupted commit.
func TestDryRunLeavesWhatAnotherRunBegan(t *testing.T) {
	p, src, dst := dirs(t, tree{"img": blob(1, 2_000_000), "other": "o"})
	p.publish(src)
	lay(t, src, tree{"img": blob(2, 2_000_000), "other": "another"})
	p.publish(src)
	dry := func(release trust.ReleaseNumber) error {
		_, err := p.pull(dst, func(o *Options) { o.DryRun, o.Release = true, release })
		return err
	}
	stop := errors.New("stopped")
	_, err := p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.SyncAll {
				return stop
			}
			return nil
		})
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dst, stageDir, "??", "*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("staged: %q, %v", names, err)
	}
	try(t, os.Truncate(names[0], 3)) // useless now, but a dry run removes nothing
	staged := snapshot(t, filepath.Join(dst, stageDir))
	for release := range trust.ReleaseNumber(2) {
		try(t, dry(release+1))
	}
	if d := cmp.Diff(staged, snapshot(t, filepath.Join(dst, stageDir))); d != "" {
		t.Errorf("the stage (-before +after):\n%s", d)
	}

	var dead atomic.Bool
	_, err = p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Rename && op.To == "other" {
				dead.Store(true)
			}
			if dead.Load() {
				return errKilled
			}
			return nil
		})
	})
	if !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	half, state := seen(t, dst), snapshot(t, filepath.Join(dst, stateDir))
	if err := dry(2); !errors.Is(err, errPending) {
		t.Errorf("a dry run in the middle of a commit: %v", err)
	}
	if d := cmp.Diff(brief(half), brief(seen(t, dst))) + cmp.Diff(state, snapshot(t, filepath.Join(dst, stateDir))); d != "" {
		t.Errorf("the folder (-before +after):\n%s", d)
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}
