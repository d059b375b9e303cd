package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/wire"
)

// followers hear of events.
type followers struct {
	mu  sync.Mutex
	all map[chan Event]bool
}

// followBuffer is how many events a follower may be behind before it misses
// some.
const followBuffer = 4096

func (c *Core) say(e Event) {
	e.At, e.Text = c.o.Now(), oneLine(e.Text)
	if c.o.OnEvent != nil {
		c.o.OnEvent(e)
	}
	c.follow.mu.Lock()
	defer c.follow.mu.Unlock()
	for ch := range c.follow.all {
		select {
		case ch <- e:
		default:
		}
	}
}

// oneLine keeps a text with line breaks, such as several errors, in one line of
// the log; it escapes nothing.
func oneLine(s string) string {
	if !strings.Contains(s, "\n") {
		return s
	}
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// trouble tells of something that failed and will be tried again. It is an
// incident, too: one of its own, which whoever calls this has opened where it is
// due, or else one of the kind Core. docs/operations.md has a row for each word.
func (c *Core) trouble(what string, err error) {
	c.say(Event{Kind: Trouble, Text: fmt.Sprintf("%s: %v", what, err)})
	if incidentOf(what) == Inside {
		c.alarms.raise(Inside, what, wire.Address{}, fmt.Sprintf("%s: %v; it is tried again", what, err))
	}
}

// works ends the incident of a trouble: what failed has succeeded.
func (c *Core) works(what string) {
	c.alarms.over(Inside, what, wire.Address{})
}

// incidentOf tells as which kind of incident people hear of a trouble.
func incidentOf(what string) Kind {
	switch what {
	case "store", "lend", "halt", "resign":
		return Store // each look at the store finds the same, and tells when it is over
	case "ledger":
		return Ledger
	case "log":
		return Rendering
	case "publish":
		return Publishes
	case "measure":
		return Unmeasured
	case "bucket":
		return BucketBad
	case "clock":
		return Clock
	case "mail": // opened once the same recipient was not reached twice
		return MailDown
	case "cluster":
		return ClusterBad
	}
	return Inside
}

// subscribe returns the events from now on, until stop is called. A subscriber
// that is more than followBuffer events behind misses some.
func (c *Core) subscribe() (events <-chan Event, stop func()) {
	ch := make(chan Event, followBuffer)
	c.follow.mu.Lock()
	if c.follow.all == nil {
		c.follow.all = map[chan Event]bool{}
	}
	c.follow.all[ch] = true
	c.follow.mu.Unlock()
	return ch, func() {
		c.follow.mu.Lock()
		delete(c.follow.all, ch)
		c.follow.mu.Unlock()
	}
}

// counters are what Metrics tells.
type counters struct {
	mu       sync.Mutex
	messages map[string]int64
	refusals map[string]int64

	events, outcomes, commits, commitTime, urls, states, rendered atomic.Int64
	backlog                                                       atomic.Int64
	full                                                          atomic.Bool
	faulty                                                        atomic.Bool // the ledger failed otherwise
}

// siteVerbs are the messages that sites send.
var siteVerbs = []string{wire.VerbHello, wire.VerbBeat, wire.VerbProgress, wire.VerbReport, wire.VerbAsk, wire.VerbRenew, wire.VerbStopped,
	wire.VerbChallenge, wire.VerbEnrol}

func (n *counters) message(verb string) {
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

func (n *counters) refusal(code string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refusals == nil {
		n.refusals = map[string]int64{}
	}
	n.refusals[code]++
}

// Metrics returns the counters.
func (c *Core) Metrics() Metrics {
	n := &c.count
	n.mu.Lock()
	m := Metrics{Messages: maps.Clone(n.messages), Refusals: maps.Clone(n.refusals)}
	n.mu.Unlock()
	m.Events, m.Outcomes, m.Commits, m.CommitTime = n.events.Load(), n.outcomes.Load(), n.commits.Load(), time.Duration(n.commitTime.Load())
	m.URLs, m.StatesSent, m.Rendered, m.RenderBacklog = n.urls.Load(), n.states.Load(), n.rendered.Load(), int(n.backlog.Load())
	m.LedgerFull = n.full.Load()
	local := c.local()
	m.StoreOffset = c.skew.Store(local).Time().Sub(local.Time().Round(0))
	m.Incidents = map[string]int{}
	for kind, n := range c.alarms.Kinds() {
		m.Incidents[string(kind)] = n
	}
	m.Releases = map[string]uint64{}
	for _, r := range c.newest.list() {
		m.Releases[r.Channel] = r.Number
	}
	f := c.settings.Load().Fleet
	m.Sites = len(f.Sites)
	c.fleet.each(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.identity != nil {
			m.Enrolled++
		}
		if c.heard(x) {
			m.Connected++
		}
		m.RunsOpen += len(x.progress)
	})
	select {
	case <-c.ready:
		if c.server != nil {
			m.Connections = c.server.Connections()
		}
	default:
	}
	if p := c.cert.Load(); p != nil && p.Leaf != nil {
		m.CertExpires = p.Leaf.NotAfter
	}
	return m
}

// heard reports whether a site was heard lately; x is locked.
func (c *Core) heard(x *site) bool {
	return x.spoke && !x.seen.IsZero() && x.seen.After(c.started) && c.o.Now().Sub(x.seen) < c.o.Beat*5/2
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
	if c.count.full.Load() {
		h.Ready = false
		h.Reasons = append(h.Reasons, "the ledger's disk is full")
	}
	if _, err := c.ledger.Revision(ctx); err != nil {
		h.Live, h.Ready = false, false
		h.Reasons = append(h.Reasons, "the ledger cannot be read") // why is for the log: anybody may ask, and the cause names paths
	}
	if c.alarms.has(Store, "", wire.Address{}) {
		h.Reasons = append(h.Reasons, "the store does not answer")
	}
	return h
}
