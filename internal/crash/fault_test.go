package crash

import (
	"errors"
	"fmt"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
)

// TestFaultMatrixOfPull makes each store call of a pull fail: at once or halfway through the answer, and once or
// permanently. Afterwards the target is the unchanged old release or the new one, and the next pull succeeds. Package
// collect tests the matrices of push and gc.
func TestFaultMatrixOfPull(t *testing.T) {
	for seed := range uint64(2) { // the second is encrypted
		f := newFixture(t, 500+seed, 60_000)
		first := *f
		first.old, first.oldLook = tree{}, look{}
		for name, f := range map[string]*fixture{"update": f, "first": &first} {
			t.Run(fmt.Sprintf("encrypted=%v %s", f.secret != nil, name), func(t *testing.T) { f.faults(t) })
		}
	}
}

// faults runs the matrix of one pull.
func (f *fixture) faults(t *testing.T) {
	calls, err := f.faulty(t, testbed.Rule{Op: "never"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, call := range calls {
		for _, done := range []bool{false, true} {
			for _, dead := range []bool{false, true} {
				n++
				kind := []bucket.Kind{bucket.KindOther, bucket.KindUnreachable}[n%2]
				rule := testbed.Rule{Nth: i + 1, Done: done, Dead: dead, Kind: kind}
				if _, err := f.faulty(t, rule); err != nil {
					t.Errorf("call %d of %d (%s %s), happened: %v, for good: %v, kind %v: %v", i+1, len(calls), call.Op, call.Key, done, dead, kind, err)
				}
			}
		}
	}
	t.Logf("%d calls, %d faults", len(calls), n)
}

// faulty pulls from a store with one fault, then from the store without it.
func (f *fixture) faulty(t *testing.T, rule testbed.Rule) ([]testbed.Call, error) {
	dst, done, err := f.fresh("fault")
	if err != nil {
		return nil, err
	}
	if len(f.old) > 0 {
		if err := f.prepare(t, dst); err != nil {
			return nil, err
		}
	}
	good, err := f.open(t, f.store)
	if err != nil {
		return nil, err
	}
	defer bucket.Close(good)
	store := testbed.Fail(good, rule)
	_, err = f.pull(t, store, dst, 0, nil)
	switch {
	case err == nil:
		err = f.untouched(dst, f.nowLook)
	case errors.Is(err, testbed.ErrFault), errors.Is(err, testbed.ErrDead):
		err = f.untouched(dst, f.oldLook)
	default:
		err = fmt.Errorf("the fault shows as: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.pull(t, good, dst, 0, nil); err != nil {
		return nil, fmt.Errorf("next pull: %w", err)
	}
	return store.Calls(), errors.Join(same(dst, f.now), done())
}
