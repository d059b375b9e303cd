// Package halting is the Core's half of the kill switch. It owns the set of active halt orders, the newest signed
// object with that set, and the confirmations of the sites.
//
// A new halt order is sent to the sites before it is written, because a disk or a store may be slow. A lifted order is
// made durable first. The record is authoritative: one file with preallocated space, so that halts work even while the
// Core's volume is full. The ledger gets the same rows as soon as it can store them, and the store gets the object as
// soon as it is reachable. Current waits for neither.
//
// Sets are merged by union, less the lifted orders. The epoch only shows which of two objects is newer; it never
// decides a merge.
package halting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

// Repository signs halt objects and keeps them in the store.
type Repository interface {
	SignHalt(epoch uint64, o *halt.Orders) ([]byte, error)
	OpenHalt(object []byte) (*repo.HaltObject, error)
	AllowsHalt(object []byte) error
	Halt(ctx context.Context) (*repo.HaltObject, error)
	MergeHalt(ctx context.Context, change func(stored *repo.HaltObject, lost bool) (floor uint64, err error)) (*repo.HaltObject, error)
}

// Ledger stores the history of orders and confirmations.
type Ledger interface {
	List(ctx context.Context, all bool) ([]ledger.Halt, error)
	Keep(ctx context.Context, list []ledger.Halt) error
	ForgetStops(ctx context.Context, domain, site string) error
}

// Record stores one value, even while the volume is full.
type Record interface {
	Write([]byte) error
}

// MaxRecord bounds the size of the record in bytes.
const MaxRecord = 2 << 20

// Options of a Service. All but Reopen are required.
type Options struct {
	Repository func() Repository // returns the repository in use now
	Ledger     Ledger
	Record     Record
	Recorded   []byte // content of Record; nil: nothing yet
	// Reopen reads the content of Record if that failed for Recorded. Nothing is
	// written until it succeeds. Nil: Recorded is complete.
	Reopen func() ([]byte, error)
	Epoch  uint64           // highest epoch seen in the store
	Now    func() time.Time // the store's time, as well as it is known
	Device func() time.Time // this machine's clock, which measures how long a site took

	// Changed is called with each newer set. It sends the set to the sites and ends matching runs on this machine. A
	// set that lifts no order is passed before it is recorded.
	Changed func(ctx context.Context, s *Set)
	// Failed reports a failure that is being retried; what is "ledger" or
	// "store". If err is nil, the retry succeeded.
	Failed func(what string, err error)
}

// Set is one set of active orders. It is immutable.
type Set struct {
	Object []byte // signed; nil: no object was created or read yet
	Epoch  uint64
	Orders *halt.Orders
	Stored bool // the store has it
}

// Find returns the oldest order that stops s, or nil.
func (s *Set) Find(x halt.Subject) *halt.Order { return s.Orders.Find(x) }

// ErrNoOrder means that no active halt order matches.
var ErrNoOrder = errors.New("no such order to stop is active")

// Service is safe for concurrent use.
type Service struct {
	o   Options
	set atomic.Pointer[Set]

	changing sync.Mutex    // held for one change of the set, never during a remote call
	storing  sync.Mutex    // held by the one writer of the store's object
	writing  chan struct{} // holds a value while the one writer of the ledger's rows works

	reopen func() ([]byte, error) // Options.Reopen until it has succeeded; guarded by changing

	mu      sync.Mutex
	rows    map[halt.ID]*row // active orders, and others that the ledger or the store lacks
	base    map[halt.ID]bool // the orders in the store when it was last read
	held    uint64           // highest epoch that the store is known to have had
	adopted *repo.HaltObject // a newer object that a site had and the store did not
	failing map[string]bool  // failures that Failed has reported
	wake    chan struct{}    // signals rows for the ledger or a set for the store
	asides  sync.WaitGroup   // writes to the store that a caller no longer waits for
}

// row is a halt order as stored in the ledger.
type row struct {
	ledger.Halt
	dirty  bool      // the ledger lacks part of it
	stored bool      // lifted, and the store has a set without it
	given  time.Time // when this process gave it, by Device; zero: another one did
}

// recorded is the record's content.
type recorded struct {
	Object []byte        `json:"object"`
	Stored bool          `json:"stored"`
	Base   []halt.ID     `json:"base,omitempty"`
	Lifted []ledger.Halt `json:"lifted,omitempty"` // the ledger or the store may not have these yet
}

// Open restores the state that an earlier process recorded. If the record is unusable, it returns an error and a
// service, which has no orders until Look has read the store.
func Open(ctx context.Context, o Options) (*Service, error) {
	s := &Service{o: o, reopen: o.Reopen, writing: make(chan struct{}, 1), rows: map[halt.ID]*row{}, base: map[halt.ID]bool{}, held: o.Epoch, failing: map[string]bool{}, wake: make(chan struct{}, 1)}
	s.set.Store(&Set{Epoch: o.Epoch, Orders: &halt.Orders{}, Stored: true})
	err := s.restoreRecord()
	list, lerr := o.Ledger.List(ctx, false)
	if lerr != nil {
		return s, errors.Join(err, fmt.Errorf("read the confirmations of halt orders: %w", lerr))
	}
	for _, l := range list {
		if r := s.rows[l.Order]; r != nil {
			r.At, r.Confirmed, r.dirty = l.At, l.Confirmed, r.dirty && !r.Resumed.IsZero()
		}
	}
	return s, err
}

