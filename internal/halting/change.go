package halting

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

const (
	// storeTime bounds one write of the store's object, and ledgerGrace one write to the ledger for a caller.
	storeTime   = 8 * time.Second
	ledgerGrace = 500 * time.Millisecond
	// grace bounds how long a caller waits for both: the sites have received the halt order by then.
	grace = 500 * time.Millisecond
)

// Change is the result of giving or lifting halt orders.
type Change struct {
	Orders []halt.Order // given or lifted
	Epoch  uint64
	Store  error // why the store does not have the set yet; the write is retried
}

// Give issues a halt order. It returns both a Change and an error if the order is in force but could not be recorded.
func (s *Service) Give(ctx context.Context, o halt.Order) (*Change, error) {
	return s.changeOrders(ctx, false, func(orders *halt.Orders) ([]halt.Order, error) {
		orders.Add(o)
		return []halt.Order{o}, nil
	}, "")
}

// Lift lifts the orders that which returns; by is the operator's name. It returns ErrNoOrder if which returns none.
func (s *Service) Lift(ctx context.Context, by string, which func(*halt.Orders) ([]halt.Order, error)) (*Change, error) {
	return s.changeOrders(ctx, true, func(orders *halt.Orders) ([]halt.Order, error) {
		list, err := which(orders)
		if err == nil && len(list) == 0 {
			err = ErrNoOrder
		}
		for _, o := range list {
			removeOrder(orders, o.ID)
		}
		return list, err
	}, by)
}

func removeOrder(o *halt.Orders, id halt.ID) {
	o.Active = slices.DeleteFunc(o.Active, func(a halt.Order) bool { return a.ID == id })
}

// changeOrders computes the next set with edit, and puts it into force.
func (s *Service) changeOrders(ctx context.Context, lift bool, edit func(*halt.Orders) ([]halt.Order, error), by string) (*Change, error) {
	ctx = context.WithoutCancel(ctx) // the caller may leave before everything is done
	s.changing.Lock()
	old := s.set.Load()
	orders := &halt.Orders{Active: slices.Clone(old.Orders.Active)}
	changed, err := edit(orders)
	if err != nil {
		s.changing.Unlock()
		return nil, err
	}
	next, err := s.signSet(old.Epoch+1, orders)
	if err != nil {
		s.changing.Unlock()
		return nil, err
	}
	if lift {
		next, err = s.recordSet(next, by)
	}
	if err != nil {
		s.changing.Unlock()
		return nil, fmt.Errorf("record that halt orders are lifted: %w", err)
	}
	s.enterSet(next, by)
	if !lift {
		s.noteGiven(changed)
	}
	s.o.Changed(ctx, next)
	if !lift {
		next, err = s.keepSet(ctx, next, by)
	}
	s.changing.Unlock()
	if err != nil {
		err = fmt.Errorf("the sites have the order, but it could not be recorded here: %w", err)
	}
	return s.awaitSettled(ctx, &Change{Orders: changed, Epoch: next.Epoch}), err
}

// awaitSettled waits briefly until the ledger and the store have a change.
func (s *Service) awaitSettled(ctx context.Context, done *Change) *Change {
	stored := make(chan error, 1)
	s.asides.Go(func() {
		sctx, cancel := context.WithTimeout(ctx, storeTime)
		defer cancel()
		stored <- s.storeSet(sctx)
	})
	written := make(chan struct{})
	s.asides.Go(func() {
		defer close(written)
		lctx, cancel := context.WithTimeout(ctx, ledgerGrace)
		defer cancel()
		s.flushRows(lctx)
	})
	late := time.NewTimer(grace)
	defer late.Stop()
	done.Store = fmt.Errorf("put the orders to stop into the store: it has not answered within %v", grace)
	for range 2 {
		select {
		case done.Store = <-stored:
		case <-written: // its disk may hang regardless of lctx
			written = nil
		case <-late.C:
			return s.withEpoch(done)
		}
	}
	return s.withEpoch(done)
}

func (s *Service) withEpoch(done *Change) *Change {
	done.Epoch = max(done.Epoch, s.set.Load().Epoch)
	return done
}

