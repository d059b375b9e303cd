package enrolment

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

const (
	nonceLife = time.Minute
	// maxChallenges bounds the enrollments under way.
	maxChallenges = 4096
)

// challenge is an enrollment under way.
type challenge struct {
	nonce    []byte
	identity trust.Public
	expires  time.Time
}

// putChallenge keeps the challenge of a token. It returns false if too many wait.
func (s *Service) putChallenge(token string, ch challenge, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, old := range s.challenges {
		if now.After(old.expires) {
			delete(s.challenges, t)
		}
	}
	if len(s.challenges) >= maxChallenges {
		return false
	}
	s.challenges[token] = ch
	return true
}

// takeChallenge returns the token's challenge, once.
func (s *Service) takeChallenge(token string) (challenge, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, ok := s.challenges[token]
	delete(s.challenges, token)
	return ch, ok
}

// HandleToken handles a message of the holder of a token.
func (s *Service) HandleToken(ctx context.Context, from wire.Address, verb string, data []byte) {
	switch verb {
	case wire.VerbChallenge:
		var v wire.Challenge
		signed, err := wire.Open(data, s.o.Repository().ID, from, verb, acceptAnyKey, &v)
		if err == nil && signed.Signer != v.Public {
			err = fmt.Errorf("%w: signed by key %s, it asks for %s", trust.ErrUntrusted, signed.Signer, v.Public)
		}
		if err != nil {
			s.o.Replies.RefuseError(ctx, from, verb, err)
			return
		}
		nonce := make([]byte, 32)
		rand.Read(nonce) // never fails (crypto/rand)
		now := s.o.Now()
		if !s.putChallenge(from.Site, challenge{nonce, v.Public, now.Add(nonceLife)}, now) {
			s.replyBusy(from, verb, "too many sites are enrolling: try again in a minute")
			return
		}
		s.o.Replies.Send(from, wire.VerbNonce, &wire.Nonce{Nonce: nonce})
	case wire.VerbEnrol:
		var v wire.Enrol
		signed, err := wire.Open(data, s.o.Repository().ID, from, verb, acceptAnyKey, &v)
		if err != nil {
			s.o.Replies.RefuseError(ctx, from, verb, err)
			return
		}
		s.enrolSite(ctx, from, &v, signed.Signer)
	default:
		s.o.Replies.Refuse(ctx, from, verb, "forged", "a token's holder can only enroll", kinds.Malformed)
	}
}

// acceptAnyKey accepts the signature of a key that is to become known.
func acceptAnyKey(trust.Public) error { return nil }

func (s *Service) replyBusy(to wire.Address, verb, why string) {
	s.o.Replies.Send(to, wire.VerbRefuse, &wire.Refusal{Of: verb, Code: "busy", Why: why})
}

func (s *Service) enrolSite(ctx context.Context, from wire.Address, v *wire.Enrol, identity trust.Public) {
	const verb = wire.VerbEnrol
	ch, ok := s.takeChallenge(from.Site)
	if !ok || ch.identity != identity || string(ch.nonce) != string(v.Nonce) || s.o.Now().After(ch.expires) {
		s.o.Replies.Refuse(ctx, from, verb, "expired", "the enrollment took longer than a minute, or another one came between: begin again", kinds.TokenBad)
		return
	}
	if !v.Proves(identity) {
		s.o.Replies.Refuse(ctx, from, verb, "forged", "the token's seed has not signed for this identity", kinds.Forged)
		return
	}
	public, err := bus.PublicText(identity[:])
	if err != nil {
		s.o.Replies.RefuseError(ctx, from, verb, err)
		return
	}
	s.changing.Lock() // a site that is being revoked does not slip in meanwhile
	defer s.changing.Unlock()
	t, err := s.o.Tokens.TakeToken(ctx, from.Site, sha256.Sum256(v.Token[:]), public)
	if err != nil {
		s.refuseToken(ctx, from, err)
		return
	}
	at := s.o.Fleet().Site(t.Site)
	if at == nil || at.Domain != t.Domain {
		s.o.Replies.Refuse(ctx, from, verb, "unknown", fmt.Sprintf("the Core's configuration no longer has site %q in domain %q: add it and make a new token", t.Site, t.Domain), kinds.TokenBad)
		return
	}
	grant, err := s.grantIdentity(ctx, from.Site, v, at, public)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		s.o.Replies.Refuse(ctx, from, verb, "revoked", "this key was revoked or superseded before: remove the agent's state and enroll with a new token", kinds.Revoked)
	case err != nil:
		s.o.Notices.LedgerFailed(err)
		s.replyBusy(from, verb, "the Core could not do it now: try again")
	default:
		s.o.Replies.Send(from, wire.VerbGrant, grant)
	}
}

