package core

import (
	"context"
	"slices"

	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/heads"
	"nightferry/internal/lending"
	"nightferry/internal/nights"
	"nightferry/internal/wire"
)

// newLending makes the service that presigns URLs.
func (c *Core) newLending() *lending.Service {
	return lending.New(lending.Options{
		Ledger: c.ledger, Trees: c.releases, Notices: lendingNotices{&c.notices, &c.refusals, func(a wire.Address) bool { return isUnread(c.settings.Load().Fleet, c.newest, a) }},
		Now: c.clock.now, Wall: c.clock.wallTime, Real: c.clock.realDuration,
		Repo: c.storage.repo.Load, Store: func() lending.Store { return c.storage.store.Load() }, Newest: c.newest.Of,
		Fleet: func() (*fleet.Fleet, *nights.Table) {
			s := c.settings.Load()
			return s.Fleet, s.nights
		},
		Site: func(a wire.Address) lending.Site {
			return lending.Site{Desired: c.desired.Of(a).Desired, Enrolled: c.fleet.enrolledAt(a)}
		},
		Segments: func() (*durable.Root, error) { return c.storage.openSubfolder("segments") },
		Send:     func(a wire.Address, u *wire.URLs) error { return c.down.signAndSend(a, wire.VerbURLs, 0, u) },
		Guard:    func(a wire.Address, handle func()) { c.guardPanic(message{from: a, verb: wire.VerbAsk}, handle) },
	})
}

// lendingNotices reports for the lending service.
type lendingNotices struct {
	*notices
	refusals *refusals
	isUnread func(wire.Address) bool
}

// isUnread reports whether a site has a channel whose head was not read since the start: the site may pull a release that
// this Core does not know yet.
func isUnread(f *fleet.Fleet, newest *heads.Service, a wire.Address) bool {
	s := f.Site(a.Site)
	return s != nil && slices.ContainsFunc(s.Placements, func(p fleet.Placement) bool { return !newest.Read(p.Channel) })
}

// Foreign implements lending.Notices.
func (n lendingNotices) Foreign(ctx context.Context, a wire.Address, keys []string) {
	if n.isUnread(a) {
		n.refusals.countRefusal("ask")
		return
	}
	n.refusals.auditForeign(ctx, a, keys)
}

// Overrun implements lending.Notices.
func (n lendingNotices) Overrun() { n.refusals.countRefusal("overrun") }
