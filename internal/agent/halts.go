package agent

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/seal"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// haltState holds the halt orders in force on this site and the state of obeying them. It stops the jobs that are
// registered with begin. It calls nothing of the runner, so the runner may call it with its own lock held.
type haltState struct {
	s     *session
	work  signal // woken when a channel may start, or must not
	keys  *keyring
	beat  func(context.Context) error // asks the Core for a sign of life
	store bucket.Store
	urls  *urls

	answers *confirmations
	keeping sync.Mutex // held while orders are made durable: both paths may bring orders at once

	mu       sync.Mutex      // everything below, and job.stops
	jobs     map[string]*job // by channel
	region   string          // of the newest state; empty: that of the enrollment
	channels []string        // of the newest state
	motion   window.Motion   // of the newest state

	orders   *halt.Orders // of the Core; nil: none received
	epoch    uint64
	object   []byte               // the signed object of orders
	local    *halt.Order          // given on this site, and lifted only here; nil: none
	localAt  time.Time            // of local, to the nanosecond
	stops    map[halt.ID]*stop    // by halt order; the zero ID is the local one
	was      map[string]bool      // channels that a halt order of the Core stopped at the last look
	failSafe error                // why everything stops without a halt order; nil: nothing is wrong
	heard    time.Time            // when the newest proof of a live Core arrived: see alive
	proved   int64                // the time in that proof
	after    map[string]time.Time // channels whose halt order was lifted: they do not start before
	newest   uint64               // epoch of orders; epoch is the newest that is durable
	unkept   bool                 // orders are obeyed, but not durable yet, so they are not confirmed
}

func newHaltState(s *session, work signal) *haltState {
	return &haltState{s: s, work: work, answers: newConfirmations(s.o.Now()), jobs: map[string]*job{},
		stops: map[halt.ID]*stop{}, was: map[string]bool{}, after: map[string]time.Time{}}
}

// beginJob registers a channel's job, unless a halt order or the fail-safe stops the channel. The job's stop must be set.
func (h *haltState) beginJob(channel string, j *job) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.haltedNow(channel) != nil || h.failSafe != nil {
		return false
	}
	h.jobs[channel] = j
	return true
}

// endJob removes a job that has ended.
func (h *haltState) endJob(channel string, j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.markStill(j)
	delete(h.jobs, channel)
}

// restJob notes that a job has stopped moving. It reports whether there is no other job.
func (h *haltState) restJob(j *job) (alone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.markStill(j)
	return len(h.jobs) <= 1
}

// updateSite takes the attributes of a new state that halt orders match.
func (h *haltState) updateSite(v *wire.State, motion window.Motion) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.region, h.motion, h.channels = v.Region, motion, h.channels[:0]
	for i := range v.Desired {
		h.channels = append(h.channels, v.Desired[i].Channel)
	}
	h.stopHalted(nil) // a channel that is new here may be halted
}

// failSafeReason returns why everything stops without a halt order, or nil.
func (h *haltState) failSafeReason() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failSafe
}

// durableEpoch returns the epoch of the newest durable halt object.
func (h *haltState) durableEpoch() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// startsAfter returns when a channel whose halt order was lifted may start.
func (h *haltState) startsAfter(channel string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.after[channel]
}

// subjectOf is haltSubject for callers that do not hold h.mu.
func (h *haltState) subjectOf(channel string) halt.Subject {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.haltSubject(channel)
}

// stop is a halt order that applies to this site.
type stop struct {
	wire.Stop
	waits int       // jobs that it ends and that are still moving
	still time.Time // when this process has stopped, by the site's clock; zero: it has not, or an earlier process had
}

// pending links a job to a stop.
type pending struct {
	stop *stop
	from int64 // bytes that the job had moved when the halt order arrived
}

