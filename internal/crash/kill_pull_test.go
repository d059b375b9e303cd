package crash

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/pack"
	"nightferry/internal/testbed"
)

// drawn is one kill.
type drawn struct {
	f     *fixture
	at    point
	again *point // nil, or where to kill the recovery as well
}

// draw returns n points of a phase with total changes, in random order. It repeats a change only after it has used
// every other. It returns none for a phase without changes, which the tally then reports.
func draw(rnd *rand.Rand, phase, n, total int) (points []point) {
	if total == 0 {
		return nil
	}
	for len(points) < n {
		for _, i := range rnd.Perm(total) {
			points = append(points, point{Phase: phase, N: i, Half: rnd.IntN(2) == 0})
		}
	}
	return points[:n]
}

// share returns soak in a soak run and short in any other run.
func share(soak, short int) int {
	if testbed.Soak() {
		return soak
	}
	return short
}

// TestPain05_CrashPull kills real pulls with SIGKILL.
func TestPain05_CrashPull(t *testing.T) {
	var jobs []drawn
	fixtures := share(8, 2)
	for seed := range fixtures {
		f := newFixture(t, uint64(100+seed), 900_000)
		if err := f.measurePull(t); err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(f.seed, 5))
		counts := f.wholePull.Counts
		if len(counts) != len(pullSteps()) {
			t.Fatalf("the pull made changes in %d phases: %v", len(counts), counts)
		}
		for phase, n := range []int{share(110, 20), share(500, 60), share(40, 8)} {
			for _, at := range draw(rnd, phase, n/fixtures, counts[phase]) {
				jobs = append(jobs, drawn{f: f, at: at})
			}
		}
		for _, at := range draw(rnd, burstPhase, share(80, 12)/fixtures, counts[burstPhase]) {
			jobs = append(jobs, drawn{f: f, at: at, again: &point{Phase: stagePhase, N: rnd.IntN(40), Half: rnd.IntN(2) == 0}})
		}
		t.Logf("seed %d: changes by phase %v", f.seed, counts)
	}
	tally := newTally(pullSteps())
	inParallel(t, len(jobs), func(i int) error {
		if err := jobs[i].pull(t, tally); err != nil {
			return fmt.Errorf("seed %d, point %+v, again %+v: %w", jobs[i].f.seed, jobs[i].at, jobs[i].again, err)
		}
		return nil
	})
	tally.log(t, len(jobs))
	if hit := tally.hits[burstPhase]; hit < share(400, 60) {
		t.Errorf("only %d kills hit the time between journal and catalogue", hit)
	}
}

// measurePull records a pull that is not killed.
func (f *fixture) measurePull(t *testing.T) error {
	dst, done, err := f.fresh("whole")
	if err != nil {
		return err
	}
	if err := f.prepare(t, dst); err != nil {
		return err
	}
	if f.wholePull, _, err = f.pullOrder(dst, nil).run(t.Context()); err != nil {
		return err
	}
	return errors.Join(same(dst, f.now), done())
}

// prepare pulls the old release to dst.
func (f *fixture) prepare(t *testing.T, dst string) error {
	store, err := f.open(t, f.store)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	_, err = f.pull(t, store, dst, 1, nil)
	return err
}

