package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"nightferry/internal/frame"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// refusals answer messages that the Core does not accept, and report them. They
// record at most one audit entry a minute for each reason and sender. They are
// safe for concurrent use.
type refusals struct {
	notices *notices
	down    *downlink
	ledger  tokens
	known   func(wire.Address) bool // whether it is a site
	now     func() time.Time

	mu     sync.Mutex
	counts map[string]int64 // by reason
	last   map[reason]time.Time
}

// tokens read enrolment tokens. *ledger.Sites is one.
type tokens interface {
	Token(ctx context.Context, id string) (ledger.Token, error)
}

type reason struct {
	from wire.Address
	code string
}

// auditForeign records an audit entry for objects that a site requested but does not need.
func (r *refusals) auditForeign(ctx context.Context, from wire.Address, keys []string) {
	why := fmt.Sprintf("it asked for %q", keys[0])
	if len(keys) > 1 {
		why += fmt.Sprintf(" and %d more", len(keys)-1)
	}
	r.countRefusal("ask")
	r.notices.incidents.Raise(kinds.BadAsk, "", from, fmt.Sprintf("site %s: %s, which its releases do not need", from.Site, why))
	r.notices.emitEvent(Event{Kind: Refused, Domain: from.Domain, Site: from.Site, Text: "ask: " + why})
	if r.isDue(from, "ask") {
		if err := r.notices.audits.Audit(ctx, ledger.Deed{Who: from.String(), What: "refused ask", Object: from.String(), Detail: why}); err != nil {
			r.notices.LedgerFailed(err)
		}
	}
}

// refuseError refuses a message that could not be opened and selects the kind of incident.
func (r *refusals) refuseError(ctx context.Context, m message, err error) {
	newer, older := (*frame.NewerError)(nil), (*wire.OlderError)(nil)
	switch {
	case errors.As(err, &older):
		r.refuseMessage(ctx, m, "version", err.Error(), kinds.Protocol)
	case errors.As(err, &newer):
		r.refuseMessage(ctx, m, "version", fmt.Sprintf("%v; this Core uses version %d of the protocol", err, wire.Version), kinds.Protocol)
	case errors.Is(err, trust.ErrUntrusted):
		r.refuseMessage(ctx, m, "forged", err.Error(), kinds.Forged)
	default:
		r.refuseMessage(ctx, m, "forged", err.Error(), kinds.Malformed)
	}
}

// refuseMessage sends the reason to the sender, records an audit entry and opens an incident. It records
// at most one audit entry a minute for each kind and sender.
func (r *refusals) refuseMessage(ctx context.Context, m message, code, why string, kind kinds.Kind) {
	why = clipText(why)
	r.countRefusal(code)
	at, who := m.from, m.from.String()
	if at.Domain == wire.EnrolDomain {
		at, who = r.ofToken(ctx, at.Site)
		who = "the holder of " + who
	}
	r.notices.incidents.Raise(kind, "", at, fmt.Sprintf("%s sent %s, refused as %s: %s", who, clipText(m.verb), code, why))
	r.notices.emitEvent(Event{Kind: Refused, Domain: m.from.Domain, Site: m.from.Site, Text: fmt.Sprintf("%s: %s: %s", clipText(m.verb), code, why)})
	if r.isDue(m.from, code) {
		if err := r.notices.audits.Audit(ctx, ledger.Deed{Who: m.from.String(), What: "refused " + clipText(m.verb), Object: at.String(), Detail: code + ": " + why}); err != nil {
			r.notices.LedgerFailed(err)
		}
	}
	r.down.sendSigned(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: code, Why: why})
}

// isDue accepts one refusal a minute for each kind and sender.
func (r *refusals) isDue(a wire.Address, code string) bool {
	now := r.now()
	if !r.known(a) { // senders that are not sites share one entry, so that they cannot exhaust memory
		a = wire.Address{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := reason{a, code}
	if last, ok := r.last[k]; ok && now.Sub(last) < again {
		return false
	}
	r.last[k] = now
	return true
}

// countRefusal counts one refusal.
func (r *refusals) countRefusal(code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[code]++
}

// allCounts returns the counts, by reason.
func (r *refusals) allCounts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}

// ofToken tells for which site a token was made; of one that the ledger does not
// know, the address of its holder.
func (r *refusals) ofToken(ctx context.Context, id string) (wire.Address, string) {
	t, err := r.ledger.Token(ctx, id)
	if err != nil {
		return wire.Address{Domain: wire.EnrolDomain, Site: id}, "token " + id
	}
	return wire.Address{Domain: t.Domain, Site: t.Site}, fmt.Sprintf("token %s for site %s/%s", id, t.Domain, t.Site)
}