func (s *Service) refuseToken(ctx context.Context, from wire.Address, err error) {
	code := ""
	switch {
	case errors.Is(err, ledger.ErrUsedToken):
		code = "used"
	case errors.Is(err, ledger.ErrExpiredToken):
		code = "expired"
	case errors.Is(err, ledger.ErrUnknownToken):
		code = "unknown"
	default:
		s.o.Notices.LedgerFailed(err)
		s.replyBusy(from, wire.VerbEnrol, "the Core could not look the token up: try again")
		return
	}
	s.o.Replies.Refuse(ctx, from, wire.VerbEnrol, code, err.Error(), kinds.TokenBad)
}

// grantIdentity enters the identity and makes the site's credentials. The
// identity that it supersedes is cut before it returns.
func (s *Service) grantIdentity(ctx context.Context, token string, v *wire.Enrol, at *fleet.Site, public string) (*wire.Grant, error) {
	now, r := s.o.Now(), s.o.Repository()
	id := ledger.Identity{Domain: at.Domain, Site: at.Name, Public: public, Enrolled: s.o.Calendar(now), JWTExpires: now.Add(CredentialLife), Version: s.o.Clip(v.Version)}
	g := &wire.Grant{Core: s.o.Bus.URLs(), Store: r.Store, Region: at.Region}
	var err error
	if r.Key != nil {
		if g.Sealed, err = wire.SealTo(v.Box, r.Key); err != nil {
			return nil, err
		}
	}
	old, err := s.o.Identities.Enrol(ctx, id)
	if err != nil {
		return nil, err
	}
	a := wire.Address{Domain: at.Domain, Site: at.Name}
	if err := errors.Join(s.replace(ctx, a, &id, time.Time{}), s.cutSuperseded(ctx, a, old)); err != nil {
		return nil, err
	}
	err = s.o.Access.Sign(func(authority *bus.Authority) (err error) {
		g.JWT, err = authority.User(at.Domain, at.Name, public, CredentialLife, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, kind := range []kinds.Kind{kinds.Revoked, kinds.Denied, kinds.Cloned} {
		s.o.Incidents.Resolve(kind, "", a)
	}
	detail := "key " + public + ", " + s.o.Clip(strings.TrimSpace(v.Version+" "+v.System))
	for _, was := range old {
		detail += fmt.Sprintf(", in place of key %s of domain %s", was.Public, was.Domain)
	}
	if err := s.o.Notices.AuditToken(ctx, token, "enrolled", "site "+at.Name, detail); err != nil {
		return nil, err
	}
	s.o.Joined(a)
	return g, nil
}

// cutSuperseded disconnects the former servers of the site at a, also if the site was in another domain then.
func (s *Service) cutSuperseded(ctx context.Context, a wire.Address, old []ledger.Identity) error {
	if len(old) == 0 {
		return nil
	}
	errs := []error{s.o.Access.Enforce(ctx)}
	for _, was := range old {
		former := wire.Address{Domain: was.Domain, Site: was.Site}
		if former != a {
			errs = append(errs, s.replace(ctx, former, nil, was.Ended))
		}
		errs = append(errs, s.o.Bus.NotCut(ctx, former, was.Public))
	}
	return errors.Join(errs...)
}

// EndToken revokes the token's user on the bus as soon as the site that used the token connects. Until then the site
// may need it, because the answer to its enrollment may have been lost.
func (s *Service) EndToken(ctx context.Context, a wire.Address) {
	id := s.o.Sites.Enrolment(a).Identity
	if id == nil { // just revoked, with its tokens
		return
	}
	n, err := s.o.Tokens.EndUsedTokens(ctx, id.Public)
	if err != nil {
		s.o.Notices.LedgerFailed(err)
		return
	}
	if n == 0 {
		return
	}
	if err := s.o.Access.Enforce(ctx); err != nil {
		s.o.Notices.ReportFailure("bus", err)
	}
}
