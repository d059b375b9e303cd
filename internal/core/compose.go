package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/heads"
	"nightferry/internal/ledger"
	"nightferry/internal/releases"
	"nightferry/internal/wire"
)

// newCore makes the parts that opening needs.
func newCore(o Options) *Core {
	c := &Core{o: o, ready: make(chan struct{})}
	for i := range c.work {
		c.work[i] = make(chan message, 64)
	}
	c.notices.now, c.notices.onEvent = o.Now, o.OnEvent
	c.notices.hasRoom = c.reserve.hasRoom
	c.clock.device, c.clock.storeTime = o.Now, c.storage.storeTime
	c.storage.o, c.storage.clock, c.storage.notices = &c.o, &c.clock, &c.notices
	c.fleet.now, c.fleet.beat, c.fleet.started = o.Now, o.Beat, o.Now()
	c.down = downlink{storage: &c.storage, fleet: &c.fleet, notices: &c.notices}
	c.refusals = refusals{notices: &c.notices, down: &c.down, known: func(a wire.Address) bool { return c.fleet.findSite(a) != nil }, now: o.Now, counts: map[string]int64{}, last: map[reason]time.Time{}}
	c.tasks = c.newTasks()
	c.measurer.sources.wake = make(chan struct{}, 1)
	c.link.recheck = make(chan struct{}, 1)
	return c
}

// openHalts makes the newest releases, and takes up the halt orders that an earlier process has recorded. The
// store is open.
func (c *Core) openHalts(ctx context.Context) {
	c.newest = heads.New(heads.Options{
		Records: c.ledger, Incidents: c.incidents, Repo: c.storage.repo.Load, Calendar: func(t time.Time) time.Time { return c.clock.motion.At(t) },
		Released: func(r ledger.Release) {
			c.notices.emitEvent(Event{Kind: Released, Channel: r.Channel, Text: fmt.Sprintf("release %d", r.Number)})
		},
	})
	s, h := &c.states, &c.Halts
	s.down, s.storage, s.fleet, s.newest, s.desired, s.clock, s.notices, s.ready = &c.down, &c.storage, &c.fleet, c.newest, c.desired, &c.clock, &c.notices, c.ready
	s.fills = c.ledger.Fills
	c.Publisher.publishing = &c.publishing
	h.o, h.settings, h.ledger, h.storage, h.fleet, h.states, h.down = &c.o, &c.settings, &c.ledger.Halts, &c.storage, &c.fleet, s, &c.down
	h.identities = c.ledger.Sites.Identities
	h.notices, h.clock, h.asides, h.stopPublishing = &c.notices, &c.clock, &c.asides, c.Publisher.stopPublishing
	h.openOrders(ctx)
	s.halting = h.service
	c.incarnation = newIncarnation(c.ledger, &c.storage, &c.notices, c.o.Now)
	s.may = c.incarnation.MayState
}

// composeParts gives each part what it needs of the others. The ledger, the store and
// the halt orders are open.
func (c *Core) composeParts() {
	l, stops := c.ledger, c.Halts.service
	c.releases = releases.New(c.storage.state, c.storage.repo.Load)
	c.lending = c.newLending()
	book := &runBook{ledger: l, clock: &c.clock, notices: &c.notices, begun: map[ledger.RunID]bool{}}

	c.reports, c.renderer = c.newReports()
	ended := c.renderer.Kick

	c.Query = c.newQuery()
	q := c.Query

	w := &c.watch
	w.ledger, w.settings, w.fleet, w.newest, w.notices, w.clock = l, &c.settings, &c.fleet, c.newest, &c.notices, &c.clock
	w.now, w.ended, w.holdings, w.sweep = c.o.Now, ended, q.Holdings, c.sweepIncidents

	a := &c.access
	a.vault, a.ledger, a.storage, a.link, a.clock = c.vault, &l.Sites, &c.storage, &c.link, &c.clock

	b := &c.link
	b.o, b.settings, b.storage, b.access, b.fleet, b.states, b.down = &c.o, &c.settings, &c.storage, a, &c.fleet, &c.states, &c.down
	b.refusals, b.notices, b.clock, b.receive = &c.refusals, &c.notices, &c.clock, c.queueMessage

	c.Rights = Rights{&c.settings, &c.notices}
	c.Door = Door{&c.storage, &c.notices, &c.clock}

	o := &c.Orders
	o.o, o.settings, o.ledger, o.storage, o.newest, o.desired, o.query = &c.o, &c.settings, l, &c.storage, c.newest, c.desired, q
	o.acts = c.incarnation.Acts
	o.link, o.states, o.fleet, o.notices, o.clock = b, &c.states, &c.fleet, &c.notices, &c.clock

	c.accounts = accounts{ledger: l, fleet: &c.fleet, desired: c.desired, incarnation: c.incarnation, refusals: &c.refusals, notices: &c.notices, request: o.requestStart}

	c.Enrolment = newEnrolment(c)

	n := &c.Notifier
	n.settings, n.dir, n.incidents, n.runs, n.vault, n.query, n.notices, n.clock, n.now = &c.settings, c.dir, &l.Incidents, l, c.vault, q, &c.notices, &c.clock, c.o.Now

	m := &c.measurer
	m.o, m.settings, m.measured, m.ledger, m.book, m.newest, m.halting, m.publishing, m.tasks = &c.o, &c.settings, &l.Measurements, l, book, c.newest, stops, &c.publishing, c.tasks
	m.releases, m.ended, m.notices, m.clock, m.asides = c.releases, ended, &c.notices, &c.clock, &c.asides

	s := &c.watching
	s.settings, s.storage, s.newest, s.halting, s.desired = &c.settings, &c.storage, c.newest, stops, c.desired
	s.notices, s.clock, s.desire, s.restate = &c.notices, &c.clock, o.updateDesired, c.states.sendAll
	s.incarnation, s.stopPublishing = c.incarnation, c.publishing.Stop

	u := &c.Upkeep
	u.settings, u.ledger, u.logs, u.storage, u.newest, u.link, u.lending = &c.settings, l, c.logs, &c.storage, c.newest, b, c.lending
	u.releases, u.notices, u.clock, u.endLostRuns = c.releases, &c.notices, &c.clock, w.endLostRuns
	u.checkIncarnation = s.checkIncarnation

	pub := &c.Publisher
	pub.o, pub.settings, pub.ledger, pub.book, pub.storage, pub.newest, pub.files, pub.ended = &c.o, &c.settings, l, book, &c.storage, c.newest, c.renderer, ended
	pub.checkIncarnation = s.checkIncarnation
	pub.notices, pub.healing, pub.adopt, pub.desire, pub.measureSoon = &c.notices, &u.healing, c.newest.Import, o.updateDesired, m.measureSoon

	d := &c.cadences
	d.older = c.incarnation.Older
	d.settings, d.storage, d.halting, d.tasks, d.notices, d.clock, d.asides, d.publish = &c.settings, &c.storage, stops, c.tasks, &c.notices, &c.clock, &c.asides, pub.publishUnless

	t := &c.sightings
	t.o, t.settings, t.ledger, t.fleet, t.notices, t.clock, t.reserve = &c.o, &c.settings, &l.Sites, &c.fleet, &c.notices, &c.clock, &c.reserve
}
