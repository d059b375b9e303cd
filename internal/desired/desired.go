// Package desired computes and stores the desired state of every site.
//
// plan is pure. It compares the configuration, the newest releases and the
// requests with the ledger, and returns the rows to set and to drop. The Service
// writes them in one transaction, which gives all of them one revision, and
// keeps each site's present state. A change that concerns one site reads and
// compares only that site's rows.
package desired

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Key names a channel at a site.
type Key struct {
	wire.Address
	Channel string
}

// Request is a one-time sync request for a channel. The zero Request asks for
// an ordinary run.
type Request struct {
	DryRun bool  // report what would move, change nothing
	Rehash bool  // read every byte
	Adopt  bool  // of wire.Desired: fill a target that lost its record
	Now    bool  // also while no window is open
	Check  uint8 // of wire.Desired: a check, which changes nothing
	Verify bool  // the request came from verify

	// An Automatic request does not replace an operator's that the site has not obeyed yet. Obeyed is the
	// newest one that it has.
	Automatic bool
	Obeyed    uint64
}

// Limit is an operator's timetable in place of the configured rates of a site.
type Limit struct {
	Timetable string // empty: the configured rates apply again
	Until     int64  // Unix seconds of the calendar; 0: until it is lifted
}

// World is the input of desired states, apart from the stored rows.
type World struct {
	Fleet     *fleet.Fleet
	Release   func(channel string) (ledger.Release, bool) // the newest
	Nonce     func(k Key, number trust.ReleaseNumber, start uint64) [16]byte
	Beat      time.Duration
	Rehearsal []int64  // of wire.State
	Core      []string // of wire.State
	Now       int64    // Unix seconds of the calendar, by which limits end; 0: not known, none ends
}

// Change is the part of an Update beyond following the World.
type Change struct {
	Only     []string // names of configured sites; nil: all sites, and rows that are no longer configured are dropped
	Requests map[Key]Request
	Withdraw map[Key]uint64 // requests that end, by the number that they gave Start
	Limits   map[wire.Address]Limit
	By       string // actor
}

// Store keeps desired state. *ledger.Ledger is one.
type Store interface {
	DesiredState(ctx context.Context, domain, site string) (*ledger.DesiredState, error)
	ChangeDesired(ctx context.Context, c ledger.DesiredChange) (revision uint64, err error)
	NextRevision(ctx context.Context) (uint64, error)
}

// Stated is the desired state of a site and its revision. At and Halt are not set.
type Stated struct {
	wire.State
	Revision uint64 // 0: never stated
}

// Service keeps the desired state of all sites. It is safe for concurrent use.
type Service struct {
	store  Store
	mu     sync.Mutex // one Update at a time
	behind atomic.Bool

	states sync.Map // Stated, by wire.Address
}

// New returns a Service on store. It is empty until the first Update.
func New(store Store) *Service { return &Service{store: store} }

// Of returns the desired state of a site.
func (s *Service) Of(a wire.Address) Stated {
	if st, ok := s.states.Load(a); ok {
		return st.(Stated)
	}
	return Stated{}
}

// Behind reports whether the last Update failed, so that desired states may be
// out of date.
func (s *Service) Behind() bool { return s.behind.Load() }

// Update computes desired state from the world and the change. It returns the
// sites whose state has changed.
func (s *Service) Update(ctx context.Context, w World, c Change) (changed []wire.Address, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.behind.Store(err != nil) }()
	sites, stored, err := s.readStored(ctx, &w, c.Only)
	if err != nil {
		return nil, err
	}
	var start uint64
	if len(c.Requests) > 0 {
		// A number per row would restart at 1 when a channel returns to the
		// configuration, and the site would ignore the request.
		if start, err = s.store.NextRevision(ctx); err != nil {
			return nil, err
		}
	}
	p, err := makePlan(&w, sites, stored, &c, start)
	if err != nil {
		return nil, err
	}
	var revision uint64
	if !p.change.Empty() {
		if revision, err = s.store.ChangeDesired(ctx, p.change); err != nil {
			return nil, err
		}
	}
	for a, st := range p.states {
		now := Stated{State: *st, Revision: stored.Revisions[ledger.SiteKey{Domain: a.Domain, Site: a.Site}]}
		if p.touched[a] {
			now.Revision = revision
		}
		old := s.Of(a)
		s.states.Store(a, now)
		if old.Revision != now.Revision || old.Beat != now.Beat {
			changed = append(changed, a)
		}
	}
	if c.Only == nil {
		s.forgetStates(p.states)
	}
	return changed, nil
}

// readStored returns the configured sites of an Update and their rows.
func (s *Service) readStored(ctx context.Context, w *World, only []string) ([]*fleet.Site, *ledger.DesiredState, error) {
	var sites []*fleet.Site
	if only == nil {
		for i := range w.Fleet.Sites {
			sites = append(sites, &w.Fleet.Sites[i])
		}
		stored, err := s.store.DesiredState(ctx, "", "")
		return sites, stored, err
	}
	all := &ledger.DesiredState{Revisions: map[ledger.SiteKey]uint64{}, Limits: map[ledger.SiteKey]ledger.Limit{}}
	for _, name := range only {
		site := w.Fleet.Site(name)
		if site == nil || slices.Contains(sites, site) {
			continue
		}
		one, err := s.store.DesiredState(ctx, site.Domain, site.Name)
		if err != nil {
			return nil, nil, err
		}
		sites = append(sites, site)
		all.Add(one)
	}
	return sites, all, nil
}

// forgetStates drops the states of sites that are no longer configured.
func (s *Service) forgetStates(configured map[wire.Address]*wire.State) {
	s.states.Range(func(a, _ any) bool {
		if configured[a.(wire.Address)] == nil {
			s.states.Delete(a)
		}
		return true
	})
}
