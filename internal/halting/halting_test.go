package halting_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/halting"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

// TestConfirmedBeforeItIsRecorded checks that a site's confirmation counts even if it arrives before the Core has
// recorded the order.
func TestConfirmedBeforeItIsRecorded(t *testing.T) {
	d := newDesk(t)
	d.changed = func(s *halting.Set) {
		if len(d.page.b) > 0 || len(d.book.rows) > 0 {
			t.Error("the order is recorded before it is sent")
		}
		d.Confirm(osaka, "p1", []wire.Stop{{Order: s.Orders.Active[0].ID, At: 5, Bytes: 7}})
	}
	id := d.give("now")
	for what, h := range map[string]ledger.Halt{"shown": d.active()[id], "in the ledger": d.book.rows[id]} {
		if len(h.Confirmed) != 1 || h.Confirmed[0].BytesAfter != 7 {
			t.Errorf("%s: %+v", what, h.Confirmed)
		}
	}
	d.Confirm(osaka, "p1", []wire.Stop{{Order: id, At: 9, Bytes: 1}, {Order: halt.NewID(), At: 9}})
	if c := d.active()[id].Confirmed; len(c) != 1 || c[0].BytesAfter != 7 {
		t.Errorf("the first word does not count: %+v", c)
	}
	// Another server is enrolled for the site.
	if err := d.Forget(t.Context(), osaka); err != nil {
		t.Fatal(err)
	}
	if c := append(d.active()[id].Confirmed, d.book.rows[id].Confirmed...); len(c) != 0 {
		t.Errorf("the word of a replaced server counts: %+v", c)
	}
	d.Confirm(osaka, "p2", []wire.Stop{{Order: id, At: 9, Bytes: 1}})
	if c := d.active()[id].Confirmed; len(c) != 1 || c[0].BytesAfter != 1 {
		t.Errorf("the new server's word does not count: %+v", c)
	}
}

