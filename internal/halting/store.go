package halting

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nightferry/internal/halt"
	"nightferry/internal/repo"
)

// Look compares the newest set with the store's object. It adopts a newer one, writes one that the store lacks, and
// restores one that the store has lost.
func (s *Service) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if !s.set.Load().Stored {
		return s.storeSet(ctx)
	}
	held := s.heldEpoch()
	h, err := s.o.Repository().Halt(ctx)
	if err == nil && h.Epoch < held {
		err = fmt.Errorf("the store's halt object has epoch %d, it had %d before: %w", h.Epoch, held, repo.ErrOlder)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrOlder) {
		return s.storeAgain(ctx, err)
	}
	if err != nil {
		return err
	}
	if old := s.set.Load(); old.Object != nil && old.Epoch == h.Epoch {
		if sameOrders(old.Orders, h.Orders) {
			return nil
		}
		// After an old state of the bucket was put back, a person's order took an epoch that this Core had used. What
		// the store lacks is not lifted: both sets count.
		s.mu.Lock()
		clear(s.base)
		s.mu.Unlock()
		s.changing.Lock()
		if s.set.Load() == old {
			unstored := *old
			unstored.Stored = false
			s.set.Store(&unstored)
		}
		s.changing.Unlock()
		return s.storeSet(ctx)
	}
	return s.adoptObject(ctx, h, true)
}

// storeAgain writes the newest set after the store's object was removed or replaced by an old one. It returns the
// reason even if the write succeeds.
func (s *Service) storeAgain(ctx context.Context, why error) error {
	s.changing.Lock()
	old := s.set.Load()
	if old.Object == nil {
		s.changing.Unlock()
		return why
	}
	lost := *old
	lost.Stored = false
	s.set.Store(&lost)
	s.changing.Unlock()
	if err := s.storeSet(ctx); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w; the orders in force were stored again: find out who else can write to the bucket", why)
}

// storeSet writes the newest set to the store. It keeps orders that another program has added there.
func (s *Service) storeSet(ctx context.Context) error {
	s.storing.Lock()
	defer s.storing.Unlock()
	set := s.set.Load()
	if set.Stored {
		return nil
	}
	h, err := s.o.Repository().MergeHalt(ctx, func(stored *repo.HaltObject, lost bool) (uint64, error) {
		if lost || stored.Epoch < s.heldEpoch() {
			stored.Orders = &halt.Orders{Active: slices.Clone(set.Orders.Active)}
			return set.Epoch - 1, nil
		}
		stored.Orders = s.mergeOrders(set, stored)
		if sameOrders(stored.Orders, set.Orders) {
			return set.Epoch - 1, nil // the sites have this set under this epoch
		}
		return set.Epoch, nil
	})
	if err != nil {
		err = fmt.Errorf("put the orders to stop into the store: %w", err)
		s.reportFailure("store", err)
		return err
	}
	s.reportFailure("store", nil)
	s.changing.Lock()
	defer s.changing.Unlock()
	s.noteHeld(h)
	if now := s.set.Load(); now != set { // a newer set was made meanwhile and is stored next
		_, err := s.keepSet(ctx, now, "another program")
		return err
	}
	return s.replaceSet(ctx, set, &Set{Object: h.Raw, Epoch: h.Epoch, Orders: h.Orders, Stored: true})
}

// heldEpoch returns the highest epoch that the store is known to have had. An object with a lower one is an old object
// that was put back, whether or not the repository's memory knows the higher epoch.
func (s *Service) heldEpoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// noteHeld records the content of the store's object.
func (s *Service) noteHeld(h *repo.HaltObject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopted, s.held = nil, max(s.held, h.Epoch)
	clear(s.base)
	for _, a := range h.Orders.Active {
		s.base[a.ID] = true
	}
}

// replaceSet makes a set from the store or a site the newest one. The caller holds s.changing.
func (s *Service) replaceSet(ctx context.Context, old, next *Set) error {
	s.enterSet(next, "another program")
	if next.Epoch != old.Epoch || old.Object == nil {
		s.o.Changed(ctx, next)
	}
	_, err := s.keepSet(ctx, next, "another program")
	return err
}

// Adopt accepts a signed object that a site has seen and this Core has not, because the Core and the store were
// restored from a backup. It ignores an object whose epoch is not newer.
func (s *Service) Adopt(ctx context.Context, object []byte) error {
	r := s.o.Repository()
	h, err := r.OpenHalt(object)
	if err == nil {
		err = r.AllowsHalt(object)
	}
	if err != nil {
		return err
	}
	return s.adoptObject(ctx, h, false)
}

func (s *Service) adoptObject(ctx context.Context, h *repo.HaltObject, inStore bool) (err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.set.Load()
	if h.Epoch < old.Epoch || old.Object != nil && h.Epoch == old.Epoch { // an order was given meanwhile; the next write to the store merges both
		return nil
	}
	next := &Set{Object: h.Raw, Epoch: h.Epoch, Orders: h.Orders, Stored: inStore}
	if merged := s.mergeOrders(old, h); !sameOrders(merged, h.Orders) {
		if next, err = s.signSet(h.Epoch+1, merged); err != nil {
			return err
		}
	}
	if inStore {
		s.noteHeld(h)
	} else {
		s.mu.Lock()
		s.adopted = h
		s.mu.Unlock()
	}
	err = s.replaceSet(ctx, old, next)
	if !next.Stored {
		s.wakeWriter()
	}
	return err
}
