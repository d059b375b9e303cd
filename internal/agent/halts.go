package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/seal"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// halts are the halt orders in force here and the state of obeying them. They
// are guarded by agent.mu.
type halts struct {
	orders   *halt.Orders // of the Core; nil: none received
	epoch    uint64
	object   []byte               // the signed object of orders
	local    *halt.Order          // given on this site, and lifted only here; nil: none
	stops    map[halt.ID]*stop    // by halt order; the zero ID is the local one
	was      map[string]bool      // channels that a halt order of the Core stopped at the last look
	failSafe error                // why everything stops without a halt order; nil: nothing is wrong
	heard    time.Time            // when the newest proof of a live Core arrived: see alive
	proved   int64                // the time in that proof
	after    map[string]time.Time // channels whose halt order was lifted: they do not start before
	newest   uint64               // epoch of orders; epoch is the newest that is durable
	unkept   bool                 // orders are obeyed, but not durable yet, so they are not confirmed

	keeping sync.Mutex // held while orders are made durable: both paths may bring orders at once
	localAt time.Time  // of local, to the nanosecond
	answers *confirmations
}

// stop is a halt order that applies to this site.
type stop struct {
	wire.Stop
	waits int // jobs that it ends and that are still moving
}

// pending links a job to a stop.
type pending struct {
	stop *stop
	from int64 // bytes that the job had moved when the halt order arrived
}

// obeyHalts handles the halt object that arrived with a state.
func (a *agent) obeyHalts(ctx context.Context, object []byte) error {
	if len(object) == 0 {
		return nil
	}
	_, err := a.takeHalts(ctx, object)
	if kept := (spoolError{}); errors.As(err, &kept) {
		return kept.error
	}
	if err != nil {
		return a.forged(ctx, err)
	}
	return nil
}

// takeHalts handles a halt object. If it is newer than the known one, takeHalts
// stops every affected run at once, because making the object durable may be
// slow on a busy disk. The object is confirmed, and counted as seen, only when
// it is durable. takeHalts returns its epoch.
func (a *agent) takeHalts(ctx context.Context, object []byte) (epoch uint64, err error) {
	arrived := a.moved()
	s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, object)
	if err == nil {
		err = s.Verify(trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: a.id.Repo, Number: s.Subject.Number})
	}
	if err == nil {
		a.mu.Lock()
		err = a.chain.AllowHalt(s.Signer)
		a.mu.Unlock()
	}
	if err != nil {
		return 0, fmt.Errorf("halt: %w", err)
	}
	epoch = s.Subject.Number
	a.mu.Lock()
	known := a.orders != nil && (epoch < a.newest || epoch == a.newest && !a.unkept)
	a.mu.Unlock()
	if known {
		return epoch, nil
	}
	orders, err := a.readOrders(s)
	if err != nil {
		return epoch, err
	}
	a.mu.Lock()
	if a.orders == nil || epoch > a.newest { // the other path may have been faster
		a.orders, a.object, a.newest, a.unkept = orders, object, epoch, true
		a.halting(arrived)
	}
	a.mu.Unlock()
	a.keeping.Lock()
	defer a.keeping.Unlock()
	a.mu.Lock()
	late := epoch < a.newest
	a.mu.Unlock()
	if late {
		return epoch, nil // the spool accepts nothing older than its own
	}
	if err := a.spool.Keep(ctx, spool.Halt, spool.Numbered{Number: epoch, Object: object}); err != nil {
		return epoch, spoolError{err} // obeyed all the same, and it will be sent again
	}
	a.mu.Lock()
	a.epoch = max(a.epoch, epoch)
	a.unkept = a.unkept && a.epoch < a.newest
	a.mu.Unlock()
	a.work.wake()
	a.answers.changed.wake()
	return epoch, nil
}

// readOrders returns the halt orders of an object whose signature was checked.
func (a *agent) readOrders(s *trust.Signed) (*halt.Orders, error) {
	payload, err := a.openHalt(s.Payload)
	if err != nil {
		return nil, fmt.Errorf("halt: %w", err)
	}
	return halt.Decode(payload)
}

