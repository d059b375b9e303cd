package core

import (
	"context"
	"errors"

	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

func (e *Enrolment) renewCredential(ctx context.Context, m message, x *site) {
	x.mu.Lock()
	if x.identity == nil { // just revoked
		x.mu.Unlock()
		return
	}
	id := *x.identity
	version := x.sighting.Version
	x.mu.Unlock()
	// A state signed with an older key must not follow one signed with its successor, since the
	// site keeps the last one.
	e.access.renewMu.RLock()
	defer e.access.renewMu.RUnlock()
	authority, now := e.access.authority.Load(), e.o.Now()
	jwt, err := authority.User(id.Domain, id.Site, id.Public, userLife, now)
	if err != nil {
		e.notices.ReportFailure("renew", err)
		return
	}
	e.notices.ReportSuccess("renew")
	switch err := e.ledger.Sites.Renew(ctx, id.Public, now.Add(userLife), version); {
	case errors.Is(err, ledger.ErrNotFound): // revoked in the meantime
		return
	case err != nil:
		e.notices.LedgerFailed(err)
		return
	}
	id.JWTExpires = now.Add(userLife)
	x.mu.Lock()
	if x.identity != nil && x.identity.Public == id.Public {
		x.identity = &id
	}
	x.mu.Unlock()
	e.down.sendSigned(m.from, wire.VerbRenewed, 0, &wire.Renewed{JWT: jwt})
}

// rekeySite gives a site a credential signed by its domain's newest key while older keys are still
// accepted. Older keys can then be removed without work at the site. The Core does not know which
// key signed the site's credential, so it answers each hello with a new one.
func (e *Enrolment) rekeySite(ctx context.Context, a wire.Address, x *site) {
	if r := e.access.rotating.Load(); r != nil && (*r)[a.Domain] {
		e.renewCredential(ctx, message{from: a}, x)
	}
}

// rekeyAll does it for all that are connected.
func (e *Enrolment) rekeyAll(ctx context.Context) {
	at := map[wire.Address]*site{}
	e.fleet.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.identity != nil && e.fleet.heardLately(x) {
			at[a] = x
		}
	})
	for a, x := range at {
		e.rekeySite(ctx, a, x)
	}
}
