package core

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/desired"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/halting"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

const (
	tokenLife = 24 * time.Hour
	nonceLife = time.Minute
	// maxChallenges bounds the enrolments under way.
	maxChallenges = 4096
)

// enrolments are the challenges that wait for their answer, by token.
type enrolments struct {
	mu  sync.Mutex
	all map[string]challenge
}

type challenge struct {
	nonce    []byte
	identity trust.Public
	expires  time.Time
}

func (e *enrolments) putChallenge(token string, ch challenge, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[string]challenge{}
	}
	for t, old := range e.all {
		if now.After(old.expires) {
			delete(e.all, t)
		}
	}
	if len(e.all) >= maxChallenges {
		return false
	}
	e.all[token] = ch
	return true
}

// takeChallenge returns the token's challenge, once.
func (e *enrolments) takeChallenge(token string) (challenge, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ch, ok := e.all[token]
	delete(e.all, token)
	return ch, ok
}

// Enrolment decides which machine a site's identity belongs to: it makes tokens,
// enrolls, renews and revokes, and finds copies. It is safe for concurrent use.
type Enrolment struct {
	o        *Options
	settings *atomic.Pointer[Settings]
	ledger   *ledger.Ledger
	vault    *vault.Vault
	storage  *storage
	fleet    *sites
	halting  *halting.Service
	access   *access
	link     *busLink
	down     *downlink
	refusals *refusals
	notices  *notices
	clock    *clocks
	ready    chan struct{} // closed when the Core's addresses are known
	request  func(ctx context.Context, verb string, scope fleet.Scope, r desired.Request, detail string) ([]Order, error)
	sweep    func() // ends incidents of what is no longer enrolled

	mu     sync.Mutex // one enrolment or revocation at a time
	enrols enrolments
}

// Token makes a one-time token for a configured site, good for life (0: 24 h).
func (e *Enrolment) Token(ctx context.Context, site string, life time.Duration) (*IssuedToken, error) {
	f := e.settings.Load().Fleet
	s := f.Site(site)
	if s == nil {
		if _, err := f.Select(fleet.Scope{Site: site}); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("no site %q is configured", site)
	}
	if life <= 0 {
		life = tokenLife
	}
	select {
	case <-e.ready:
	default:
		return nil, errors.New("the Core is starting: try again")
	}
	var seed [32]byte
	var id [8]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	rand.Read(id[:])
	t := wire.Token{Core: e.link.siteURLs(), CA: digest.Digest(e.link.busPin()), Repo: e.storage.repo.Load().ID(), Root: e.storage.keys.Load().root,
		Domain: s.Domain, Site: s.Name, ID: hex.EncodeToString(id[:]), Seed: seed[:]}
	_, public, err := bus.IdentityOf(seed)
	if err != nil {
		return nil, err
	}
	now := e.o.Now()
	expires := now.Add(life)
	t.Expires = expires.Unix()
	if t.JWT, err = e.access.authority.Load().Enrol(t.ID, public, life, now); err != nil {
		return nil, err
	}
	text, err := t.Text()
	if err != nil {
		return nil, err
	}
	key := wire.TokenKey(seed[:])
	if _, err := e.ledger.Sites.AddToken(ctx, ledger.Token{ID: t.ID, Domain: t.Domain, Site: t.Site, IssuedBy: actorOf(ctx), User: public, Expires: e.clock.motion.At(expires)}, sha256.Sum256(key[:])); err != nil {
		return nil, err
	}
	if err := e.notices.Audit(ctx, "token", "site "+s.Name, "token "+t.ID); err != nil {
		return nil, err
	}
	issued := &IssuedToken{ID: t.ID, Domain: t.Domain, Site: t.Site, Expires: expires, Text: text}
	a := wire.Address{Domain: s.Domain, Site: s.Name}
	if old := e.fleet.enrolledAs(s.Name); len(old) > 0 {
		a = old[0] // the site's domain, or the one that it was moved from
	}
	x := e.fleet.siteOf(a)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.identity != nil {
		issued.Joined, issued.Connected, issued.Seen, issued.Version = x.identity.Enrolled, e.fleet.heardLately(x), x.seen, cmp.Or(x.sighting.Version, x.identity.Version)
	}
	return issued, nil
}

