package core

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// site is what the Core knows of one site while it runs.
type site struct {
	inbox    *inbox
	mu       sync.Mutex
	identity *ledger.Identity // nil: it has none
	key      trust.Public     // of identity
	ended    time.Time        // of the last identity, where it has none now

	process   process // that uses the identity
	refused   string  // why the bus does not accept the identity that the agent has proven to have; empty: it was heard since
	refusedAt time.Time
	seen      time.Time
	spoke     bool // the identity was heard since it was taken, or since the start
	told      bool // the sighting is in the ledger
	sighting  ledger.Sighting
	trust     uint64      // newest document that it has seen
	epoch     uint64      // newest halt that it has seen
	local     *wire.Stop  // given on the site itself; nil: none
	caughtUp  time.Time   // when its newer halt orders were last looked for
	holds     []wire.Held // as last reported
	compared  bool        // holds and the ledger agree
	unproven  []string    // channels of which the Core asks for a new proof
	progress  map[string]query.Progress
	moved     map[string]query.Movement // by channel, of the last run; At is zero once it has ended
	waits     map[string]query.Waiting  // by channel, as the last heartbeat has them
}

// process is a process of an agent.
type process struct {
	id    string    // in hexadecimal; empty: none was heard
	since time.Time // when it was heard first
}

// sites holds all that were heard of or configured.
type sites struct {
	now     func() time.Time
	beat    time.Duration // between a site's signs of life
	started time.Time     // of the Core

	mu  sync.RWMutex
	all map[wire.Address]*site
}

func (s *sites) findSite(a wire.Address) *site {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[a]
}

func (s *sites) siteOf(a wire.Address) *site {
	if x := s.findSite(a); x != nil {
		return x
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[a]
	if x == nil {
		if s.all == nil {
			s.all = map[wire.Address]*site{}
		}
		x = &site{inbox: newInbox(), progress: map[string]query.Progress{}, moved: map[string]query.Movement{}}
		s.all[a] = x
	}
	return x
}

// Site implements query.Sites.
func (s *sites) Site(a wire.Address) (query.Site, bool) {
	x := s.findSite(a)
	if x == nil {
		return query.Site{}, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return query.Site{Connected: s.heardLately(x), Seen: x.seen, Identity: x.identity, Sighting: x.sighting, Halted: x.local, Progress: maps.Clone(x.progress), Stalled: s.stalled(x), Waits: x.waits,
		Refused: x.refused, RefusedAt: x.refusedAt}, true
}

// Halted implements query.Sites.
func (s *sites) Halted() (n int) {
	s.eachSite(func(_ wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.local != nil {
			n++
		}
	})
	return n
}

// enrolledAt returns when a site's present identity was enrolled; zero: it has none.
func (s *sites) enrolledAt(a wire.Address) time.Time {
	x := s.findSite(a)
	if x == nil {
		return time.Time{}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.identity == nil {
		return time.Time{}
	}
	return x.identity.Enrolled
}

// enrolledAs returns the addresses at which a site of that name has an identity: its configured address, or one in the
// domain from which it was moved.
func (s *sites) enrolledAs(name string) (found []wire.Address) {
	s.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if a.Site == name && x.identity != nil {
			found = append(found, a)
		}
	})
	return found
}

func (s *sites) eachSite(fn func(wire.Address, *site)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for a, x := range s.all {
		fn(a, x)
	}
}

// setIdentity makes id the site's identity; nil: it has none any more.
func (x *site) setIdentity(id *ledger.Identity, ended time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spoke = x.spoke && id != nil && x.identity != nil && id.Public == x.identity.Public
	x.identity, x.key, x.ended = nil, trust.Public{}, ended
	if id == nil {
		return nil
	}
	p, err := bus.Ed25519Public(id.Public)
	if err != nil {
		return fmt.Errorf("identity of %s/%s: %w", id.Domain, id.Site, err)
	}
	x.refused = ""
	x.identity, x.process = id, process{id.Process.ID, id.Process.Since}
	copy(x.key[:], p)
	return nil
}

// sightings note when sites were heard, and find the silent ones.
type sightings struct {
	o        *Options
	settings *atomic.Pointer[Settings]
	ledger   sightingRecords
	fleet    *sites
	notices  *notices
	clock    *clocks
	reserve  *reserve
}

// sightingRecords keeps identities and sightings. *ledger.Sites is one.
type sightingRecords interface {
	Identities(ctx context.Context, all bool) ([]ledger.Identity, error)
	Sightings(ctx context.Context) ([]ledger.Sighting, error)
	Seen(ctx context.Context, list []ledger.Sighting) error
}

// loadSightings reads identities and sightings from the ledger.
func (si *sightings) loadSightings(ctx context.Context) error {
	ids, err := si.ledger.Identities(ctx, true)
	if err != nil {
		return err
	}
	for i := range ids {
		x := si.fleet.siteOf(wire.Address{Domain: ids[i].Domain, Site: ids[i].Site})
		switch {
		case ids[i].Ended.IsZero():
			if err := x.setIdentity(&ids[i], time.Time{}); err != nil {
				return err
			}
		case x.identity == nil && ids[i].Ended.After(x.ended):
			x.ended = ids[i].Ended
		}
	}
	if err := si.notices.incidents.Load(ctx); err != nil {
		return err
	}
	seen, err := si.ledger.Sightings(ctx)
	if err != nil {
		return err
	}
	for _, s := range seen {
		x := si.fleet.siteOf(wire.Address{Domain: s.Domain, Site: s.Site})
		x.seen, x.sighting, x.told = s.Seen, s, true
	}
	return nil
}

// noteSighting notes a sign of life. at is the site's clock in Unix milliseconds.
func (si *sightings) noteSighting(a wire.Address, x *site, at int64, change func(*ledger.Sighting)) {
	now := si.clock.now()
	offset := time.UnixMilli(at).Sub(now)
	x.mu.Lock()
	x.seen, x.told, x.spoke, x.refused = si.o.Now(), false, true, ""
	x.sighting.Domain, x.sighting.Site, x.sighting.Seen = a.Domain, a.Site, x.seen
	x.sighting.ClockOffset = offset
	change(&x.sighting)
	x.mu.Unlock()
	si.notices.incidents.Resolve(kinds.Silent, "", a)
	si.notices.incidents.Resolve(kinds.Absent, "", a)
	if offset.Abs() > clockIncident {
		si.notices.incidents.Raise(kinds.Clock, "", a, fmt.Sprintf("the clock of %s is %s from the store's: set it right; above 15 minutes nothing starts there", a, offset.Round(time.Second)))
	} else {
		si.notices.incidents.Resolve(kinds.Clock, "", a)
	}
}

// clockIncident is how far apart clocks may be.
const clockIncident = 2 * time.Minute

// writeSightings writes the latest sightings and finds the silent.
func (si *sightings) writeSightings(ctx context.Context) {
	var list []ledger.Sighting
	var noted []*site
	f := si.settings.Load().Fleet
	now := si.o.Now()
	_, agreed := si.clock.skew.Agreed(si.clock.localTime()) // a wrong clock makes no site absent
	si.fleet.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.told && !x.seen.IsZero() {
			list, noted = append(list, x.sighting), append(noted, x)
			x.told = true
		}
		if s := f.Site(a.Site); s == nil || s.Domain != a.Domain || x.identity == nil {
			return
		}
		last := x.seen
		if last.IsZero() {
			last = x.identity.Enrolled
		}
		if d := now.Sub(last); d > forgetAfter && agreed == nil {
			si.notices.incidents.Raise(kinds.Absent, "", a, fmt.Sprintf("no message from site %s for %d days: it keeps no release in the bucket any more", a, d/(24*time.Hour)))
		}
		// After a start of ours, sites get the time that they need to come back.
		if last.Before(si.fleet.started) {
			last = si.fleet.started
		}
		if d := now.Sub(last); d > si.o.Silent {
			si.notices.incidents.Raise(kinds.Silent, "", a, fmt.Sprintf("no message from site %s for %s: check that the server is up, the agent runs, and its network reaches the Core", a, d.Round(time.Second)))
		}
		si.raiseStalled(a, x)
	})
	if len(list) > 0 {
		if err := si.ledger.Seen(ctx, list); err != nil {
			for _, x := range noted {
				x.mu.Lock()
				x.told = false
				x.mu.Unlock()
			}
			si.notices.LedgerFailed(err)
		} else {
			si.notices.LedgerWorks()
		}
	}
	si.notices.incidents.ResolveExpired()
	si.notices.incidents.Flush(ctx)
	if err := si.reserve.keepReserve(); err != nil {
		si.notices.ReportFailure("state", fmt.Errorf("keep room for the next start: %w", err))
	}
}

