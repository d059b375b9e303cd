package clock

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// Tolerance is the maximum difference between two clocks that agree.
	Tolerance = 2 * time.Minute
	// fresh is the maximum age of a comparison that proves agreement.
	fresh = 5 * time.Minute
	// resolution bounds the error of a store's date, which has whole seconds.
	resolution = 2 * time.Second
)

// ErrNotCompared reports that the store's clock was not read recently.
var ErrNotCompared = errors.New("this machine's clock could not be compared with the store's")

// DifferError reports that the clocks are too far apart.
type DifferError struct {
	Ahead time.Duration // this machine's clock minus the store's
	Store Store
}

func (e *DifferError) Error() string {
	way := "ahead of"
	if e.Ahead < 0 {
		way = "behind"
	}
	return fmt.Sprintf("this machine's clock is %s %s the store's, which shows %s", e.Ahead.Abs().Round(time.Second), way, e.Store.t.UTC().Format(time.RFC3339))
}

// Skew relates the store's clock to this machine's. It is safe for concurrent
// use. The zero Skew assumes that both clocks are equal.
type Skew struct{ last atomic.Pointer[pair] }

// pair is a reading of both clocks at one moment.
type pair struct {
	local Local
	store Store
}

// Compare takes the date of a response to a request that was sent at before;
// the response arrived at after. It ignores a response without a date, and one that took longer than Tolerance: the
// clock may have been set meanwhile, or the store may have dated it early or late.
func (s *Skew) Compare(date Store, before, after Local) {
	if took := after.Sub(before); date.IsZero() || took.Abs() > Tolerance {
		return
	}
	middle := before.Add(after.Sub(before) / 2)
	theirs := date.Add(500 * time.Millisecond)
	if theirs.t.Sub(middle.t).Abs() < resolution {
		theirs = StoreAt(middle.t)
	}
	s.last.Store(&pair{middle, theirs})
}

// Store returns the best estimate of the store's time. If the local readings
// carry a monotonic clock, a step of the local clock does not change it.
func (s *Skew) Store(now Local) Store {
	p := s.last.Load()
	if p == nil {
		return StoreAt(now.t)
	}
	return p.store.Add(now.Sub(p.local))
}

// Compared reports whether the clocks were compared at all, so that Store is the store's time.
func (s *Skew) Compared() bool { return s.last.Load() != nil }

// Agreed returns the store's time if a recent comparison proves that this
// machine's clock agrees with it. Code that deletes by age, or that signs
// automatically, requires this proof.
func (s *Skew) Agreed(now Local) (Store, error) {
	p := s.last.Load()
	if p == nil || now.Sub(p.local).Abs() > fresh {
		return Store{}, ErrNotCompared
	}
	theirs := s.Store(now)
	if ahead := now.t.Sub(theirs.t); ahead.Abs() > Tolerance {
		return Store{}, &DifferError{ahead, theirs}
	}
	return theirs, nil
}