// Wave makes tokens for the first n sites of a scope that have not joined.
func (e *Enrolment) Wave(ctx context.Context, scope fleet.Scope, n int, life time.Duration) ([]IssuedToken, error) {
	list, err := e.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	var out []IssuedToken
	for _, s := range list {
		if len(out) == n {
			break
		}
		x := e.fleet.siteOf(wire.Address{Domain: s.Domain, Site: s.Name})
		x.mu.Lock()
		joined := x.identity != nil
		x.mu.Unlock()
		if joined {
			continue
		}
		t, err := e.Token(ctx, s.Name, life)
		if err != nil {
			return out, err
		}
		out = append(out, *t)
	}
	return out, nil
}

// handleToken works on a message of somebody who holds a token.
func (e *Enrolment) handleToken(ctx context.Context, m message) {
	switch m.verb {
	case wire.VerbChallenge:
		var v wire.Challenge
		signed, err := wire.Open(m.data, e.storage.repo.Load().ID(), m.from, m.verb, acceptAnyKey, &v)
		if err == nil && signed.Signer != v.Public {
			err = fmt.Errorf("%w: signed by key %s, it asks for %s", trust.ErrUntrusted, signed.Signer, v.Public)
		}
		if err != nil {
			e.refusals.refuseError(ctx, m, err)
			return
		}
		nonce := make([]byte, 32)
		rand.Read(nonce) // never fails (crypto/rand)
		now := e.o.Now()
		if !e.enrols.putChallenge(m.from.Site, challenge{nonce, v.Public, now.Add(nonceLife)}, now) {
			e.down.sendSigned(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "too many sites are enrolling: try again in a minute"})
			return
		}
		e.down.sendSigned(m.from, wire.VerbNonce, 0, &wire.Nonce{Nonce: nonce})
	case wire.VerbEnrol:
		var v wire.Enrol
		signed, err := wire.Open(m.data, e.storage.repo.Load().ID(), m.from, m.verb, acceptAnyKey, &v)
		if err != nil {
			e.refusals.refuseError(ctx, m, err)
			return
		}
		e.enrolSite(ctx, m, &v, signed.Signer)
	default:
		e.refusals.refuseMessage(ctx, m, "forged", "a token's holder can only enroll", kinds.Malformed)
	}
}

// acceptAnyKey accepts the signature of a key that is to become known.
func acceptAnyKey(trust.Public) error { return nil }

func (e *Enrolment) enrolSite(ctx context.Context, m message, v *wire.Enrol, identity trust.Public) {
	ch, ok := e.enrols.takeChallenge(m.from.Site)
	if !ok || ch.identity != identity || string(ch.nonce) != string(v.Nonce) || e.o.Now().After(ch.expires) {
		e.refusals.refuseMessage(ctx, m, "expired", "the enrollment took longer than a minute, or another one came between: begin again", kinds.TokenBad)
		return
	}
	if !v.Proves(identity) {
		e.refusals.refuseMessage(ctx, m, "forged", "the token's seed has not signed for this identity", kinds.Forged)
		return
	}
	public, err := bus.PublicText(identity[:])
	if err != nil {
		e.refusals.refuseError(ctx, m, err)
		return
	}
	e.mu.Lock() // a site that is being revoked does not slip in meanwhile
	defer e.mu.Unlock()
	t, err := e.ledger.Sites.TakeToken(ctx, m.from.Site, sha256.Sum256(v.Token[:]), public)
	if err != nil {
		e.tokenRefused(ctx, m, err)
		return
	}
	s := e.settings.Load().Fleet.Site(t.Site)
	if s == nil || s.Domain != t.Domain {
		e.refusals.refuseMessage(ctx, m, "unknown", fmt.Sprintf("the Core's configuration no longer has site %q in domain %q: add it and make a new token", t.Site, t.Domain), kinds.TokenBad)
		return
	}
	grant, err := e.grantIdentity(ctx, m, v, s, public)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		e.refusals.refuseMessage(ctx, m, "revoked", "this key was revoked or superseded before: remove the agent's state and enroll with a new token", kinds.Revoked)
	case err != nil:
		e.notices.LedgerFailed(err)
		e.down.sendSigned(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "the Core could not do it now: try again"})
	default:
		e.down.sendSigned(m.from, wire.VerbGrant, 0, grant)
	}
}

