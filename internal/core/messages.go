package core

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/enrolment"
	"nightferry/internal/frame"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// shards is how many messages are handled at once. Messages of one site stay in order. Commits that
// wait together share one sync of the ledger.
const shards = 32

type message struct {
	from wire.Address
	verb string
	data []byte
	by   *site // the site whose inbox counted it; senders that are not sites share one
}

// queueMessage takes a message from the bus and never blocks. The bus lets only the sender use its
// subject, so the subject identifies the sender. A reply-to is ignored.
func (c *Core) queueMessage(subject string, data []byte) {
	a, verb, err := wire.ParseUp(subject)
	if err != nil {
		return // the bus grants no such subject; there is no one to answer
	}
	x := c.fleet.findSite(a)
	if x == nil { // senders that are not sites share one budget
		x = c.fleet.siteOf(wire.Address{})
	}
	if !x.inbox.admitMessage() {
		c.refusals.countRefusal("overrun")
		return
	}
	h := fnv.New32a()
	h.Write([]byte(a.String()))
	select {
	case c.work[h.Sum32()%shards] <- message{a, verb, data, x}:
	default: // lost messages are sent again; sites in other queues must not wait
		x.inbox.messageDone()
		c.refusals.countRefusal("overrun")
	}
}

// Limits for one site: messages a second, burst size, and messages waiting in the queue that it
// shares with other sites.
const (
	siteRate    = 100
	siteBurst   = 400
	siteWaiting = 32
)

// inbox counts one site's messages.
type inbox struct {
	rate    *rate.Limiter
	waiting atomic.Int32
}

func newInbox() *inbox { return &inbox{rate: rate.NewLimiter(siteRate, siteBurst)} }

// admitMessage reports whether one more message is accepted; done must follow.
func (i *inbox) admitMessage() bool {
	if i.waiting.Add(1) <= siteWaiting && i.rate.Allow() {
		return true
	}
	i.messageDone()
	return false
}

func (i *inbox) messageDone() { i.waiting.Add(-1) }

func (c *Core) serveMessages(ctx context.Context, in <-chan message) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-in:
			c.messages.countMessage(m.verb)
			c.guardPanic(m, func() { c.handleMessage(ctx, m) })
			m.by.inbox.messageDone()
		}
	}
}

// guardPanic contains a panic while one message is handled. It opens an incident that names the site and
// the verb, and the Core continues. Without guard, a message that a site sends again after each
// restart would keep the Core down.
func (c *Core) guardPanic(m message, handle func()) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		c.refusals.countRefusal("panic")
		c.notices.ReportFailure("message", fmt.Errorf("%s of site %s: a fault of the Core: %v at %s", clipText(m.verb), m.from, p, panicSite()))
	}()
	handle()
}

// panicSite returns the function and line that panicked. It is called by the
// deferred function that recovers.
func panicSite() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	for panicked := false; ; {
		f, more := frames.Next()
		if panicked && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", f.Function, f.Line)
		}
		panicked = panicked || f.Function == "runtime.gopanic"
		if !more {
			return "an unknown place"
		}
	}
}

// handleMessage handles one message.
func (c *Core) handleMessage(ctx context.Context, m message) {
	if m.from.Domain == wire.EnrolDomain {
		c.Enrolment.HandleToken(ctx, m.from, m.verb, m.data)
		return
	}
	x := c.fleet.findSite(m.from)
	var known bool
	var key trust.Public
	if x != nil {
		x.mu.Lock()
		known, key = x.identity != nil, x.key
		x.mu.Unlock()
	}
	if !known {
		c.refusals.refuseMessage(ctx, m, "revoked", "the Core knows no identity of this site: enroll it again with a new token", kinds.Revoked)
		return
	}
	s := c.settings.Load().Fleet.Site(m.from.Site)
	if s == nil || s.Domain != m.from.Domain {
		c.refusals.refuseMessage(ctx, m, "unknown", "the Core's configuration has no such site in that domain: add it, or revoke the site", kinds.Revoked)
		return
	}
	var err error
	switch m.verb {
	case wire.VerbHello:
		var v wire.Hello
		if err = c.openMessage(m, key, &v); err == nil {
			c.handleHello(ctx, m.from, x, &v)
		}
	case wire.VerbBeat:
		var v wire.Beat
		if err = c.openMessage(m, key, &v); err == nil {
			c.handleBeat(ctx, m.from, x, &v)
		}
	case wire.VerbStopped:
		var v wire.Stopped
		if err = c.openMessage(m, key, &v); err == nil {
			c.Halts.handleStopped(ctx, m.from, x, &v)
		}
	case wire.VerbProgress:
		var v wire.Progress
		if err = c.openMessage(m, key, &v); err == nil {
			c.handleProgress(m.from, x, &v)
		}
	case wire.VerbReport:
		var v wire.Report
		if err = c.openMessage(m, key, &v); err == nil {
			c.handleReport(ctx, m, x, key, &v)
		}
	case wire.VerbAsk:
		var v wire.Ask
		if err = c.openMessage(m, key, &v); err == nil {
			err = c.lending.Ask(ctx, m.from, &v)
		}
	case wire.VerbRenew:
		var v wire.Renew
		if err = c.openMessage(m, key, &v); err == nil {
			c.Enrolment.Renew(ctx, m.from)
		}
	default:
		err = fmt.Errorf("verb %q is none that this Core knows: %w", clipText(m.verb), frame.ErrDamaged)
	}
	if err != nil {
		c.refusals.refuseError(ctx, m, err)
	}
}

