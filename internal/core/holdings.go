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
	if same || spooled > 0 || !c.incarnation.MayState(c.desired.Of(a).Revision) {
		return
	}
	if err := c.correctHoldings(ctx, a, list); err != nil {
		c.notices.LedgerFailed(err)
		return
	}
	x.mu.Lock()
	x.compared = true
	x.mu.Unlock()
}

// correctHoldings changes the ledger's holdings of a site to those that the site reports. If the site holds the
// desired release, it would verify it only when that is due, so the Core asks it to do so in its next
// window.
func (c *accounts) correctHoldings(ctx context.Context, a wire.Address, list []wire.Held) error {
	stored, err := c.ledger.Holdings(ctx, ledger.Filter{Domain: a.Domain, Site: a.Site})
	if err != nil {
		return err
	}
	for _, s := range stored {
		if findHeld(list, s.Channel).Channel == "" && !s.Verified.IsZero() {
			if _, err := c.ledger.Sites.Correct(ctx, a.Domain, a.Site, s.Channel, 0, s.Release); err != nil {
				return err
			}
		}
	}
	for _, d := range c.desired.Of(a).Desired {
		h := findHeld(list, d.Channel)
		if h.Channel == "" || slices.ContainsFunc(stored, func(s ledger.Holding) bool {
			return s.Channel == h.Channel && s.Number == h.Number && s.Release == h.Release
		}) {
			continue
		}
		known, err := c.ledger.Sites.Correct(ctx, a.Domain, a.Site, h.Channel, h.Number, h.Release)
		if err != nil {
			return err
		}
		if !known || h.Number != d.Number || h.Release != d.Release {
			continue // the site reports, or pulls, the desired release anyway
		}
		if _, err := c.request(ctx, "prove", fleet.Scope{Site: a.Site, Channel: h.Channel}, desired.Request{}, fmt.Sprintf("the site holds release %d, which this ledger does not know", h.Number)); err != nil {
			return err
		}
	}
	return nil
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
