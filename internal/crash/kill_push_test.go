package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// pushed is one kill of a push.
type pushed struct {
	f     *fixture
	at    point
	again *point // nil, or where to kill the next push as well
}

// TestPain05_CrashPush kills real pushes with SIGKILL.
func TestPain05_CrashPush(t *testing.T) {
	var jobs []pushed
	fixtures := share(8, 2)
	for seed := range fixtures {
		f := newFixture(t, uint64(200+seed), 500_000)
		if err := f.measurePush(t); err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(f.seed, 6))
		counts := f.wholePush.Counts
		if len(counts) != len(pushSteps()) {
			t.Fatalf("the push made changes in %d phases: %v", len(counts), counts)
		}
		for phase, n := range []int{share(80, 12), share(56, 8), share(56, 8), share(56, 8), share(56, 8), share(56, 8)} {
			for i, at := range draw(rnd, phase, n/fixtures, counts[phase]) {
				job := pushed{f: f, at: at}
				if i%4 == 3 {
					phase := rnd.IntN(publishedPhase)
					job.again = &point{Phase: phase, N: rnd.IntN(1 + counts[phase]), Half: rnd.IntN(2) == 0}
				}
				jobs = append(jobs, job)
			}
		}
		t.Logf("seed %d: changes by phase %v", f.seed, counts)
	}
	tally := newTally(pushSteps())
	inParallel(t, len(jobs), func(i int) error {
		if err := jobs[i].run(t, tally); err != nil {
			return fmt.Errorf("seed %d, point %+v, again %+v: %w", jobs[i].f.seed, jobs[i].at, jobs[i].again, err)
		}
		return nil
	})
	tally.log(t, len(jobs))
}

// publisher copies the store and the publisher's state as they were after the old release.
func (f *fixture) publisher() (store, state string, done func() error, err error) {
	dir, done, err := f.fresh("push")
	if err != nil {
		return "", "", nil, err
	}
	store, state = filepath.Join(dir, "store"), filepath.Join(dir, "state")
	err = errors.Join(copyTree(f.oldStore, store, true), copyTree(f.oldState, state, false))
	return store, state, done, err
}

// measurePush records a push that is not killed.
func (f *fixture) measurePush(t *testing.T) error {
	store, state, done, err := f.publisher()
	if err != nil {
		return err
	}
	if f.wholePush, _, err = f.pushOrder(store, state, nil).run(t.Context()); err != nil {
		return err
	}
	return done()
}

// run kills a push, checks the bucket, pushes again and pulls.
func (d pushed) run(t *testing.T, tally *tally) error {
	f := d.f
	store, state, done, err := f.publisher()
	if err != nil {
		return err
	}
	died, ended, err := f.pushOrder(store, state, &d.at).run(t.Context())
	if err != nil {
		return err
	}
	if !killed(ended) {
		tally.missed()
		return done()
	}
	tally.hit(len(died.Counts)-1, died.Op)
	where := fmt.Sprintf("killed at %q", died.Op)
	number, err := f.sound(t, store)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if published := d.at.Phase == publishedPhase; published != (number == 2) {
		return fmt.Errorf("%s: the head is release %d", where, number)
	}
	indexed := d.at.Phase > rootPhase
	if d.again != nil {
		again, ended, err := f.pushOrder(store, state, d.again).run(t.Context())
		if err != nil {
			return fmt.Errorf("%s: next push: %w", where, err)
		}
		if killed(ended) {
			tally.twice()
			where += fmt.Sprintf(", and the next push at %q", again.Op)
			if _, err := f.sound(t, store); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	}
	r, _, err := f.pushOrder(store, state, nil).run(t.Context())
	if err != nil {
		return fmt.Errorf("%s: next push: %w", where, err)
	}
	if indexed && r.PackPuts > 0 {
		return fmt.Errorf("%s: all was stored and indexed, and the next push sent %d packs", where, r.PackPuts)
	}
	if err := f.published(t, store); err != nil {
		return fmt.Errorf("%s: after the next push: %w", where, err)
	}
	// The stat cache is correct: a push that uses it and a push without any cache both find nothing new.
	for _, lost := range []bool{false, true} {
		if lost {
			if err := removeAll(state); err != nil {
				return err
			}
			if err := os.MkdirAll(state, 0o755); err != nil {
				return err
			}
		}
		if r, _, err = f.pushOrder(store, state, nil).run(t.Context()); err != nil {
			return fmt.Errorf("%s: third push: %w", where, err)
		}
		if !r.Unchanged || !lost && r.Read > 0 {
			return fmt.Errorf("%s: third push, cache lost: %v: it read %d bytes, unchanged: %v", where, lost, r.Read, r.Unchanged)
		}
	}
	return done()
}

// sound returns the head's number. It fails unless fsck passes with all data read.
func (f *fixture) sound(t *testing.T, dir string) (trust.ReleaseNumber, error) {
	store, err := f.open(t, dir)
	if err != nil {
		return 0, err
	}
	defer bucket.Close(store)
	if err := f.fsck(t, store); err != nil {
		return 0, err
	}
	r, err := repo.Open(t.Context(), store, repo.Options{Key: f.secret, Now: time.Now})
	if err != nil {
		return 0, err
	}
	head, err := r.Head(t.Context(), channel)
	if err != nil {
		return 0, err
	}
	return head.Number, nil
}

// published fails unless the bucket is sound and a pull of the head gives exactly the new release.
func (f *fixture) published(t *testing.T, dir string) error {
	if _, err := f.sound(t, dir); err != nil {
		return err
	}
	store, err := f.open(t, dir)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	dst, done, err := f.fresh("site")
	if err != nil {
		return err
	}
	if _, err := f.pull(t, store, dst, 0, nil); err != nil {
		return err
	}
	return errors.Join(same(dst, f.now), done())
}