func (s *sites) trustOf(a wire.Address) uint64 {
	x := s.findSite(a)
	if x == nil {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.trust
}

// haltSite returns the record of a site under every order, the process that uses its identity, and the order that was given on
// the site itself.
func (s *sites) haltSite(at *fleet.Site) (HaltSite, process, *wire.Stop) {
	x := s.siteOf(wire.Address{Domain: at.Domain, Site: at.Name})
	x.mu.Lock()
	defer x.mu.Unlock()
	return HaltSite{Domain: at.Domain, Site: at.Name, Enrolled: x.identity != nil, Connected: s.heardLately(x), Contested: x.contest()}, x.process, x.local
}

// heardLately reports whether a site was heard lately; x is locked.
func (s *sites) heardLately(x *site) bool {
	return x.spoke && !x.seen.IsZero() && x.seen.After(s.started) && s.now().Sub(x.seen) < s.beat*5/2
}

// isConnected reports whether a site was heard lately.
func (s *sites) isConnected(a wire.Address) bool {
	x := s.siteOf(a)
	x.mu.Lock()
	defer x.mu.Unlock()
	return s.heardLately(x)
}

// isContested reports whether two machines use the site's identity, so that
// nothing can be claimed of it.
func (s *sites) isContested(a wire.Address) bool { return s.contestOf(a) != "" }

// contestOf names the two machines that use the site's identity; it is empty if only one does.
func (s *sites) contestOf(a wire.Address) string {
	x := s.findSite(a)
	if x == nil {
		return ""
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.contest()
}

// contest is contestOf for a locked site.
func (x *site) contest() string {
	if x.identity == nil || x.identity.Contested.IsZero() {
		return ""
	}
	return cmp.Or(x.identity.Contest, "two machines use the identity of the site")
}
