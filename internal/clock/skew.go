package clock

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// Tolerance is how far two clocks may be apart and still agree.
	Tolerance = 2 * time.Minute
	// fresh is how old a comparison may be that proves that two clocks agree.
	fresh = 5 * time.Minute
	// resolution is what a store's answer cannot tell: its dates have whole seconds.
	resolution = 2 * time.Second
)

// ErrNotCompared says that the store's clock was not read lately.
var ErrNotCompared = errors.New("this machine's clock could not be compared with the store's")

// DifferError says that the clocks are too far apart.
type DifferError struct {
	Ahead time.Duration // this machine's clock before the store's
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
// use; the zero Skew knows nothing yet and takes the two to be the same.
type Skew struct{ last atomic.Pointer[pair] }

// pair is what both clocks showed at one moment.
type pair struct {
	local Local
	store Store
}

// Compare takes the date of the store's answer to a request that was sent at
// before and answered at after. An answer without a date tells nothing.
func (s *Skew) Compare(date Store, before, after Local) {
	if date.IsZero() {
		return
	}
	middle := before.Add(after.Sub(before) / 2)
	theirs := date.Add(500 * time.Millisecond)
	if theirs.t.Sub(middle.t).Abs() < resolution {
		theirs = StoreAt(middle.t)
	}
	s.last.Store(&pair{middle, theirs})
}

// Store is the store's time, as well as it is known. A step of the local clock
// does not change it where the local readings carry a monotonic clock.
func (s *Skew) Store(now Local) Store {
	p := s.last.Load()
	if p == nil {
		return StoreAt(now.t)
	}
	return p.store.Add(now.Sub(p.local))
}

// Agreed returns the store's time if a recent comparison proves that this
// machine's clock agrees with it. Whatever deletes by age, and whatever signs
// without being asked, asks for this proof.
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
