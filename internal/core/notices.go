package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/incident"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// notices report what happens: as events, as incidents, and as audit entries.
// It is safe for concurrent use.
type notices struct {
	now       func() time.Time
	onEvent   func(Event) // nil: none
	incidents *incident.Service
	audits    audits
	hasRoom   func() (bool, error) // on the ledger's volume

	full   atomic.Bool // the ledger's disk is full
	faulty atomic.Bool // the ledger failed otherwise

	mu  sync.Mutex
	all map[chan Event]bool // the followers
}

// audits keep audit entries. *ledger.Ledger is one.
type audits interface {
	Audit(ctx context.Context, d ledger.Deed) error
}

// followBuffer is how many events a follower may be behind before it misses
// some.
const followBuffer = 4096

func (n *notices) emitEvent(e Event) {
	e.At, e.Text = n.now(), oneLine(e.Text)
	if n.onEvent != nil {
		n.onEvent(e)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for ch := range n.all {
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

// ReportFailure reports a failure of something that will be tried again. It is an
// incident, too: one of its own, which whoever calls this has opened where it is
// due, or else one of the kind Core. docs/operations.md has a row for each word.
func (n *notices) ReportFailure(what string, err error) {
	if errors.Is(err, context.Canceled) {
		return // the work was ended, as the Core stops or its caller left: nothing failed
	}
	n.emitEvent(Event{Kind: Trouble, Text: fmt.Sprintf("%s: %v", what, err)})
	if incidentOf(what) == kinds.Inside {
		n.incidents.Raise(kinds.Inside, what, wire.Address{}, fmt.Sprintf("%s: %v; it is tried again", what, err))
	}
}

// ReportSuccess resolves the incident of a failure that has ended.
func (n *notices) ReportSuccess(what string) {
	n.incidents.Resolve(kinds.Inside, what, wire.Address{})
}

// incidentOf tells as which kind of incident people hear of a trouble.
func incidentOf(what string) kinds.Kind {
	switch what {
	case "store", "lend", "halt", "resign":
		return kinds.Store // each look at the store finds the same, and tells when it is over
	case "ledger":
		return kinds.Ledger
	case "log":
		return kinds.Rendering
	case "publish":
		return kinds.Publishes
	case "measure":
		return kinds.Unmeasured
	case "bucket":
		return kinds.BucketBad
	case "clock":
		return kinds.Clock
	case "mail": // opened once the same recipient was not reached twice
		return kinds.MailDown
	case "cluster":
		return kinds.ClusterBad
	}
	return kinds.Inside
}

// subscribeEvents returns the events from now on, until stop is called. A subscriber
// that is more than followBuffer events behind misses some.
func (n *notices) subscribeEvents() (events <-chan Event, stop func()) {
	ch := make(chan Event, followBuffer)
	n.mu.Lock()
	if n.all == nil {
		n.all = map[chan Event]bool{}
	}
	n.all[ch] = true
	n.mu.Unlock()
	return ch, func() {
		n.mu.Lock()
		delete(n.all, ch)
		n.mu.Unlock()
	}
}

// LedgerFailed opens the incident of a ledger that cannot be read or written.
func (n *notices) LedgerFailed(err error) {
	if errors.Is(err, ledger.ErrFull) {
		n.full.Store(true)
		n.incidents.Raise(kinds.Full, "", wire.Address{}, err.Error()+"; sites keep what they report until then")
	} else if !errors.Is(err, context.Canceled) {
		n.faulty.Store(true)
		n.incidents.Raise(kinds.Ledger, "", wire.Address{}, fmt.Sprintf("the ledger: %v; sites keep what they report until it works", err))
	}
	n.ReportFailure("ledger", err)
}

// LedgerWorks ends the incidents of the ledger. A small change may still fit on a full
// volume: that incident ends when the volume has room.
func (n *notices) LedgerWorks() {
	if n.full.Load() {
		if roomy, err := n.hasRoom(); err == nil && roomy && n.full.Swap(false) {
			n.incidents.Resolve(kinds.Full, "", wire.Address{})
		}
	}
	if n.faulty.Swap(false) {
		n.incidents.Resolve(kinds.Ledger, "", wire.Address{})
	}
}

// Audit records what the actor of ctx did.
func (n *notices) Audit(ctx context.Context, what, object, detail string) error {
	return n.audits.Audit(ctx, ledger.Deed{Who: actorOf(ctx), What: what, Object: object, Detail: detail})
}