func (s *Service) signSet(epoch uint64, o *halt.Orders) (*Set, error) {
	object, err := s.o.Repository().SignHalt(epoch, o)
	if err != nil {
		return nil, err
	}
	return &Set{Object: object, Epoch: epoch, Orders: o}, nil
}

// enterSet makes next the newest set. Orders that next adds can now be confirmed; orders that it lacks are lifted. The
// caller holds s.changing.
func (s *Service) enterSet(next *Set, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range next.Orders.Active {
		if r := s.rows[o.ID]; r == nil || !r.Resumed.IsZero() {
			s.rows[o.ID] = newRow(o)
		}
	}
	for id, r := range s.rows {
		if r.Resumed.IsZero() && !next.Orders.Has(id) {
			r.Resumed, r.ResumedBy, r.dirty = s.o.Now().UTC(), by, true
		}
		if !r.Resumed.IsZero() {
			r.stored = next.Stored
		}
		if r.stored && !r.dirty {
			delete(s.rows, id)
		}
	}
	s.set.Store(next)
	s.wakeWriter()
}

// noteGiven notes when orders were given here, more exactly than in the orders themselves. The sites do not have them yet.
func (s *Service) noteGiven(list []halt.Order) {
	now, device := s.o.Now(), s.o.Device()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range list {
		if r := s.rows[o.ID]; r != nil {
			r.given = device
			if now.Unix() == o.At {
				r.At = now.UTC().Truncate(time.Microsecond)
			}
		}
	}
}

// keepSet makes the newest set durable. If that adds orders of an earlier record, the larger set becomes the newest.
// The caller holds s.changing.
func (s *Service) keepSet(ctx context.Context, set *Set, by string) (*Set, error) {
	kept, err := s.recordSet(set, by)
	if kept != set {
		s.enterSet(kept, by)
		s.o.Changed(ctx, kept)
	}
	return kept, err
}

// recordSet makes a set durable and returns it. If the record of an earlier process could not be read before, record
// adds the orders of that process to the set. The caller holds s.changing and may call it before enter.
func (s *Service) recordSet(next *Set, by string) (*Set, error) {
	if s.reopen != nil {
		kept, err := s.reopen()
		if err == nil {
			next, err = s.recallOrders(kept, next)
		}
		if err != nil {
			return next, err
		}
	}
	s.mu.Lock()
	r := recorded{Object: next.Object, Stored: next.Stored, Base: slices.SortedFunc(maps.Keys(s.base), halt.ID.Compare)}
	for id, x := range s.rows {
		if next.Orders.Has(id) {
			continue
		}
		l := x.Halt
		l.Confirmed = nil // the sites confirm again after a restart
		if l.Resumed.IsZero() {
			l.Resumed, l.ResumedBy = s.o.Now().UTC(), by
		}
		r.Lifted = append(r.Lifted, l)
	}
	s.mu.Unlock()
	b, err := json.Marshal(&r)
	if err == nil {
		err = s.o.Record.Write(b)
	}
	if err == nil {
		s.reopen = nil
	}
	return next, err
}

// recallOrders returns next with the orders of a record that was read late.
func (s *Service) recallOrders(kept []byte, next *Set) (*Set, error) {
	if kept == nil {
		return next, nil
	}
	r, h, err := s.readRecord(kept)
	if err != nil {
		return next, err
	}
	merged := &halt.Orders{Active: slices.Clone(next.Orders.Active)}
	s.mu.Lock()
	for _, l := range r.Lifted {
		if s.rows[l.Order] == nil {
			s.rows[l.Order] = &row{Halt: l, dirty: true}
		}
	}
	for _, o := range h.Orders.Active {
		if s.rows[o.ID] == nil { // else next has it, or it is lifted
			merged.Add(o)
		}
	}
	s.mu.Unlock()
	if sameOrders(merged, next.Orders) && h.Epoch < next.Epoch {
		return next, nil
	}
	set, err := s.signSet(max(h.Epoch, next.Epoch)+1, merged)
	if err != nil {
		return next, err
	}
	return set, nil
}