// takeHalts handles a halt object. If it is newer than the known one, takeHalts
// stops every affected run at once, because making the object durable may be
// slow on a busy disk. The object is confirmed, and counted as seen, only when
// it is durable. takeHalts returns its epoch.
func (h *haltState) takeHalts(ctx context.Context, object []byte) (epoch uint64, err error) {
	arrived := h.movedBytes()
	s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, object)
	if err == nil {
		err = s.Verify(haltOf(h.s.id.Repo, s))
	}
	if err == nil {
		err = h.keys.allowHalt(s.Signer)
	}
	if err != nil {
		return 0, fmt.Errorf("halt: %w", err)
	}
	epoch = s.Subject.Number
	h.mu.Lock()
	known := h.orders != nil && (epoch < h.newest || epoch == h.newest && !h.unkept && bytes.Equal(object, h.object))
	h.mu.Unlock()
	if known {
		return epoch, nil
	}
	orders, err := h.readOrders(s)
	if err != nil {
		return epoch, err
	}
	h.mu.Lock()
	switch {
	case h.orders == nil || epoch > h.newest: // the other path may have been faster
		h.orders, h.object, h.newest, h.unkept = orders, object, epoch, true
		h.stopHalted(arrived)
	case epoch == h.newest && !bytes.Equal(object, h.object):
		if h.unkept && slices.Equal(orders.Active, h.orders.Active) {
			h.object = object // of an encrypted repository: the same in other bytes
			break
		}
		// The Core died before the store had its object, and a person gave orders to the store with the same epoch.
		// Neither object contains the other's orders, so both count until a newer object lifts them. Only one can be
		// kept; the store is read again after a restart.
		all := &halt.Orders{Active: slices.Clone(h.orders.Active)}
		all.Add(orders.Active...)
		news := len(all.Active) > len(h.orders.Active)
		if news {
			h.orders = all
			h.stopHalted(arrived)
		}
		h.mu.Unlock()
		if news {
			h.work.wake()
		}
		return epoch, nil
	}
	h.mu.Unlock()
	h.keeping.Lock()
	defer h.keeping.Unlock()
	h.mu.Lock()
	late := epoch < h.newest
	h.mu.Unlock()
	if late {
		return epoch, nil // the spool accepts nothing older than its own
	}
	if err := h.s.spool.Keep(ctx, spool.Halt, spool.Numbered{Number: epoch, Object: object}); err != nil {
		return epoch, spoolError{err} // obeyed all the same, and it will be sent again
	}
	h.mu.Lock()
	h.epoch = max(h.epoch, epoch)
	h.unkept = h.unkept && h.epoch < h.newest
	h.mu.Unlock()
	h.work.wake()
	h.answers.changed.wake()
	return epoch, nil
}

// readOrders returns the halt orders of an object whose signature was checked.
func (h *haltState) readOrders(s *trust.Signed) (*halt.Orders, error) {
	payload, err := h.openHalt(s.Payload)
	if err != nil {
		return nil, fmt.Errorf("halt: %w", err)
	}
	return halt.Decode(payload)
}

