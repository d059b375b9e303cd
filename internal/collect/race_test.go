package collect

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// Two pushers, two pullers and two gcs work on one store at once. Its clock
// runs so fast that the grace passes many times. Contents come back again and
// again, so that pushes rely on packs that gc is about to delete. In the end
// the repository is whole.
func TestRacePushPullGC(t *testing.T) {
	rounds, least := 12, time.Duration(0)
	if testbed.Soak() {
		least = 65 * time.Second
	}
	stores := map[string]func(*testing.T) bucket.Store{
		"directory": func(*testing.T) bucket.Store { return nil },
		"versitygw": func(t *testing.T) bucket.Store { return s3test.S3(t).Open(t) },
	}
	for name, base := range stores {
		for _, key := range [][]byte{nil, []byte("0123456789abcdef0123456789abcdef")} {
			t.Run(fmt.Sprintf("%s encrypted=%v", name, key != nil), func(t *testing.T) { race(t, newLab(t, base(t), key), rounds, least) })
		}
	}
}

func race(t *testing.T, l *lab, rounds int, least time.Duration) {
	began := time.Now()
	// A push takes 5 to 10 puts, and as many come from others meanwhile; half
	// the grace is 30.
	l.clock.tick = time.Minute
	var total Report
	var pushes, late int
	var g errgroup.Group
	var pushing atomic.Int32
	enough := func() bool { // otherwise the test proves nothing
		l.clock.mu.Lock()
		defer l.clock.mu.Unlock()
		return total.Deleted > 3 && total.Condemned > 3 && total.Merged > 3
	}
	pushing.Store(2)
	var sources [2]string
	push := func(p int, name string, content []byte) error {
		if err := os.WriteFile(filepath.Join(sources[p], name), content, 0o644); err != nil {
			return err
		}
		r, err := l.open(nil)
		if err != nil {
			return err
		}
		_, err = push.Run(t.Context(), r, sources[p], push.Options{Channel: fmt.Sprintf("c%d", p), Key: l.key, State: l.dir(fmt.Sprintf("core%d", p)), Now: l.clock.Now, AllowDeletes: true})
		return err
	}
	for p := range 2 {
		l.dir(fmt.Sprintf("core%d", p))
		sources[p] = t.TempDir()
		rnd := rand.New(rand.NewPCG(uint64(p), 7))
		g.Go(func() error {
			defer pushing.Add(-1)
			for i := 0; i < rounds || time.Since(began) < least || i < 30*rounds && !enough(); i++ {
				// Few contents, so that they come back.
				err := push(p, fmt.Sprintf("f%d", rnd.IntN(6)), noise(100<<10, uint64(rnd.IntN(12))))
				if err != nil && !errors.Is(err, repo.ErrTooLong) {
					return fmt.Errorf("push: %w", err)
				}
				l.clock.mu.Lock()
				pushes++
				if err != nil {
					late++
				}
				l.clock.mu.Unlock()
			}
			return nil
		})
		target := t.TempDir()
		g.Go(func() error {
			for pushing.Load() > 0 {
				_, err := apply.Run(t.Context(), l.store, target, apply.Options{Channel: fmt.Sprintf("c%d", p), Now: l.clock.Now, Key: l.seal})
				if err != nil && !errors.Is(err, os.ErrNotExist) { // the channel may not be born yet
					return fmt.Errorf("pull: %w", err)
				}
			}
			return nil
		})
		g.Go(func() error {
			for pushing.Load() > 0 {
				r, err := l.open(nil)
				if err != nil {
					return err
				}
				rep, err := GC(t.Context(), r, r.Segments(l.dir(fmt.Sprintf("gc%d", p))), Options{Keep: 1 + p, MinSmall: 2})
				if err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, repo.ErrTooLong) && !errors.Is(err, repo.ErrContended) {
					return err
				}
				l.clock.mu.Lock()
				total.Expired += rep.Expired
				total.Condemned += rep.Condemned
				total.Revived += rep.Revived
				total.Repacked += rep.Repacked
				total.Merged += rep.Merged
				total.Deleted += rep.Deleted
				total.Leftovers += rep.Leftovers
				l.clock.mu.Unlock()
			}
			return nil
		})
	}
	g.Go(func() error { // unfinished writes of others are no damage
		for pushing.Load() > 0 {
			r, err := l.open(nil)
			if err != nil {
				return err
			}
			_, err = Fsck(t.Context(), r, r.Segments(l.dir("fsck")), FsckOptions{}, func(f Finding) {
				if f.Severity == Damage {
					t.Errorf("fsck beside the race: %s", f)
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pushes, %d too long; gc: %+v", pushes, late, total)
	if !enough() || late > pushes/2 {
		t.Error("the race proved nothing: gc took nothing, or pushes gave up")
	}
	l.healthy()
	for p := range 2 { // go past the leftovers of a last push that was too late
		if err := push(p, "last", []byte("last")); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 { // the leftovers are deleted in the end, and nothing else
		l.clock.advance(2 * l.grace)
		l.mustGC(keepOne)
	}
	if rep := l.healthy(); rep.Garbage != 0 {
		t.Errorf("garbage stays: %+v", rep)
	}
}