// flushRows writes the missing rows to the ledger.
func (s *Service) flushRows(ctx context.Context) {
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return // the rows stay dirty
	}
	defer func() { <-s.writing }()
	s.mu.Lock()
	var list []ledger.Halt
	for _, r := range s.rows {
		if r.dirty {
			l := r.Halt
			l.Confirmed = slices.Clone(r.Confirmed)
			list = append(list, l)
			r.dirty = false
		}
	}
	s.mu.Unlock()
	if len(list) == 0 {
		return
	}
	err := s.o.Ledger.Keep(ctx, list)
	s.mu.Lock()
	for _, l := range list {
		r := s.rows[l.Order]
		switch {
		case r == nil:
		case err != nil:
			r.dirty = true
		case r.stored && !r.dirty:
			delete(s.rows, l.Order)
		}
	}
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.reportFailure("ledger", err)
	}
}

// Forget removes a site's confirmations of active orders, because another server, or none, is now enrolled for the
// site.
func (s *Service) Forget(ctx context.Context, a wire.Address) error {
	select {
	case s.writing <- struct{}{}: // so that no flush restores them
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.writing }()
	s.mu.Lock()
	for _, r := range s.rows {
		if r.Resumed.IsZero() {
			r.Confirmed = slices.DeleteFunc(slices.Clone(r.Confirmed), func(c ledger.Stop) bool { return c.Domain == a.Domain && c.Site == a.Site })
		}
	}
	s.mu.Unlock()
	return s.o.Ledger.ForgetStops(ctx, a.Domain, a.Site)
}

// List returns the active orders, newest first, and with all also lifted ones. If the history cannot be read, it
// returns the active orders and the error.
func (s *Service) List(ctx context.Context, all bool) ([]ledger.Halt, error) {
	var out []ledger.Halt
	s.mu.Lock()
	for _, r := range s.rows {
		if all || r.Resumed.IsZero() {
			l := r.Halt
			l.Confirmed = slices.Clone(r.Confirmed)
			out = append(out, l)
		}
	}
	s.mu.Unlock()
	var err error
	if all {
		var past []ledger.Halt
		past, err = s.o.Ledger.List(ctx, true)
		for _, l := range past {
			if !l.Resumed.IsZero() && !slices.ContainsFunc(out, func(o ledger.Halt) bool { return o.Order == l.Order }) {
				out = append(out, l)
			}
		}
	}
	slices.SortFunc(out, func(a, b ledger.Halt) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return b.Order.Compare(a.Order)
	})
	return out, err
}

// InStore reports whether the store is known to hold an active order.
func (s *Service) InStore(id halt.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Load().Stored || s.base[id]
}

// Merge returns the union of both sets without the orders that either side has lifted. An order in base that theirs
// lacks was lifted in the store.
func Merge(ours, theirs *halt.Orders, base map[halt.ID]bool, lifted func(halt.ID) bool) *halt.Orders {
	out := &halt.Orders{}
	for _, o := range theirs.Active {
		if ours.Has(o.ID) || !lifted(o.ID) {
			out.Add(o)
		}
	}
	for _, o := range ours.Active {
		if !base[o.ID] {
			out.Add(o)
		}
	}
	return out
}

// mergeOrders merges the newest set with an object from the store or from a site.
func (s *Service) mergeOrders(ours *Set, theirs *repo.HaltObject) *halt.Orders {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.base
	if a := s.adopted; a != nil && theirs.Epoch > a.Epoch { // the store has passed the adopted object
		base = maps.Clone(base)
		for _, o := range a.Orders.Active {
			base[o.ID] = true
		}
	}
	return Merge(ours.Orders, theirs.Orders, base, func(id halt.ID) bool {
		r := s.rows[id]
		return r != nil && !r.Resumed.IsZero()
	})
}

func sameOrders(a, b *halt.Orders) bool {
	return slices.EqualFunc(a.Active, b.Active, func(x, y halt.Order) bool { return x.ID == y.ID })
}
