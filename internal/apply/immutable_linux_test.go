package apply

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/disktest"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// A file that an attribute protects has failed, is not locked, and delays nothing: with the policy wait nothing is
// committed, with partial all the rest is. Without the attribute, the next run brings it.
func TestImmutableFileIsNotLocked(t *testing.T) {
	for _, partial := range []bool{false, true} {
		p, src, dst := dirs(t, before)
		p.publish(src)
		p.must(dst, nil)
		lay(t, src, after)
		p.publish(src)
		unmark := disktest.Mark(t, filepath.Join(dst, "edit"), disktest.Immutable)
		waited := false
		r, err := p.pull(dst, func(o *Options) {
			o.Partial, o.LockWait = partial, time.Minute
			handle := o.OnEvent
			o.OnEvent = func(e Event) {
				waited = waited || e.Phase == PhaseWait
				handle(e)
			}
		})
		unmark()
		if err != nil || r.Verdict != Incomplete || r.Failed != 1 || r.Locked != 0 || waited {
			t.Fatalf("partial %t: %v, %v, waited %t: %v", partial, r.Verdict, err, waited, r.outcomes())
		}
		if e := r.files["edit"]; e.Outcome != runs.FileFailed || !errors.Is(e.Cause, durable.ErrImmutable) {
			t.Errorf("partial %t: %s: %v", partial, e.Outcome, e.Cause)
		}
		if d := cmp.Diff(brief(mustHave(before)), brief(seen(t, dst))); (d == "") == partial {
			t.Errorf("partial %t: %s", partial, d)
		}
		p.must(dst, nil)
		sameTree(t, src, dst)
	}
}