func (e *Enrolment) tokenRefused(ctx context.Context, m message, err error) {
	code := ""
	switch {
	case errors.Is(err, ledger.ErrUsedToken):
		code = "used"
	case errors.Is(err, ledger.ErrExpiredToken):
		code = "expired"
	case errors.Is(err, ledger.ErrUnknownToken):
		code = "unknown"
	default:
		e.notices.LedgerFailed(err)
		e.down.sendSigned(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "the Core could not look the token up: try again"})
		return
	}
	e.refusals.refuseMessage(ctx, m, code, err.Error(), kinds.TokenBad)
}

// grantIdentity enters the identity and makes what the site needs from now on. The
// identity that it supersedes is cut before it returns.
func (e *Enrolment) grantIdentity(ctx context.Context, m message, v *wire.Enrol, s *fleet.Site, public string) (*wire.Grant, error) {
	now := e.o.Now()
	id := ledger.Identity{Domain: s.Domain, Site: s.Name, Public: public, Enrolled: e.clock.motion.At(now), JWTExpires: now.Add(userLife), Version: clipText(v.Version)}
	g := &wire.Grant{Core: e.link.siteURLs(), Store: e.storage.store.Load().origin, Region: s.Region}
	var err error
	if key := e.storage.keys.Load().repo; key != nil {
		if g.Sealed, err = wire.SealTo(v.Box, key); err != nil {
			return nil, err
		}
	}
	old, err := e.ledger.Sites.Enrol(ctx, id)
	if err != nil {
		return nil, err
	}
	a := wire.Address{Domain: s.Domain, Site: s.Name}
	x := e.fleet.siteOf(a)
	if err := x.setIdentity(&id, time.Time{}); err != nil {
		return nil, err
	}
	e.dropServer(ctx, a, x)
	if err := e.cutSuperseded(ctx, a, old); err != nil {
		return nil, err
	}
	if g.JWT, err = e.access.authority.Load().User(s.Domain, s.Name, public, userLife, now); err != nil {
		return nil, err
	}
	e.notices.incidents.Resolve(kinds.Revoked, "", a)
	e.notices.incidents.Resolve(kinds.Denied, "", a)
	e.notices.incidents.Resolve(kinds.Cloned, "", a)
	detail := "key " + public + ", " + clipText(strings.TrimSpace(v.Version+" "+v.System))
	for _, was := range old {
		detail += fmt.Sprintf(", in place of key %s of domain %s", was.Public, was.Domain)
	}
	if err := e.ledger.Audit(ctx, ledger.Deed{Who: "token " + m.from.Site, What: "enrolled", Object: "site " + s.Name, Detail: detail}); err != nil {
		return nil, err
	}
	e.notices.emitEvent(Event{Kind: SiteEnrolled, Domain: a.Domain, Site: a.Site})
	return g, nil
}

// cutSuperseded disconnects the former servers of the site at a, also if the site was in another domain then.
func (e *Enrolment) cutSuperseded(ctx context.Context, a wire.Address, old []ledger.Identity) error {
	if len(old) == 0 {
		return nil
	}
	errs := []error{e.access.enforceRevocations(ctx)}
	for _, was := range old {
		former := wire.Address{Domain: was.Domain, Site: was.Site}
		if former != a {
			x := e.fleet.siteOf(former)
			errs = append(errs, x.setIdentity(nil, was.Ended))
			e.dropServer(ctx, former, x)
		}
		errs = append(errs, e.link.userNotCut(ctx, former, was.Public))
	}
	return errors.Join(errs...)
}