func (h *haltState) openHalt(payload []byte) ([]byte, error) {
	if h.s.id.repo == nil {
		return payload, nil
	}
	if len(payload) < seal.SaltSize {
		return nil, fmt.Errorf("sealed payload of %d bytes: %w", len(payload), frame.ErrDamaged)
	}
	keys, err := seal.NewKeys(h.s.id.repo, h.s.id.Repo)
	if err != nil {
		return nil, err
	}
	obj, err := keys.Object(halt.Kind, payload[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return obj.Open(nil, payload[seal.SaltSize:], 0)
}

// haltSubject returns this site's attributes that halt orders match. The region is
// the latest one from the Core: the configuration may have moved the site since
// its enrollment. The caller holds h.mu.
func (h *haltState) haltSubject(channel string) halt.Subject {
	s := halt.Subject{Region: h.s.id.Region, Domain: h.s.id.Domain, Site: h.s.id.Site, Channel: channel}
	if h.region != "" {
		s.Region = h.region
	}
	return s
}

// movedBytes returns the bytes that each running job has fetched so far.
func (h *haltState) movedBytes() map[*job]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := make(map[*job]int64, len(h.jobs))
	for _, j := range h.jobs {
		m[j] = j.moved.Load()
	}
	return m
}

// stopHalted makes the running jobs obey the halt orders in force. arrived has the
// bytes that each had moved when the newest arrived. The caller holds h.mu.
func (h *haltState) stopHalted(arrived map[*job]int64) {
	active := map[halt.ID]halt.Order{}
	if h.local != nil {
		active[halt.ID{}] = *h.local
	}
	if h.orders != nil {
		for _, o := range h.orders.Active {
			if h.concernsSite(o) {
				active[o.ID] = o
			}
		}
	}
	for id := range h.stops {
		if _, ok := active[id]; !ok {
			delete(h.stops, id)
		}
	}
	now := h.s.proofTime()
	for id, o := range active {
		if h.stops[id] != nil {
			continue
		}
		s := &stop{Stop: wire.Stop{Order: id, Heard: now}}
		if id.IsZero() {
			s.By, s.Reason = o.By, o.Reason
		}
		h.stops[id] = s
		for channel, j := range h.jobs {
			if !stopsSubject(o, h.haltSubject(channel)) {
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
			s.At, s.still = now, h.s.o.Now()
		}
	}
	h.answers.changed.wake()
	h.spreadStarts()
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

// concernsSite reports whether a halt order stops any channel of this site.
func (h *haltState) concernsSite(o halt.Order) bool {
	if stopsSubject(o, h.haltSubject("")) {
		return true
	}
	if o.Scope != halt.Channel {
		return false
	}
	return slices.Contains(h.channels, o.Value) || h.jobs[o.Value] != nil
}

func stopsSubject(o halt.Order, s halt.Subject) bool {
	return (&halt.Orders{Active: []halt.Order{o}}).Find(s) != nil
}

// spreadStarts prevents a fleet from starting all at once after a halt order was
// lifted: each channel of each site waits a little, at random.
func (h *haltState) spreadStarts() {
	within := max(h.motion.Real(h.s.o.Spread), 1)
	for _, channel := range h.channels {
		now := h.orders != nil && h.orders.Find(h.haltSubject(channel)) != nil
		if h.was[channel] && !now {
			h.after[channel] = h.s.o.Now().Add(rand.N(within))
		}
		h.was[channel] = now
	}
}

// orderOf returns the halt order of an ID that is in force, or nil. The zero ID
// is the local one. The caller holds h.mu.
func (h *haltState) orderOf(id halt.ID) *halt.Order {
	if id.IsZero() {
		return h.local
	}
	if h.orders != nil {
		for i := range h.orders.Active {
			if h.orders.Active[i].ID == id {
				return &h.orders.Active[i]
			}
		}
	}
	return nil
}

// haltOrder returns the halt order that stops a channel, or nil.
func (h *haltState) haltOrder(channel string) *halt.Order {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.haltedNow(channel)
}

// haltedNow is halted for callers that hold h.mu.
func (h *haltState) haltedNow(channel string) *halt.Order {
	if h.local != nil {
		return h.local
	}
	if h.orders == nil {
		return nil
	}
	return h.orders.Find(h.haltSubject(channel))
}

// markStill notes that a job has stopped moving. The caller holds h.mu.
func (h *haltState) markStill(j *job) {
	now := h.s.proofTime()
	for _, p := range j.stops {
		p.stop.Bytes += j.moved.Load() - p.from
		if p.stop.waits--; p.stop.waits == 0 {
			p.stop.At, p.stop.still = now, h.s.o.Now()
			h.answers.changed.wake()
		}
	}
	j.stops = nil
}

// rememberHalts restores the halt orders that an earlier process has accepted.
func (h *haltState) rememberHalts(ctx context.Context) error {
	kept, err := h.s.spool.Kept(ctx, spool.Halt)
	if err != nil {
		return err
	}
	if len(kept.Object) > 0 {
		// It was checked when it was accepted; its signer may have been retired since.
		s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, kept.Object)
		if err == nil {
			h.orders, err = h.readOrders(s)
		}
		if err != nil {
			return fmt.Errorf("the halts that were kept: %w", err)
		}
		h.object, h.epoch, h.newest = kept.Object, kept.Number, kept.Number
	}
	if kept, err = h.s.spool.Kept(ctx, spool.Stops); err != nil {
		return err
	}
	var m wire.Stopped
	if len(kept.Object) > 0 {
		if err := wire.Decode(kept.Object, &m); err != nil {
			return fmt.Errorf("the stops that were kept: %w", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readLocal()
	for _, s := range m.Orders {
		if o := h.orderOf(s.Order); o != nil && (!s.Order.IsZero() || s.Heard/1000 >= o.At) {
			h.stops[s.Order] = &stop{Stop: s}
		}
	}
	h.stopHalted(nil)
	return nil
}