// pull kills a pull, checks the target, recovers and checks it again.
func (d drawn) pull(t *testing.T, tally *tally) error {
	f := d.f
	dst, done, err := f.fresh("pull")
	if err != nil {
		return err
	}
	if err := f.prepare(t, dst); err != nil {
		return err
	}
	died, state, err := f.pullOrder(dst, &d.at).run(t.Context())
	if err != nil {
		return err
	}
	if !killed(state) {
		tally.missed()
		return done()
	}
	tally.hit(len(died.Counts)-1, died.Op)
	where := fmt.Sprintf("killed at %q", died.Op)
	committing := exists(filepath.Join(dst, stateDir, "journal"))
	switch {
	case d.at.Phase == stagePhase && committing, d.at.Phase == burstPhase && !committing:
		return fmt.Errorf("%s: is there a journal: %v", where, committing)
	case d.at.Phase == stagePhase:
		err = f.untouched(dst, f.oldLook)
	case committing:
		err = f.whole(dst)
	default:
		err = f.untouched(dst, f.nowLook)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if d.at.Phase == stagePhase {
		return errors.Join(d.resume(t, dst, died), done())
	}
	if d.again != nil {
		again, state, err := order{Verb: "recover", Store: f.store, Target: dst, Secret: f.secret, Kill: d.again}.run(t.Context())
		if err != nil {
			return fmt.Errorf("%s: recovery: %w", where, err)
		}
		if killed(state) {
			tally.twice()
			where += fmt.Sprintf(", and its recovery at %q", again.Op)
			if err := f.whole(dst); exists(filepath.Join(dst, stateDir, "journal")) && err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	}
	// Recovery does not read the store.
	if _, _, err := (order{Verb: "recover", Store: f.store, Target: dst, Secret: f.secret}).run(t.Context()); err != nil {
		return fmt.Errorf("%s: recovery: %w", where, err)
	}
	if err := same(dst, f.now); err != nil {
		return fmt.Errorf("%s: after rolling forward: %w", where, err)
	}
	if err := f.settled(t, dst); err != nil {
		return fmt.Errorf("%s: after rolling forward: %w", where, err)
	}
	if err := litter(dst); err != nil {
		return fmt.Errorf("%s: after rolling forward: %w", where, err)
	}
	return done()
}

// settled fails unless the next pull has nothing to do.
func (f *fixture) settled(t *testing.T, dst string) error {
	store, err := f.open(t, f.store)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	res, err := f.pull(t, store, dst, 0, nil)
	if err != nil {
		return err
	}
	if !res.NoOp || res.BytesWire != 0 {
		return fmt.Errorf("the next pull finds something to do: %+v", res)
	}
	return nil
}

// resume pulls again after a kill before the journal was written.
func (d drawn) resume(t *testing.T, dst string, died report) error {
	f := d.f
	where := fmt.Sprintf("killed at %q", died.Op)
	staged, err := held(filepath.Join(dst, stateDir, "stage"))
	if err != nil {
		return err
	}
	var ready int64
	for _, n := range f.now {
		// Holes are not staged. Files with holes are checked by the traffic below.
		if size, ok := staged[sum(n.data)]; ok && !n.dir && !bytes.Contains(n.data, make([]byte, 4096)) {
			ready += size
			delete(staged, sum(n.data))
		}
	}
	r, _, err := f.pullOrder(dst, nil).run(t.Context())
	if err != nil {
		return fmt.Errorf("%s: next pull: %w", where, err)
	}
	if err := same(dst, f.now); err != nil {
		return fmt.Errorf("%s: next pull: %w", where, err)
	}
	if err := litter(dst); err != nil {
		return fmt.Errorf("%s: next pull: %w", where, err)
	}
	if most := f.wholePull.Written - ready; r.Written > most {
		return fmt.Errorf("%s: %d bytes were staged, and the next pull wrote %d more, not %d", where, ready, r.Written, most)
	}
	twice := died.Packs + r.Packs - f.wholePull.Packs
	if conns := f.pullOrder("", nil).Connections; twice > int64(conns)*pack.MaxBlock {
		return fmt.Errorf("%s: %d bytes came twice over %d connections", where, twice, conns)
	}
	return nil
}

// untouched fails unless dst is exactly want.
func (f *fixture) untouched(dst string, want look) error {
	have, err := see(dst)
	if err != nil {
		return err
	}
	if d := differ(want, have); d != "" {
		return fmt.Errorf("no commit is under way, but it looks neither untouched nor done:%s", d)
	}
	return nil
}

// whole fails unless dst is in a state that a commit in progress may leave (see the package comment).
func (f *fixture) whole(dst string) error {
	have, err := see(dst)
	if err != nil {
		return err
	}
	waiting, err := held(filepath.Join(dst, stateDir, "stage"))
	if err != nil {
		return err
	}
	visible := map[string]bool{}
	for p, h := range have {
		if h != f.oldLook[p] && h != f.nowLook[p] {
			return fmt.Errorf("%q is neither the old nor the new: %.12s, not %.12s or %.12s", p, h, f.oldLook[p], f.nowLook[p])
		}
		visible[h] = true
	}
	for p, was := range f.oldLook {
		will, stays := f.nowLook[p]
		if _, there := have[p]; there || !stays {
			continue
		}
		// A path may be missing if a file and a folder swap places there, or if its old content is moving elsewhere.
		if (was == "folder") == (will == "folder") && (was == will || !f.leaves(p, was)) {
			return fmt.Errorf("%q is in both releases, its content moves nowhere, and it is missing", p)
		}
	}
	for p, will := range f.nowLook {
		if _, ok := waiting[will]; will != "folder" && !visible[will] && !ok {
			return fmt.Errorf("%q of the new release lies nowhere on the disk", p)
		}
	}
	return nil
}

// leaves reports whether the new release has content at another path that did not have it in the old release.
func (f *fixture) leaves(from, content string) bool {
	for p, will := range f.nowLook {
		if will == content && f.oldLook[p] != content && p != from {
			return true
		}
	}
	return false
}

// litter fails if nightferry's own folder contains files that no later run uses.
func litter(dst string) error {
	state := filepath.Join(dst, stateDir)
	list, err := os.ReadDir(state)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch e.Name() {
		case "catalogue", "catalogue.before", "checks.json", "lock", "memory.json", "pages", "stage", "traits.json":
		default:
			return fmt.Errorf("%s is left over", e.Name())
		}
	}
	staged, err := held(filepath.Join(state, "stage"))
	if err == nil && len(staged) > 0 {
		err = fmt.Errorf("%d files are left over on the stage", len(staged))
	}
	return err
}
