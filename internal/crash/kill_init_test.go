package crash

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/repo"
)

// TestPain05_CrashInit kills an init before each of its changes. A second init with the same keys completes the
// repository, which is then sound. An init with other keys fails once the trust document is stored.
func TestPain05_CrashInit(t *testing.T) {
	for _, secret := range [][]byte{nil, random(generator(6), 32)} {
		base := scratch(t)
		tally := newTally(initSteps())
		whole, err := os.MkdirTemp(base, "whole-")
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := order{Verb: "init", Store: whole, Secret: secret}.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var points []point
		for phase, n := range r.Counts {
			for i := range n {
				points = append(points, point{Phase: phase, N: i, Half: i%2 == 1})
			}
		}
		inParallel(t, len(points), func(i int) error {
			dir, err := os.MkdirTemp(base, "store-")
			if err != nil {
				return err
			}
			f := &fixture{secret: secret, work: base}
			if err := f.killInit(t, dir, points[i], tally); err != nil {
				return fmt.Errorf("point %+v: %w", points[i], err)
			}
			return nil
		})
		tally.log(t, len(points))
	}
}

func (f *fixture) killInit(t *testing.T, dir string, at point, tally *tally) error {
	o := order{Verb: "init", Store: dir, Secret: f.secret}
	dying := o
	dying.Kill = &at
	died, state, err := dying.run(t.Context())
	if err != nil {
		return err
	}
	if !killed(state) {
		tally.missed()
		return nil
	}
	tally.hit(len(died.Counts)-1, died.Op)
	store, err := f.open(t, dir)
	if err != nil {
		return err
	}
	defer bucket.Close(store)
	if len(died.Counts) > 2 { // the trust document is stored
		_, err := repo.Init(t.Context(), store, repo.InitOptions{Key: f.secret, Root: releaseKey(), Release: rootKey(), Now: clock()})
		if !errors.Is(err, repo.ErrExists) {
			return fmt.Errorf("killed at %q: an init with other keys: %v", died.Op, err)
		}
	}
	_, _, err = o.run(t.Context())
	if last := len(died.Counts) == len(initSteps()); last && err != nil && strings.Contains(err.Error(), repo.ErrExists.Error()) {
		err = nil // the index root had its name: the first init was complete
	}
	if err == nil {
		err = f.fsck(t, store)
	}
	if err != nil {
		return fmt.Errorf("killed at %q: next init: %w", died.Op, err)
	}
	return nil
}