func (s *Service) restoreRecord() error {
	if s.o.Recorded == nil {
		return nil
	}
	r, h, err := s.readRecord(s.o.Recorded)
	if err != nil {
		return err
	}
	for _, id := range r.Base {
		s.base[id] = true
	}
	if r.Stored {
		s.held = max(s.held, h.Epoch)
	}
	for _, l := range r.Lifted {
		s.rows[l.Order] = &row{Halt: l, dirty: true, stored: r.Stored}
	}
	for _, o := range h.Orders.Active {
		s.rows[o.ID] = newRow(o)
	}
	s.set.Store(&Set{Object: h.Raw, Epoch: h.Epoch, Orders: h.Orders, Stored: r.Stored})
	return nil
}

func (s *Service) readRecord(b []byte) (r recorded, h *repo.HaltObject, err error) {
	if err = json.Unmarshal(b, &r); err == nil {
		h, err = s.o.Repository().OpenHalt(r.Object)
	}
	if err != nil {
		return r, nil, fmt.Errorf("the recorded halt orders: %w", err)
	}
	return r, h, nil
}

func newRow(o halt.Order) *row {
	return &row{dirty: true, Halt: ledger.Halt{Order: o.ID, Scope: o.Scope, Value: o.Value, Reason: o.Reason, By: o.By, At: time.Unix(o.At, 0).UTC()}}
}

// Current returns the newest set.
func (s *Service) Current() *Set { return s.set.Load() }

// Close waits for writes to the store whose callers have stopped waiting.
func (s *Service) Close() { s.asides.Wait() }

// Run writes rows to the ledger and retries after failures, until ctx ends. Look writes to the store.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-t.C:
			s.rereadRecord(ctx)
		}
		s.flushRows(ctx)
	}
}

// rereadRecord tries to read the record that Open could not read.
func (s *Service) rereadRecord(ctx context.Context) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.reopen != nil {
		_, _ = s.keepSet(ctx, s.set.Load(), "another program") // tried again
	}
}

func (s *Service) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// reportFailure reports the start and the end of a failure.
func (s *Service) reportFailure(what string, err error) {
	s.mu.Lock()
	news := (err != nil) != s.failing[what]
	s.failing[what] = err != nil
	s.mu.Unlock()
	if news {
		s.o.Failed(what, err)
	}
}

// Confirm records that a process of a site obeys halt orders. The first confirmation of a process counts. That of another
// process replaces it; the time of the stop stays if the site's record of it was passed on. An order can be confirmed as
// soon as it may have reached a site.
func (s *Service) Confirm(a wire.Address, process string, list []wire.Stop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		r := s.rows[list[i].Order]
		if r == nil {
			continue
		}
		c := s.stopOf(r, a, process, &list[i])
		n := slices.IndexFunc(r.Confirmed, func(c ledger.Stop) bool { return c.Domain == a.Domain && c.Site == a.Site })
		switch {
		case n < 0:
			r.Confirmed = append(r.Confirmed, c)
		case r.Confirmed[n].Process == process:
			continue
		case r.Confirmed[n].Said.Equal(c.Said):
			r.Confirmed[n].Process, r.Confirmed[n].Confirmed = process, c.Confirmed
		default:
			r.Confirmed[n] = c
		}
		r.dirty = true
		s.wakeWriter()
	}
}

// stopOf returns the record of a confirmation. The site's clock gives the time of the stop, as far as the order's own
// course allows: not before the order was given, and not after the confirmation was sent.
func (s *Service) stopOf(r *row, a wire.Address, process string, v *wire.Stop) ledger.Stop {
	now := s.o.Now().UTC().Truncate(time.Microsecond) // as the ledger keeps it
	within := now.Sub(r.At)
	if !r.given.IsZero() {
		within = s.o.Device().Sub(r.given) // a clock that was set since does not count
	}
	if within >= 0 {
		within = max(0, within-time.Duration(v.Ago)*time.Millisecond)
	}
	c := ledger.Stop{Domain: a.Domain, Site: a.Site, Said: time.UnixMilli(v.At).UTC(), BytesAfter: v.Bytes, Confirmed: now, Within: ledger.Seconds(within), Process: process}
	c.Stopped = c.Said
	if end := r.At.Add(within); within >= 0 && c.Stopped.After(end) {
		c.Stopped = end
	}
	if c.Stopped.Before(r.At) {
		c.Stopped = r.At
	}
	return c
}
