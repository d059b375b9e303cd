package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/testbed"
)

// cutPush is one push with a power cut at every change. Publisher and store are on the same machine and lose power
// together.
type cutPush struct {
	f      *fixture
	before *disk
	ops    []durable.Op
	acked  int // number of changes after which the new head is durable
}

// TestPain05_PowerLossPush replays the states that a power cut may leave of a push: of the store, the stat cache, the
// index copies and the record of the highest numbers seen.
func TestPain05_PowerLossPush(t *testing.T) {
	for seed := range share(6, 1) {
		c := &cutPush{f: newFixture(t, uint64(400+seed), 60_000)}
		if err := c.record(t); err != nil {
			t.Fatal(err)
		}
		cuts := cutPoints(c.f.seed, len(c.ops), 4, 40)
		tally := newPowerTally()
		inParallel(t, len(cuts), func(i int) error {
			if err := c.cut(t, cuts[i], rand.New(rand.NewPCG(c.f.seed, uint64(i))), tally); err != nil {
				return fmt.Errorf("seed %d, cut %d: %w", c.f.seed, i, err)
			}
			return nil
		})
		t.Logf("seed %d: %d power cuts after any of %d changes: %v", c.f.seed, len(cuts), len(c.ops), tally)
	}
}

// record pushes once and records every change of the store and the state.
func (c *cutPush) record(t *testing.T) error {
	store, state, done, err := c.f.publisher()
	if err != nil {
		return err
	}
	if c.before, err = readDisk(map[string]string{"store": store, "state": state}); err != nil {
		return err
	}
	tape := &recorder{}
	s, err := bucket.Open(t.Context(), testbed.FileURL(store), bucket.Options{Observer: tape.watch("store")})
	if err != nil {
		return err
	}
	defer bucket.Close(s)
	if _, err := c.f.pushOrder(store, state, nil).push(t.Context(), s, tape.watch("state")); err != nil {
		return err
	}
	c.ops = tape.ops
	for i, op := range c.ops {
		if op.Kind == durable.Rename && strings.HasSuffix(op.To, "/head") {
			c.acked = i + 2 // includes the sync of its folder
			if s := c.ops[i+1]; s.Kind != durable.SyncDir || s.Name != path.Dir(op.To) {
				return fmt.Errorf("the head's new name is followed by %v %s, not by the sync of its folder", s.Kind, s.Name)
			}
		}
	}
	if c.acked == 0 {
		return errors.New("the head was not seen to move")
	}
	return done()
}

// cut cuts the power after n changes and checks the result.
func (c *cutPush) cut(t *testing.T, n int, rnd *rand.Rand, tally *powerTally) error {
	where := "before all changes"
	if n > 0 {
		where = fmt.Sprintf("after change %d of %d, %v %s %s", n, len(c.ops), c.ops[n-1].Kind, c.ops[n-1].Name, c.ops[n-1].To)
	}
	after, err := c.before.after(c.ops[:n], rnd)
	if err != nil {
		return err
	}
	dir, done, err := c.f.fresh("cut")
	if err != nil {
		return err
	}
	store, state := path.Join(dir, "store"), path.Join(dir, "state")
	if err := errors.Join(after.lay("store", store), after.lay("state", state)); err != nil {
		return err
	}
	number, err := c.f.sound(t, store)
	if err != nil {
		return fmt.Errorf("power cut %s: %w", where, err)
	}
	if n >= c.acked && number != 2 {
		return fmt.Errorf("power cut %s: the push had moved the head, and the head is release %d", where, number)
	}
	tally.add(fmt.Sprintf("head %d", number))
	if err := c.pushAgain(t, store, state); err != nil {
		return fmt.Errorf("power cut %s: %w", where, err)
	}
	return done()
}

// pushAgain pushes with the state that is left and checks the published release. Then it compares the stat cache with
// the files.
func (c *cutPush) pushAgain(t *testing.T, store, state string) error {
	s, err := c.f.open(t, store)
	if err != nil {
		return err
	}
	defer bucket.Close(s)
	if _, err := c.push(t, s, state, false); err != nil {
		return fmt.Errorf("next push: %w", err)
	}
	if err := c.f.published(t, store); err != nil {
		return fmt.Errorf("after the next push: %w", err)
	}
	for _, rehash := range []bool{false, true} {
		res, err := c.push(t, s, state, rehash)
		if err != nil {
			return fmt.Errorf("third push: %w", err)
		}
		if !res.Unchanged || !rehash && res.Read > 0 {
			return fmt.Errorf("third push, rehash: %v: it read %d bytes, unchanged: %v", rehash, res.Read, res.Unchanged)
		}
	}
	return nil
}

func (c *cutPush) push(t *testing.T, s bucket.Store, state string, rehash bool) (*push.Result, error) {
	o := c.f.pushOrder("", state, nil)
	o.Rehash = rehash
	return o.push(t.Context(), s, nil)
}
