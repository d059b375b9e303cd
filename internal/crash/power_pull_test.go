package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/testbed"
)

// cutPull is one pull with a power cut at every change.
type cutPull struct {
	f      *fixture
	before *disk
	ops    []durable.Op
}

// TestPain05_PowerLossPull replays the states that a power cut may leave at each change of a pull.
func TestPain05_PowerLossPull(t *testing.T) {
	for seed := range share(6, 1) {
		f := newFixture(t, uint64(300+seed), 60_000)
		first := *f
		first.old, first.oldLook = tree{}, look{}
		for name, c := range map[string]*cutPull{"update": {f: f}, "first": {f: &first}} {
			if err := c.record(t, name == "update"); err != nil {
				t.Fatal(err)
			}
			cuts := cutPoints(f.seed, len(c.ops), 3, map[string]int{"update": 110, "first": 30}[name])
			tally := newPowerTally()
			inParallel(t, len(cuts), func(i int) error {
				rnd := rand.New(rand.NewPCG(f.seed, uint64(i)))
				if err := c.cut(t, cuts[i], rnd, tally); err != nil {
					return fmt.Errorf("seed %d, %s, cut %d: %w", f.seed, name, i, err)
				}
				return nil
			})
			t.Logf("seed %d, %s: %d power cuts after any of %d changes: %v", f.seed, name, len(cuts), len(c.ops), tally)
			if tally.get("journal") < len(cuts)/5 {
				t.Errorf("only %v cuts hit the commit", tally.get("journal"))
			}
		}
	}
}

// cutPoints returns the numbers of changes after which to cut the power. A soak cuts after each change, rounds times;
// other runs cut after short changes, chosen at random.
func cutPoints(seed uint64, changes, rounds, short int) (points []int) {
	if !testbed.Soak() {
		return rand.New(rand.NewPCG(seed, 9)).Perm(changes + 1)[:min(short, changes+1)]
	}
	for range rounds {
		for n := range changes + 1 {
			points = append(points, n)
		}
	}
	return points
}

// record pulls once and records every change.
func (c *cutPull) record(t *testing.T, update bool) error {
	dst, done, err := c.f.fresh("record")
	if err != nil {
		return err
	}
	if update {
		if err := c.f.prepare(t, dst); err != nil {
			return err
		}
	}
	if c.before, err = readDisk(map[string]string{"target": dst}); err != nil {
		return err
	}
	store, err := c.f.open(t, c.f.store)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	tape := &recorder{}
	if _, err := c.f.pull(t, store, dst, 0, tape.watch("target")); err != nil {
		return err
	}
	c.ops = tape.ops
	// If nothing is lost, the model must agree with the real disk.
	whole, err := c.before.after(append(c.ops[:len(c.ops):len(c.ops)], durable.Op{Kind: durable.SyncAll, Name: "target"}), rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		return err
	}
	copied, copiedDone, err := c.f.fresh("replay")
	if err != nil {
		return err
	}
	if err := whole.lay("target", copied); err != nil {
		return err
	}
	if err := same(copied, c.f.now); err != nil {
		return fmt.Errorf("the replay of all changes: %w", err)
	}
	return errors.Join(done(), copiedDone())
}

// cut cuts the power after n changes and checks the recovery.
func (c *cutPull) cut(t *testing.T, n int, rnd *rand.Rand, tally *powerTally) error {
	after, err := c.before.after(c.ops[:n], rnd)
	if err != nil {
		return err
	}
	where := "before all changes"
	if n > 0 {
		where = fmt.Sprintf("after change %d of %d, %v %s %s", n, len(c.ops), c.ops[n-1].Kind, c.ops[n-1].Name, c.ops[n-1].To)
	}
	if err := c.recover(t, after, rnd, 2, tally); err != nil {
		return fmt.Errorf("power cut %s: %w", where, err)
	}
	return nil
}

// recover checks the disk after a power cut and rolls forward. It also cuts the power during the recovery, up to depth
// times.
func (c *cutPull) recover(t *testing.T, after *disk, rnd *rand.Rand, depth int, tally *powerTally) error {
	f := c.f
	dst, done, err := f.fresh("cut")
	if err != nil {
		return err
	}
	if err := after.lay("target", dst); err != nil {
		return err
	}
	committing, err := f.cutState(dst)
	if err != nil {
		return err
	}
	tally.add(map[bool]string{true: "journal", false: "no journal"}[committing])
	tape := &recorder{}
	o := f.pullOrder(dst, nil).apply(tape.watch("target"))
	var said error
	o.OnEvent = func(e apply.Event) { said = errors.Join(said, e.Cause) }
	if err := apply.Recover(t.Context(), dst, o); err != nil {
		return fmt.Errorf("rolling forward: %w", err)
	}
	if committing {
		if err := f.untouched(dst, f.nowLook); err != nil {
			return fmt.Errorf("after rolling forward (which said: %v): %w", said, err)
		}
		if depth > 0 && rnd.IntN(3) == 0 {
			n := rnd.IntN(len(tape.ops) + 1)
			again, err := after.after(tape.ops[:n], rnd)
			if err != nil {
				return err
			}
			tally.add("cut off again while rolling forward")
			if err := c.recover(t, again, rnd, depth-1, tally); err != nil {
				return fmt.Errorf("and again after change %d of rolling forward: %w", n, err)
			}
		}
	}
	store, err := f.open(t, f.store)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	if _, err := f.pull(t, store, dst, 0, nil); err != nil {
		return fmt.Errorf("next pull: %w", err)
	}
	if err := same(dst, f.now); err != nil {
		return fmt.Errorf("after the next pull: %w", err)
	}
	if err := f.settled(t, dst); err != nil {
		return err
	}
	return done()
}

// cutState fails unless the target is in a state that a power cut may leave. It reports whether a commit is in
// progress.
func (f *fixture) cutState(dst string) (committing bool, err error) {
	if exists(filepath.Join(dst, stateDir, "journal")) {
		return true, f.whole(dst)
	}
	return false, f.untouchedOr(dst)
}

// untouchedOr fails unless the target is the old or the new release.
func (f *fixture) untouchedOr(dst string) error {
	if err := f.untouched(dst, f.oldLook); err != nil && f.untouched(dst, f.nowLook) != nil {
		return err
	}
	return nil
}