func (a *agent) openHalt(payload []byte) ([]byte, error) {
	if a.id.repo == nil {
		return payload, nil
	}
	if len(payload) < seal.SaltSize {
		return nil, fmt.Errorf("sealed payload of %d bytes: %w", len(payload), frame.ErrDamaged)
	}
	keys, err := seal.NewKeys(a.id.repo, a.id.Repo)
	if err != nil {
		return nil, err
	}
	obj, err := keys.Object(halt.Kind, payload[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return obj.Open(nil, payload[seal.SaltSize:], 0)
}

// subject returns this site's attributes that halt orders match. The region is
// the latest one from the Core: the configuration may have moved the site since
// its enrollment. The caller holds a.mu.
func (a *agent) subject(channel string) halt.Subject {
	s := halt.Subject{Region: a.id.Region, Domain: a.id.Domain, Site: a.id.Site, Channel: channel}
	if a.state != nil && a.state.Region != "" {
		s.Region = a.state.Region
	}
	return s
}

// moved returns the bytes that each running job has fetched so far.
func (a *agent) moved() map[*job]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := make(map[*job]int64, len(a.running))
	for _, j := range a.running {
		m[j] = j.moved.Load()
	}
	return m
}

// halting makes the running jobs obey the halt orders in force. arrived has the
// bytes that each had moved when the newest arrived. The caller holds a.mu.
func (a *agent) halting(arrived map[*job]int64) {
	active := map[halt.ID]halt.Order{}
	if a.local != nil {
		active[halt.ID{}] = *a.local
	}
	if a.orders != nil {
		for _, o := range a.orders.Active {
			if a.concerns(o) {
				active[o.ID] = o
			}
		}
	}
	for id := range a.stops {
		if _, ok := active[id]; !ok {
			delete(a.stops, id)
		}
	}
	now := a.proofTime()
	for id, o := range active {
		if a.stops[id] != nil {
			continue
		}
		s := &stop{Stop: wire.Stop{Order: id, Heard: now}}
		if id.IsZero() {
			s.By, s.Reason = o.By, o.Reason
		}
		a.stops[id] = s
		for channel, j := range a.running {
			if !stops(o, a.subject(channel)) {
				continue
			}
			from, ok := arrived[j]
			if !ok {
				from = j.moved.Load()
			}
			j.stops = append(j.stops, pending{s, from})
			s.waits++
			j.stop(&halt.Error{Order: o})
		}
		if s.waits == 0 {
			s.At = now
		}
	}
	a.answers.changed.wake()
	a.spread()
}

// proofTime returns the time of a stop in Unix milliseconds, by the store's
// clock. If the clocks agree within the store's whole seconds, it uses the
// site's clock.
func (c *session) proofTime() int64 {
	now, theirs := c.o.Now(), c.storeNow()
	if theirs.Sub(now).Abs() <= 2*time.Second {
		return now.UnixMilli()
	}
	return theirs.UnixMilli()
}

// concerns reports whether a halt order stops any channel of this site.
func (a *agent) concerns(o halt.Order) bool {
	if stops(o, a.subject("")) {
		return true
	}
	if o.Scope != halt.Channel {
		return false
	}
	return desired(a.state, o.Value) != nil || a.running[o.Value] != nil
}

func stops(o halt.Order, s halt.Subject) bool {
	return (&halt.Orders{Active: []halt.Order{o}}).Find(s) != nil
}

// spread prevents a fleet from starting all at once after a halt order was
// lifted: each channel of each site waits a little, at random.
func (a *agent) spread() {
	if a.state == nil {
		return
	}
	within := a.o.Spread
	if a.night != nil {
		within = max(a.night.motion.Real(within), 1)
	}
	for _, d := range a.state.Desired {
		now := a.orders != nil && a.orders.Find(a.subject(d.Channel)) != nil
		if a.was[d.Channel] && !now {
			a.after[d.Channel] = a.o.Now().Add(rand.N(within))
		}
		a.was[d.Channel] = now
	}
}

// orderOf returns the halt order of an ID that is in force, or nil. The zero ID
// is the local one. The caller holds a.mu.
func (a *agent) orderOf(id halt.ID) *halt.Order {
	if id.IsZero() {
		return a.local
	}
	if a.orders != nil {
		for i := range a.orders.Active {
			if a.orders.Active[i].ID == id {
				return &a.orders.Active[i]
			}
		}
	}
	return nil
}

// halted returns the halt order that stops a channel, or nil.
func (a *agent) halted(channel string) *halt.Order {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.haltedNow(channel)
}

// haltedNow is halted for callers that hold a.mu.
func (a *agent) haltedNow(channel string) *halt.Order {
	if a.local != nil {
		return a.local
	}
	if a.orders == nil {
		return nil
	}
	return a.orders.Find(a.subject(channel))
}

// still notes that a job has stopped moving. The caller holds a.mu.
func (a *agent) still(j *job) {
	now := a.proofTime()
	for _, p := range j.stops {
		p.stop.Bytes += j.moved.Load() - p.from
		if p.stop.waits--; p.stop.waits == 0 {
			p.stop.At = now
			a.answers.changed.wake()
		}
	}
	j.stops = nil
}

// rest notes the bytes of a stopped job and closes its connections.
func (a *agent) rest(j *job) {
	a.mu.Lock()
	a.still(j)
	idle := len(a.running) <= 1
	a.mu.Unlock()
	if idle {
		_ = bucket.Close(a.store) // idle connections only; this cannot fail for the agent's own store
	}
}

// rememberHalts restores the halt orders that an earlier process has accepted.
func (a *agent) rememberHalts(ctx context.Context) error {
	kept, err := a.spool.Kept(ctx, spool.Halt)
	if err != nil {
		return err
	}
	if len(kept.Object) > 0 {
		// It was checked when it was accepted; its signer may have been retired since.
		s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, kept.Object)
		if err == nil {
			a.orders, err = a.readOrders(s)
		}
		if err != nil {
			return fmt.Errorf("the halts that were kept: %w", err)
		}
		a.object, a.epoch, a.newest = kept.Object, kept.Number, kept.Number
	}
	if kept, err = a.spool.Kept(ctx, spool.Stops); err != nil {
		return err
	}
	var m wire.Stopped
	if len(kept.Object) > 0 {
		if err := wire.Decode(kept.Object, &m); err != nil {
			return fmt.Errorf("the stops that were kept: %w", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.readLocal()
	for _, s := range m.Orders {
		if o := a.orderOf(s.Order); o != nil && (!s.Order.IsZero() || s.Heard/1000 >= o.At) {
			a.stops[s.Order] = &stop{Stop: s}
		}
	}
	a.halting(nil)
	return nil
}