// endToken revokes the token's user on the bus as soon as the site that used the token connects. Until then the site
// may need it, because the answer to its enrolment may have been lost.
func (e *Enrolment) endToken(ctx context.Context, x *site) {
	x.mu.Lock()
	id := x.identity
	x.mu.Unlock()
	if id == nil { // just revoked, with its tokens
		return
	}
	n, err := e.ledger.Sites.EndUsedTokens(ctx, id.Public)
	if err != nil {
		e.notices.LedgerFailed(err)
		return
	}
	if n == 0 {
		return
	}
	if err := e.access.enforceRevocations(ctx); err != nil {
		e.notices.ReportFailure("bus", err)
	}
}

// RevokeSite ends a site's identity and its outstanding tokens, and cuts its
// connection before it returns.
func (e *Enrolment) RevokeSite(ctx context.Context, name, why string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	tokens, err := e.endTokens(ctx, "", name) // it may have left the configuration, or its domain
	if err != nil {
		return err
	}
	found := e.fleet.enrolledAs(name)
	if len(found) == 0 && tokens == 0 {
		return fmt.Errorf("site %q has no identity and no token: nothing to revoke", name)
	}
	for _, a := range found {
		if err := e.revokeSite(ctx, a, why); err != nil {
			return err
		}
	}
	return e.access.enforceRevocations(ctx)
}

// endTokens ends what nobody should enrol with any more.
func (e *Enrolment) endTokens(ctx context.Context, domain, site string) (int, error) {
	n, err := e.ledger.Sites.EndTokens(ctx, domain, site)
	if err != nil || n == 0 {
		return n, err
	}
	object := "domain " + domain
	if site != "" {
		object = "site " + site
	}
	return n, e.notices.Audit(ctx, "revoke", object, fmt.Sprintf("%d unused tokens", n))
}

func (e *Enrolment) revokeSite(ctx context.Context, a wire.Address, why string) error {
	id, err := e.ledger.Sites.Revoke(ctx, a.Domain, a.Site, why)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	x := e.fleet.siteOf(a)
	if err := x.setIdentity(nil, e.o.Now()); err != nil {
		return err
	}
	e.dropServer(ctx, a, x)
	e.sweep()
	e.notices.emitEvent(Event{Kind: SiteRevoked, Domain: a.Domain, Site: a.Site, Text: why})
	if err := e.notices.Audit(ctx, "revoke", "site "+a.Site, "key "+id.Public+": "+why); err != nil || id.Public == "" {
		return err
	}
	return e.link.userNotCut(ctx, a, id.Public)
}

// RevokeDomain ends the identities and outstanding tokens of all sites of a
// domain, cuts them and replaces its signing key; it returns the sites.
func (e *Enrolment) RevokeDomain(ctx context.Context, domain, why string) ([]string, error) {
	if e.settings.Load().Fleet.Domain(domain) == nil {
		return nil, fmt.Errorf("no domain %q is configured", domain)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []wire.Address
	e.fleet.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if a.Domain == domain && x.identity != nil {
			found = append(found, a)
		}
	})
	var keys []string
	for _, s := range e.access.authority.Load().Scopes() {
		if s.Role == bus.DomainRole(domain) {
			keys = append(keys, s.Key)
		}
	}
	// The key first: whoever stole it makes no further user.
	if err := e.vault.Delete(ctx, domainSecret(domain)); err != nil {
		return nil, err
	}
	if err := e.access.cutDomain(ctx, domain); err != nil {
		return nil, err
	}
	if _, err := e.endTokens(ctx, domain, ""); err != nil {
		return nil, err
	}
	var sites []string
	for _, a := range found {
		if err := e.revokeSite(ctx, a, why); err != nil {
			return sites, err
		}
		sites = append(sites, a.Site)
	}
	if err := e.notices.Audit(ctx, "revoke", "domain "+domain, why); err != nil {
		return sites, err
	}
	for _, k := range keys {
		if err := e.link.notCut(ctx, wire.Address{}, "domain "+domain, "nsc edit account --name NAME --rm-sk "+k); err != nil {
			return sites, err
		}
	}
	return sites, e.access.refresh(ctx)
}
