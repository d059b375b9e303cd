package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
)

// TestHaltHoldsAnInterruptedCommit: under a halt order, a pull does not finish the interrupted commit of the halted
// release, no matter how it learns of the order. After the order is lifted, the next pull finishes the commit.
func TestHaltHoldsAnInterruptedCommit(t *testing.T) {
	p, src, dst := dirs(t, tree{"f1": "old", "f2": "old", "f3": "old"})
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, tree{"f1": "new!", "f2": "new!", "f3": "new!"})
	p.publish(src)
	renames := 0
	if _, err := p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Rename && op.To[0] == 'f' {
				renames++
			}
			if renames > 1 {
				return errKilled
			}
			return nil
		})
	}); err == nil {
		t.Fatal("was not interrupted")
	}
	old := func() (n int) {
		for _, f := range []string{"f1", "f2", "f3"} {
			b, err := os.ReadFile(filepath.Join(dst, f))
			try(t, err)
			if string(b) == "old" {
				n++
			}
		}
		return n
	}
	if old() != 2 {
		t.Fatalf("%d of 3 files are old", old())
	}
	order := halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "wrong drivers", By: "me"}
	gate := func(o *Options) { o.Gate = func(ctx context.Context) error { return &halt.Error{Order: order} } }
	var stopped *halt.Error
	if _, err := p.pull(dst, gate); !errors.As(err, &stopped) || old() != 2 {
		t.Errorf("by the Gate: %v, %d of 3 files are old", err, old())
	}
	o := options(nil)
	gate(&o)
	if err := Recover(t.Context(), dst, o); !errors.Is(err, ErrUnfinished) || old() != 2 {
		t.Errorf("Recover: %v, %d of 3 files are old", err, old())
	}
	set := func(active ...halt.Order) {
		t.Helper()
		_, err := p.open().Halts().Put(t.Context(), p.key, func(o *halt.Orders) error {
			o.Active = active
			return nil
		})
		try(t, err)
	}
	order.ID = halt.NewID()
	set(order)
	if _, err := p.pull(dst, nil); !errors.As(err, &stopped) || old() != 2 {
		t.Errorf("by the store: %v, %d of 3 files are old", err, old())
	}
	set()
	p.must(dst, nil)
	sameTree(t, src, dst)
}
