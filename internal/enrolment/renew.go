package enrolment

import (
	"context"
	"errors"

	"nightferry/internal/bus"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// Renew sends a site a new credential for its identity.
func (s *Service) Renew(ctx context.Context, a wire.Address) {
	at := s.o.Sites.Enrolment(a)
	if at.Identity == nil { // just revoked
		return
	}
	id := *at.Identity
	// A credential signed with an older key must not follow one signed with its successor, since the
	// site keeps the last one: so it is sent while the authority does not change.
	err := s.o.Access.Sign(func(authority *bus.Authority) error {
		now := s.o.Now()
		id.JWTExpires = now.Add(CredentialLife)
		jwt, err := authority.User(id.Domain, id.Site, id.Public, CredentialLife, now)
		if err != nil {
			return err
		}
		switch err := s.o.Identities.Renew(ctx, id.Public, id.JWTExpires, at.Version); {
		case errors.Is(err, ledger.ErrNotFound): // revoked in the meantime
			return nil
		case err != nil:
			s.o.Notices.LedgerFailed(err)
			return nil
		}
		s.o.Sites.Update(a, &id)
		s.o.Replies.Send(a, wire.VerbRenewed, &wire.Renewed{JWT: jwt})
		return nil
	})
	if err != nil {
		s.o.Notices.ReportFailure("renew", err)
	} else {
		s.o.Notices.ReportSuccess("renew")
	}
}

// Rekey gives a site a credential signed by its domain's newest key while older keys are still
// accepted. Older keys can then be removed without work at the site. The Core does not know which
// key signed the site's credential, so it answers each hello with a new one.
func (s *Service) Rekey(ctx context.Context, a wire.Address) {
	if s.o.Access.Rotating(a.Domain) {
		s.Renew(ctx, a)
	}
}

// RekeyAll does it for all sites that are connected.
func (s *Service) RekeyAll(ctx context.Context) {
	var list []wire.Address
	s.o.Sites.Enrolled(func(a wire.Address, at Site) {
		if at.Connected {
			list = append(list, a)
		}
	})
	for _, a := range list {
		s.Rekey(ctx, a)
	}
}
