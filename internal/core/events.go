package core

import (
	"context"
	"maps"
	"slices"
	"sync"

	"nightferry/internal/kinds"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// counters are what Metrics tells.
type counters struct {
	mu       sync.Mutex
	messages map[string]int64
}

// siteVerbs are the messages that sites send.
var siteVerbs = []string{wire.VerbHello, wire.VerbBeat, wire.VerbProgress, wire.VerbReport, wire.VerbAsk, wire.VerbRenew, wire.VerbStopped,
	wire.VerbChallenge, wire.VerbEnrol}

func (n *counters) countMessage(verb string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.messages == nil {
		n.messages = map[string]int64{}
	}
	if !slices.Contains(siteVerbs, verb) {
		verb = "other" // a site chooses the subject: it must not make labels of the metrics
	}
	n.messages[verb]++
}

// Metrics returns the counters.
func (c *Core) Metrics() Metrics {
	n := &c.messages
	n.mu.Lock()
	m := Metrics{Messages: maps.Clone(n.messages), Refusals: c.refusals.allCounts()}
	n.mu.Unlock()
	did := c.reports.Counts()
	m.Events, m.Outcomes, m.Commits, m.CommitTime = did.Events, did.Outcomes, did.Commits, did.CommitTime
	written, waiting := c.renderer.Rendered()
	m.URLs, m.StatesSent, m.Rendered, m.RenderBacklog = c.lending.Lent(), c.states.sent.Load(), written, int(waiting)
	m.LedgerFull = c.notices.full.Load()
	local := c.clock.localTime()
	m.StoreOffset = c.clock.skew.Store(local).Time().Sub(local.Time().Round(0))
	m.Incidents = map[string]int{}
	for kind, n := range c.incidents.Kinds() {
		m.Incidents[string(kind)] = n
	}
	m.Releases = map[string]trust.ReleaseNumber{}
	for _, r := range c.newest.List() {
		m.Releases[r.Channel] = r.Number
	}
	f := c.settings.Load().Fleet
	m.Sites = len(f.Sites)
	c.fleet.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.identity != nil {
			m.Enrolled++
		}
		if c.fleet.heardLately(x) {
			m.Connected++
		}
		m.RunsOpen += len(x.progress)
	})
	select {
	case <-c.ready:
		if c.link.server != nil {
			m.Connections = c.link.server.Connections()
		}
	default:
	}
	if p := c.link.cert.Load(); p != nil && p.Leaf != nil {
		m.CertExpires = p.Leaf.NotAfter
	}
	return m
}

// Health says whether the Core works.
func (c *Core) Health(ctx context.Context) Health {
	h := Health{Live: true}
	select {
	case <-c.ready:
		h.Ready = true
	default:
		h.Reasons = append(h.Reasons, "it is starting")
	}
	if c.notices.full.Load() {
		h.Ready = false
		h.Reasons = append(h.Reasons, "the ledger's disk is full")
	}
	if _, err := c.ledger.Revision(ctx); err != nil {
		h.Live, h.Ready = false, false
		h.Reasons = append(h.Reasons, "the ledger cannot be read") // why is for the log: anybody may ask, and the cause names paths
	}
	if c.incidents.Has(kinds.Store, "", wire.Address{}) {
		h.Reasons = append(h.Reasons, "the store does not answer")
	}
	return h
}
