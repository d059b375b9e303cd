package core

import (
	"context"
	"fmt"
	"slices"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// accounts compares the reports of sites about themselves with the ledger. One of the two may have been
// restored from a backup.
type accounts struct {
	ledger      *ledger.Ledger
	fleet       *sites
	desired     *desired.Service
	incarnation *incarnation.Service
	refusals    *refusals
	notices     *notices
	request     func(ctx context.Context, verb string, scope fleet.Scope, r desired.Request, detail string) ([]Order, error)
}

// compareHoldings notes the releases that a site holds, and compares them with the ledger. A site
// without unacknowledged events has reported all its runs. So if the two differ, the Core or the site was
// put back to an earlier state. The ledger then accepts the site's account of the release, as unproven.
func (c *accounts) compareHoldings(ctx context.Context, a wire.Address, x *site, list []wire.Held, spooled uint64) {
	x.mu.Lock()
	same := x.compared && slices.Equal(x.holds, list)
	x.holds, x.compared = list, same
	x.mu.Unlock()
	c.requestProofs(ctx, a, x)
	if same || spooled > 0 || !c.incarnation.MayState(c.desired.Of(a).Revision) {
		return
	}
	unproven, err := c.correctHoldings(ctx, a, list)
	if err != nil {
		c.notices.LedgerFailed(err)
		return
	}
	x.mu.Lock()
	x.compared = true
	x.addUnproven(unproven)
	x.mu.Unlock()
	c.requestProofs(ctx, a, x)
}

// addUnproven notes channels of which the Core asks the site for a new proof. x.mu is locked.
func (x *site) addUnproven(channels []string) {
	for _, ch := range channels {
		if !slices.Contains(x.unproven, ch) {
			x.unproven = append(x.unproven, ch)
		}
	}
}

// proveAll asks a site for a proof of all its channels.
func (c *accounts) proveAll(ctx context.Context, at *fleet.Site) {
	a := wire.Address{Domain: at.Domain, Site: at.Name}
	x := c.fleet.siteOf(a)
	x.mu.Lock()
	for _, p := range at.Placements {
		x.addUnproven([]string{p.Channel})
	}
	x.mu.Unlock()
	c.requestProofs(ctx, a, x)
}

// requestProofs asks a site to verify its unproven channels in their next windows. An operator's request for a
// channel that the site has not obeyed yet comes first.
func (c *accounts) requestProofs(ctx context.Context, a wire.Address, x *site) {
	x.mu.Lock()
	list, holds := slices.Clone(x.unproven), x.holds
	x.mu.Unlock()
	if len(list) == 0 || !c.incarnation.MayState(c.desired.Of(a).Revision) {
		return
	}
	for _, channel := range list {
		obeyed := findHeld(holds, channel).Obeyed
		if slices.ContainsFunc(c.desired.Of(a).Desired, func(d wire.Desired) bool { return d.Channel == channel && d.Start > obeyed }) {
			continue
		}
		_, err := c.request(ctx, "prove", fleet.Scope{Site: a.Site, Channel: channel}, desired.Request{Automatic: true, Obeyed: obeyed}, "what the site holds is unproven")
		if err != nil {
			c.notices.LedgerFailed(fmt.Errorf("ask site %s for a proof of channel %s: %w", a, channel, err))
			continue
		}
		x.mu.Lock()
		x.unproven = slices.DeleteFunc(x.unproven, func(ch string) bool { return ch == channel })
		x.mu.Unlock()
	}
}

// correctHoldings changes the ledger's holdings of a site to those that the site reports. It returns the channels of
// which the site holds the desired release: it would verify that only when it is due.
func (c *accounts) correctHoldings(ctx context.Context, a wire.Address, list []wire.Held) (unproven []string, err error) {
	stored, err := c.ledger.Holdings(ctx, ledger.Filter{Domain: a.Domain, Site: a.Site})
	if err != nil {
		return nil, err
	}
	for _, s := range stored {
		if findHeld(list, s.Channel).Channel == "" && s.Lacks.IsZero() {
			if err := c.ledger.Sites.Lack(ctx, a.Domain, a.Site, s.Channel); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range c.desired.Of(a).Desired {
		h := findHeld(list, d.Channel)
		if h.Channel == "" || slices.ContainsFunc(stored, func(s ledger.Holding) bool {
			return s.Channel == h.Channel && s.Number == h.Number && s.Release == h.Release && s.Lacks.IsZero()
		}) {
			continue
		}
		known, err := c.ledger.Sites.Correct(ctx, a.Domain, a.Site, h.Channel, h.Number, h.Release)
		if err != nil {
			return nil, err
		}
		if known && h.Number == d.Number && h.Release == d.Release { // another one it reports, or replaces, anyway
			unproven = append(unproven, h.Channel)
		}
	}
	return unproven, nil
}

// noteRevision handles the newest revision that a site has accepted. If this Core has not issued it, the
// bucket and the ledger were both restored from a backup, or another Core is at work.
func (c *accounts) noteRevision(ctx context.Context, a wire.Address, verb string, seen uint64) {
	if seen <= c.desired.Of(a).Revision {
		return
	}
	issued, err := c.ledger.Revision(ctx)
	if err != nil {
		c.notices.LedgerFailed(err)
		return
	}
	if seen <= issued {
		return
	}
	if err := c.incarnation.Followed(wire.IncarnationOf(seen)); err != nil {
		c.refusals.refuseMessage(ctx, message{from: a, verb: verb}, "forged", fmt.Sprintf("it reports revision %d, the newest is %d: %v", seen, issued, err), kinds.Malformed)
	}
}

// findHeld returns the release of a channel; the zero Held: there is none.
func findHeld(list []wire.Held, channel string) wire.Held {
	for _, h := range list {
		if h.Channel == channel {
			return h
		}
	}
	return wire.Held{}
}
