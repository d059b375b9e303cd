package core

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/heads"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Orders change what sites should do: they request runs and checks, and limit
// rates.
type Orders struct {
	o        *Options
	settings *atomic.Pointer[Settings]
	ledger   revisions
	storage  *storage
	newest   *heads.Service
	desired  *desired.Service
	query    *query.Service
	link     *busLink
	states   *stateSender
	fleet    *sites
	notices  *notices
	clock    *clocks
	acts     func() error // non-nil if another Core has taken over, or this Core has not read the store yet
}

// revisions numbers desired states, and reads runs. *ledger.Ledger is one.
type revisions interface {
	Revision(ctx context.Context) (uint64, error)
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
}

// updateDesired makes what sites should hold follow from the configuration, the newest
// releases and a change, and states it to the sites that it concerns.
func (q *Orders) updateDesired(ctx context.Context, ch desired.Change) error {
	k := q.storage.keys.Load()
	ch.By = actorOf(ctx)
	changed, err := q.desired.Update(ctx, desired.World{
		Fleet: q.settings.Load().Fleet, Release: q.newest.Of, Beat: q.o.Beat, Rehearsal: q.clock.rehearsalParameters(), Core: q.link.publicURLs(), Now: q.clock.endTime(),
		Nonce: func(key desired.Key, number trust.ReleaseNumber, start uint64) [16]byte {
			return k.nonceOf(key.Address, key.Channel, number, start)
		},
	}, ch)
	if err != nil {
		q.notices.LedgerFailed(err)
		return err
	}
	q.states.sendStates(ctx, changed)
	return nil
}

// Sync orders sites to start now.
func (q *Orders) Sync(ctx context.Context, r SyncRequest) ([]Order, error) {
	return q.requestStart(ctx, "sync", r.Scope, desired.Request{DryRun: r.DryRun, Rehash: r.Rehash, Adopt: r.Adopt, Now: r.Now},
		fmt.Sprintf("dry run %t, rehash %t, adopt %t, now %t", r.DryRun, r.Rehash, r.Adopt, r.Now))
}

// requestStart asks each site and channel of a scope to start.
func (q *Orders) requestStart(ctx context.Context, verb string, scope fleet.Scope, r desired.Request, detail string) ([]Order, error) {
	if err := q.acts(); err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	list, err := q.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	ch := desired.Change{Requests: map[desired.Key]desired.Request{}}
	waiting := map[desired.Key]bool{}
	for _, s := range list {
		q.addWaiting(waiting, wire.Address{Domain: s.Domain, Site: s.Name})
		ch.Only = append(ch.Only, s.Name)
		for _, p := range s.Placements {
			ch.Requests[desired.Key{Address: wire.Address{Domain: s.Domain, Site: s.Name}, Channel: p.Channel}] = r
		}
	}
	if len(ch.Requests) == 0 {
		return nil, fmt.Errorf("%s: no site of this scope holds a channel", verb)
	}
	if err := q.notices.Audit(ctx, verb, scope.String(), detail); err != nil {
		return nil, err
	}
	if err := q.updateDesired(ctx, ch); err != nil {
		return nil, err
	}
	var out []Order
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		connected := q.fleet.isConnected(a)
		for _, d := range q.desired.Of(a).Desired {
			key := desired.Key{Address: a, Channel: d.Channel}
			if _, ok := ch.Requests[key]; !ok {
				continue
			}
			ordered := Order{Domain: a.Domain, Site: a.Site, Channel: d.Channel, Number: d.Number, Start: d.Start, Connected: connected, Contested: q.fleet.contestOf(a), replaced: waiting[key]}
			if !r.Now {
				ordered.Opens = q.settings.Load().nights.Opens(a.Site, d.Channel, q.clock.wallTime())
			}
			if o := q.query.OrderFor(&s, d.Channel); o != nil {
				ordered.Halted = (&halt.Error{Order: *o}).Error()
			}
			out = append(out, ordered)
		}
	}
	return out, nil
}

// addWaiting adds the channels of a site for which a request is in force that the site has not obeyed.
func (q *Orders) addWaiting(waiting map[desired.Key]bool, a wire.Address) {
	x := q.fleet.siteOf(a)
	x.mu.Lock()
	holds := x.holds
	x.mu.Unlock()
	for _, d := range q.desired.Of(a).Desired {
		if d.Start > findHeld(holds, d.Channel).Obeyed {
			waiting[desired.Key{Address: a, Channel: d.Channel}] = true
		}
	}
}

// isInForce reports whether no later request has replaced one.
func (q *Orders) isInForce(o *Order) bool {
	return slices.ContainsFunc(q.desired.Of(wire.Address{Domain: o.Domain, Site: o.Site}).Desired, func(d wire.Desired) bool { return d.Channel == o.Channel && d.Start == o.Start })
}

// VerifyRequest asks sites to compare their files with their release now.
type VerifyRequest struct {
	Scope  fleet.Scope `json:"scope"`
	Full   bool        `json:"full"`   // read every byte
	Repair bool        `json:"repair"` // fetch what differs
}

// Verify requests that sites check now, even if no window is open. Without Repair they change
// nothing.
func (q *Orders) Verify(ctx context.Context, r VerifyRequest) ([]Order, error) {
	o := desired.Request{Now: true, Verify: true}
	switch {
	case r.Repair:
		o.Rehash = r.Full
	case r.Full:
		o.Check = wire.CheckFull
	default:
		o.Check = wire.CheckQuick
	}
	return q.requestStart(ctx, "verify", r.Scope, o, fmt.Sprintf("full %t, repair %t", r.Full, r.Repair))
}

// Withdraw takes back the requests that no run has obeyed yet. A site that starts at the same moment obeys all the same. left are
// the others, which a halt order stops: a run has started since or is under way, or another request for the same channel
// waits, so that the site runs in any case.
func (q *Orders) Withdraw(ctx context.Context, orders []Order) (withdrawn, left []Order, err error) {
	if err := q.acts(); err != nil {
		return nil, orders, fmt.Errorf("withdraw: %w", err)
	}
	ch := desired.Change{Only: []string{}, Withdraw: map[desired.Key]uint64{}}
	for _, o := range orders {
		newest, err := q.newestRun(ctx, &awaited{Order: o})
		if err != nil {
			return nil, orders, err
		}
		if newest != nil && (newest.ID.String() != o.before || newest.Finished.IsZero()) || o.replaced || !q.isInForce(&o) {
			left = append(left, o)
			continue
		}
		ch.Withdraw[desired.Key{Address: wire.Address{Domain: o.Domain, Site: o.Site}, Channel: o.Channel}] = o.Start
		ch.Only = append(ch.Only, o.Site)
		withdrawn = append(withdrawn, o)
	}
	if len(withdrawn) == 0 {
		return nil, left, nil
	}
	if err := q.notices.Audit(ctx, "withdraw", "requests", fmt.Sprintf("%d of %d", len(withdrawn), len(orders))); err != nil {
		return nil, orders, err
	}
	return withdrawn, left, q.updateDesired(ctx, ch)
}
