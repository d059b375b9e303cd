package core

import (
	"context"
	"time"

	"nightferry/internal/enrolment"
	"nightferry/internal/fleet"
	"nightferry/internal/halting"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// newEnrolment makes the service that enrolls sites.
func newEnrolment(c *Core) *enrolment.Service {
	known := &identities{c.Halts.service, &c.fleet, &c.notices}
	return enrolment.New(enrolment.Options{
		Tokens: &c.ledger.Sites, Identities: &c.ledger.Sites, Processes: &c.ledger.Sites, Sites: known, Access: &c.access, Bus: &c.link,
		Replies: replies{&c.down, &c.refusals}, Notices: enrolmentNotices{&c.notices}, Incidents: c.incidents,
		Fleet: func() *fleet.Fleet { return c.settings.Load().Fleet },
		Repository: func() enrolment.Repository {
			k := c.storage.keys.Load()
			return enrolment.Repository{ID: c.storage.repo.Load().ID(), Root: k.root, Key: k.repo, Store: c.storage.store.Load().origin}
		},
		Now: c.o.Now, Calendar: func(t time.Time) time.Time { return c.clock.motion.At(t) }, Actor: actorOf, Clip: clipText, Ready: c.ready,
		Prove: func(ctx context.Context, a wire.Address) {
			if s := c.settings.Load().Fleet.Site(a.Site); s != nil {
				c.accounts.proveAll(ctx, s)
			}
		},
		Joined: func(a wire.Address) {
			c.notices.emitEvent(Event{Kind: SiteEnrolled, Domain: a.Domain, Site: a.Site})
		},
		Ended: func(a wire.Address, why string) {
			c.sweepIncidents()
			c.notices.emitEvent(Event{Kind: SiteRevoked, Domain: a.Domain, Site: a.Site, Text: why})
		},
	})
}

// identities implements enrolment.Sites: it keeps the identities in force, with the Core's facts about each site.
type identities struct {
	halting *halting.Service
	fleet   *sites
	notices *notices
}

// Enrolled implements enrolment.Sites.
func (i *identities) Enrolled(fn func(wire.Address, enrolment.Site)) {
	i.fleet.eachSite(func(a wire.Address, x *site) {
		if s := i.read(x); s.Identity != nil {
			fn(a, s)
		}
	})
}

// Enrolment implements enrolment.Sites.
func (i *identities) Enrolment(a wire.Address) enrolment.Site {
	x := i.fleet.findSite(a)
	if x == nil {
		return enrolment.Site{}
	}
	return i.read(x)
}

func (i *identities) read(x *site) enrolment.Site {
	x.mu.Lock()
	defer x.mu.Unlock()
	return enrolment.Site{Identity: x.identity, Connected: i.fleet.heardLately(x), Refused: x.refused != "", Seen: x.seen, Version: x.sighting.Version}
}

// Replace implements enrolment.Sites. A confirmation of the former server proves nothing any more.
func (i *identities) Replace(ctx context.Context, a wire.Address, id *ledger.Identity, ended time.Time) error {
	x := i.fleet.siteOf(a)
	if err := x.setIdentity(id, ended); err != nil {
		return err
	}
	x.mu.Lock()
	x.epoch, x.unproven = 0, nil
	x.mu.Unlock()
	i.Doubt(ctx, a)
	return nil
}

// Update implements enrolment.Sites.
func (i *identities) Update(a wire.Address, id *ledger.Identity) {
	x := i.fleet.siteOf(a)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.identity != nil && x.identity.Public == id.Public {
		x.identity = id
	}
}

// Doubt implements enrolment.Sites.
func (i *identities) Doubt(ctx context.Context, a wire.Address) {
	x := i.fleet.siteOf(a)
	x.mu.Lock()
	x.local = nil
	x.mu.Unlock()
	if err := i.halting.Forget(ctx, a); err != nil {
		i.notices.LedgerFailed(err)
	}
}

// replies implements enrolment.Replies.
type replies struct {
	down     *downlink
	refusals *refusals
}

// Send implements enrolment.Replies.
func (r replies) Send(a wire.Address, verb string, v any) { r.down.sendSigned(a, verb, 0, v) }

// Refuse implements enrolment.Replies.
func (r replies) Refuse(ctx context.Context, from wire.Address, verb, code, why string, kind kinds.Kind) {
	r.refusals.refuseMessage(ctx, message{from: from, verb: verb}, code, why, kind)
}

// RefuseError implements enrolment.Replies.
func (r replies) RefuseError(ctx context.Context, from wire.Address, verb string, err error) {
	r.refusals.refuseError(ctx, message{from: from, verb: verb}, err)
}

// enrolmentNotices implements enrolment.Notices.
type enrolmentNotices struct{ *notices }

// AuditToken records an act of a token's holder.
func (n enrolmentNotices) AuditToken(ctx context.Context, token, what, object, detail string) error {
	return n.audits.Audit(ctx, ledger.Deed{Who: "token " + token, What: what, Object: object, Detail: detail})
}