// TestFullLedgerAndHalts checks that while the ledger is full, orders are given, listed, confirmed and lifted, and
// survive a kill. The ledger gets all rows once it has space.
func TestFullLedgerAndHalts(t *testing.T) {
	d := newDesk(t)
	d.book.full = true
	first, second := d.give("one"), d.give("two")
	d.Confirm(osaka, "p1", []wire.Stop{{Order: first, At: 5}})
	if m := d.active(); len(m) != 2 || len(m[first].Confirmed) != 1 {
		t.Errorf("shown: %+v", m)
	}
	d.open() // killed
	if m := d.active(); len(m) != 2 || m[second].Reason != "two" {
		t.Errorf("after a kill: %+v", m)
	}
	d.lift(first)
	d.open()
	if m := d.active(); len(m) != 1 || m[second].Reason != "two" {
		t.Errorf("after a lift and a kill: %+v", m)
	}
	if all, err := d.List(t.Context(), true); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	d.book.full = false
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		d.book.mu.Lock()
		complete := len(d.book.rows) == 2 && !d.book.rows[first].Resumed.IsZero() && d.book.rows[second].Resumed.IsZero()
		d.book.mu.Unlock()
		if complete {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", d.book.rows)
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestLiftedMustBeRecorded checks that an order stays in force if its lift cannot be recorded, because a restart would
// bring it back. A new order takes effect even if it cannot be recorded.
func TestLiftedMustBeRecorded(t *testing.T) {
	d := newDesk(t)
	id := d.give("one")
	d.page.fail = errors.New("broken disk")
	if _, err := d.Lift(t.Context(), "test", func(o *halt.Orders) ([]halt.Order, error) { return o.Active, nil }); err == nil || len(d.active()) != 1 {
		t.Errorf("%v, in force are %+v", err, d.active())
	}
	if done, err := d.Give(t.Context(), halt.Order{ID: halt.NewID(), Scope: halt.All}); err == nil || done == nil || len(d.active()) != 2 {
		t.Errorf("%+v, %v, in force are %+v", done, err, d.active())
	}
	d.page.fail = nil
	d.lift(id)
	if len(d.active()) != 1 {
		t.Errorf("%+v", d.active())
	}
}

// TestStoreAway checks orders that are given and lifted on both sides while the Core cannot reach the store. All
// changes take effect once the store is reachable, even after a kill.
func TestStoreAway(t *testing.T) {
	d := newDesk(t)
	old, mine := d.give("old"), d.give("to be lifted by the store")
	d.store.down = errors.New("away")
	kept := d.give("ours")
	d.lift(old)
	if d.InStore(kept) || !d.InStore(mine) {
		t.Error("what the store has is not told")
	}
	theirs := halt.NewID()
	d.store.down = nil
	d.store.put(func(o *halt.Orders) {
		o.Active = slices.DeleteFunc(o.Active, func(a halt.Order) bool { return a.ID == mine })
		o.Add(halt.Order{ID: theirs, Scope: halt.All, Reason: "theirs", At: 2})
	})
	d.open() // killed
	if err := d.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := d.active(); len(m) != 2 || m[kept].Reason != "ours" || m[theirs].Reason != "theirs" {
		t.Errorf("%+v", m)
	}
	if !sameSet(d.store.object.Orders, kept, theirs) || d.store.object.Epoch != d.Current().Epoch {
		t.Errorf("the store holds %+v", d.store.object)
	}
	// An order lifted by another program is lifted here too.
	d.store.put(func(o *halt.Orders) { o.Active = nil })
	if err := d.Look(t.Context()); err != nil || len(d.active()) != 0 {
		t.Errorf("%v, in force are %+v", err, d.active())
	}
}

// TestOldObjectPutBack checks that an old halt object which somebody puts back is replaced, even if the repository's memory
// does not know the newer epoch and the service was killed since.
func TestOldObjectPutBack(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d := newDesk(t)
		none := d.store.object
		lifted, kept := d.give("lifted"), d.give("in force")
		one := d.store.object
		d.lift(lifted)
		for _, old := range []*repo.HaltObject{none, one} {
			d.store.object, d.store.seen = old, 0
			if killed {
				d.open()
			}
			if err := d.Look(t.Context()); !errors.Is(err, repo.ErrOlder) {
				t.Errorf("killed %v, epoch %d was put back: Look returned %v", killed, old.Epoch, err)
			}
			if !sameSet(d.store.object.Orders, kept) || d.store.object.Epoch < d.Current().Epoch {
				t.Errorf("killed %v, epoch %d was put back: the store holds %+v", killed, old.Epoch, d.store.object)
			}
		}
	}
}

// TestOtherObjectOfOneEpoch: an old state of the bucket was put back, and a person gave the store an order before the Core
// looked. Its epoch is the Core's newest. Both orders are then in force, for the Core and in the store.
func TestOtherObjectOfOneEpoch(t *testing.T) {
	d := newDesk(t)
	none := d.store.object
	ours := d.give("the Core's")
	epoch := d.Current().Epoch
	d.store.object, d.store.seen = none, 0
	theirs := halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test", By: "on call"}
	for d.store.object.Epoch < epoch {
		d.store.put(func(o *halt.Orders) { o.Active = []halt.Order{theirs} })
	}
	if d.store.object.Epoch != epoch {
		t.Fatalf("epoch %d, want %d", d.store.object.Epoch, epoch)
	}
	if err := d.Look(t.Context()); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]*halt.Orders{"the Core": d.Current().Orders, "the store": d.store.object.Orders} {
		if !o.Has(ours) || !o.Has(theirs.ID) || len(o.Active) != 2 {
			t.Errorf("%s has %+v", name, o.Active)
		}
	}
	if d.Current().Epoch <= epoch {
		t.Errorf("sites have epoch %d, and ignore this one: %d", epoch, d.Current().Epoch)
	}
}