func (c *Core) openMessage(m message, key trust.Public, v any) error {
	_, err := wire.Open(m.data, c.storage.repo.Load().ID(), m.from, m.verb, wire.By(key), v)
	return err
}

func (c *Core) handleHello(ctx context.Context, a wire.Address, x *site, v *wire.Hello) {
	x.mu.Lock()
	x.trust, x.epoch = v.Trust, v.Epoch
	x.compared = false // its record of this site may have changed since
	x.mu.Unlock()
	x.noteProcess(c.Enrolment.Contact(ctx, a, enrolment.Sender{Instance: v.Instance, At: v.At, Machine: v.Machine, Lineage: v.Lineage, Starts: v.Starts, Started: v.Started}))
	c.Enrolment.EndToken(ctx, a)
	c.accounts.compareHoldings(ctx, a, x, v.Holds, v.Spooled)
	c.sightings.noteSighting(a, x, v.At, func(s *ledger.Sighting) {
		s.Version, s.Revision = clipText(v.Version), v.Revision
	})
	c.incidents.Resolve(kinds.Protocol, "", a)
	c.notices.emitEvent(Event{Kind: SiteConnected, Domain: a.Domain, Site: a.Site, Text: clipText(v.Version + " " + v.System)})
	c.accounts.noteRevision(ctx, a, wire.VerbHello, v.Revision)
	c.Enrolment.Rekey(ctx, a)
	c.states.sendStates(ctx, []wire.Address{a})
}

// noteProcess notes the process that uses the site's identity.
func (x *site) noteProcess(p ledger.Process) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.process = process{p.ID, p.Since}
}

func (c *Core) handleBeat(ctx context.Context, a wire.Address, x *site, v *wire.Beat) {
	x.mu.Lock()
	x.trust, x.epoch = v.Trust, v.Epoch
	x.waits = c.waitsOf(v.Waits)
	x.mu.Unlock()
	last := c.Enrolment.Contact(ctx, a, enrolment.Sender{Instance: v.Instance, At: v.At, Leaving: v.Leaving})
	x.noteProcess(last)
	if v.Leaving && (last.ID != hex.EncodeToString(v.Instance) || c.fleet.isContested(a)) {
		return // another process uses the identity, and stays
	}
	c.accounts.compareHoldings(ctx, a, x, v.Holds, v.Spooled)
	c.sightings.noteSighting(a, x, v.At, func(s *ledger.Sighting) { s.Revision, s.Lag = v.Revision, v.Spooled })
	if v.Leaving {
		x.mu.Lock()
		x.spoke = false
		x.mu.Unlock()
		return
	}
	c.accounts.noteRevision(ctx, a, wire.VerbBeat, v.Revision)
	// Also to a site that has it: what hears nothing while content moves must
	// think that nobody could stop it.
	c.states.sendStates(ctx, []wire.Address{a})
}

func (c *Core) handleProgress(a wire.Address, x *site, v *wire.Progress) {
	if !wire.ValidName(v.Channel) || len(v.Run) != len(ledger.RunID{}) {
		return
	}
	p := query.Progress{Run: ledger.RunID(v.Run), Progress: v.Progress}
	p.Phase = clipText(p.Phase)
	if c.settings.Load().Fleet.Site(a.Site).Placement(v.Channel) == nil {
		return
	}
	x.mu.Lock()
	last, known := x.progress[v.Channel]
	x.progress[v.Channel] = p
	x.mu.Unlock()
	if !known || last != p {
		c.sightings.noteMovement(a, x, v.Channel, p.Run)
	}
	c.notices.emitEvent(Event{Kind: RunProgressed, Domain: a.Domain, Site: a.Site, Channel: v.Channel, Run: p.Run.String(), Progress: &p.Progress})
}

func unixTime(sec int64) time.Time { return time.Unix(sec, 0).UTC() }

// waitsOf reads the waiting channels of a heartbeat. It drops values that are out of bounds,
// because a site can send anything.
func (c *Core) waitsOf(list []wire.Wait) map[string]query.Waiting {
	out := map[string]query.Waiting{}
	for _, w := range list {
		why := w.Why.String()
		if why == "" || !wire.ValidName(w.Channel) {
			continue
		}
		one := query.Waiting{Why: why, Text: w.Text}
		if w.Until > 0 {
			one.Until = c.clock.motion.At(unixTime(w.Until))
		}
		out[w.Channel] = one
	}
	return out
}
