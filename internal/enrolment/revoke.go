package enrolment

import (
	"context"
	"errors"
	"fmt"

	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// RevokeSite ends a site's identity and its outstanding tokens, and cuts its
// connection before it returns.
func (s *Service) RevokeSite(ctx context.Context, name, why string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	tokens, err := s.endTokens(ctx, "", name) // it may have left the configuration, or its domain
	if err != nil {
		return err
	}
	found := s.enrolledAs(name)
	if len(found) == 0 && tokens == 0 {
		return fmt.Errorf("site %q has no identity and no token: nothing to revoke", name)
	}
	for _, a := range found {
		if err := s.revokeSite(ctx, a, why); err != nil {
			return err
		}
	}
	return s.o.Access.Enforce(ctx)
}

// RevokeDomain ends the identities and outstanding tokens of all sites of a
// domain, cuts them and replaces its signing key; it returns the sites.
func (s *Service) RevokeDomain(ctx context.Context, domain, why string) ([]string, error) {
	if s.o.Fleet().Domain(domain) == nil {
		return nil, fmt.Errorf("no domain %q is configured", domain)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	var found []wire.Address
	s.o.Sites.Enrolled(func(a wire.Address, _ Site) {
		if a.Domain == domain {
			found = append(found, a)
		}
	})
	// The key first: a thief of it makes no further user.
	keys, err := s.o.Access.EndDomain(ctx, domain)
	if err != nil {
		return nil, err
	}
	if _, err := s.endTokens(ctx, domain, ""); err != nil {
		return nil, err
	}
	var sites []string
	for _, a := range found {
		if err := s.revokeSite(ctx, a, why); err != nil {
			return sites, err
		}
		sites = append(sites, a.Site)
	}
	if err := s.o.Notices.Audit(ctx, "revoke", "domain "+domain, why); err != nil {
		return sites, err
	}
	for _, k := range keys {
		if err := s.o.Bus.DomainNotCut(ctx, domain, k); err != nil {
			return sites, err
		}
	}
	return sites, s.o.Access.Refresh(ctx)
}

// endTokens ends the tokens with which nobody may enroll any more.
func (s *Service) endTokens(ctx context.Context, domain, site string) (int, error) {
	n, err := s.o.Tokens.EndTokens(ctx, domain, site)
	if err != nil || n == 0 {
		return n, err
	}
	object := "domain " + domain
	if site != "" {
		object = "site " + site
	}
	return n, s.o.Notices.Audit(ctx, "revoke", object, fmt.Sprintf("%d unused tokens", n))
}

func (s *Service) revokeSite(ctx context.Context, a wire.Address, why string) error {
	id, err := s.o.Identities.Revoke(ctx, a.Domain, a.Site, why)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	if err := s.replace(ctx, a, nil, s.o.Now()); err != nil {
		return err
	}
	s.o.Ended(a, why)
	if err := s.o.Notices.Audit(ctx, "revoke", "site "+a.Site, "key "+id.Public+": "+why); err != nil || id.Public == "" {
		return err
	}
	return s.o.Bus.NotCut(ctx, a, id.Public)
}