// TestAdopt checks that a Core restored from a backup accepts from a site the orders that the store no longer has.
// Orders lifted in the store since the backup do not return.
func TestAdopt(t *testing.T) {
	d := newDesk(t)
	id := d.give("today")
	object := d.Current().Object
	d.page.b, d.book.rows = nil, map[halt.ID]ledger.Halt{}
	restored := *d.store.object
	for name, x := range map[string]struct {
		store func()
		left  int
	}{
		"the store was restored, too": {func() {
			d.store.object, d.store.seen = &repo.HaltObject{Orders: &halt.Orders{}}, 0
			d.store.put(func(*halt.Orders) {})
		}, 1},
		"the store has it":                 {func() {}, 1},
		"it was lifted by the store since": {func() { d.store.put(func(o *halt.Orders) { o.Active = nil }) }, 0},
	} {
		again := restored
		d.store.object, d.store.seen, d.page.b = &again, restored.Epoch, nil
		x.store()
		d.store.seen = 1
		d.open()
		d.store.down = errors.New("away")
		if err := d.Adopt(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		if m := d.active(); len(m) != 1 || m[id].Reason != "today" {
			t.Errorf("%s: %+v", name, m)
		}
		d.store.down = nil
		if err := d.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m := d.active(); len(m) != x.left || len(d.store.object.Orders.Active) != x.left {
			t.Errorf("%s: in force are %+v, the store holds %+v", name, m, d.store.object.Orders)
		}
	}
}

func sameSet(o *halt.Orders, ids ...halt.ID) bool {
	return len(o.Active) == len(ids) && !slices.ContainsFunc(ids, func(id halt.ID) bool { return !o.Has(id) })
}

// TestAdoptIsNoWayBack: a Core without recorded orders knows the store's epoch. A
// site's older object, in which an order is still missing, does not become the
// newest set.
func TestAdoptIsNoWayBack(t *testing.T) {
	d := newDesk(t)
	old, err := d.store.SignHalt(1, &halt.Orders{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		d.store.put(func(*halt.Orders) {})
	}
	d.page.b = nil
	d.open()
	if err := d.Adopt(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if s := d.Current(); s.Object != nil || s.Epoch != d.store.seen {
		t.Errorf("epoch %d is the newest, the store was at %d", s.Epoch, d.store.seen)
	}
}

// TestRecordIsReadLate: the record cannot be read when the Core starts. A new
// order does not replace what it holds, and neither does lifting one.
func TestRecordIsReadLate(t *testing.T) {
	for name, act := range map[string]func(*desk){
		"an order is given":  func(d *desk) { d.give("second") },
		"an order is lifted": func(d *desk) { d.lift(d.give("second")) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.store.down = errors.New("away")
			first := d.give("first")
			kept := slices.Clone(d.page.b)
			d.Close()
			unread := errors.New("input/output error")
			d.page.fail = unread
			d.book.rows = map[halt.ID]ledger.Halt{}
			s, err := halting.Open(t.Context(), halting.Options{
				Repository: func() halting.Repository { return &d.store }, Ledger: &d.book, Record: &d.page, Epoch: d.store.seen, Now: time.Now, Device: time.Now,
				Reopen: func() ([]byte, error) {
					if unread != nil {
						return nil, unread
					}
					return kept, nil
				},
				Changed: func(context.Context, *halting.Set) {}, Failed: func(string, error) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			d.Service = s
			if _, err := d.Give(t.Context(), halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "meanwhile", By: "test", At: 1}); err == nil {
				t.Error("an order counts as recorded while the record cannot be read")
			}
			unread, d.page.fail = nil, nil
			act(d)
			for range 2 { // now, and after another start
				if _, ok := d.active()[first]; !ok {
					t.Fatalf("the recorded order is gone: %v", d.active())
				}
				d.open()
			}
		})
	}
}

// TestDiskHangs: the ledger's disk takes a write and never answers. Halt orders
// are given and lifted all the same.
func TestDiskHangs(t *testing.T) {
	d := newDesk(t)
	free := make(chan struct{})
	d.book.hang = free
	defer close(free)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.lift(d.give("first"))
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the kill switch waits for the disk")
	}
}
