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
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
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

func (e *enrolments) put(token string, ch challenge, now time.Time) bool {
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

// take returns the token's challenge, once.
func (e *enrolments) take(token string) (challenge, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ch, ok := e.all[token]
	delete(e.all, token)
	return ch, ok
}

// Token makes a one-time token for a configured site, good for life (0: 24 h).
func (c *Core) Token(ctx context.Context, site string, life time.Duration) (*IssuedToken, error) {
	f := c.settings.Load().Fleet
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
	case <-c.ready:
	default:
		return nil, errors.New("the Core is starting: try again")
	}
	var seed [32]byte
	var id [8]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	rand.Read(id[:])
	t := wire.Token{Core: c.urls(), CA: digest.Digest(c.pin()), Repo: c.storage.repo.Load().ID(), Root: c.storage.keys.Load().root,
		Domain: s.Domain, Site: s.Name, ID: hex.EncodeToString(id[:]), Seed: seed[:]}
	_, public, err := bus.IdentityOf(seed)
	if err != nil {
		return nil, err
	}
	now := c.o.Now()
	expires := now.Add(life)
	t.Expires = expires.Unix()
	if t.JWT, err = c.authority.Load().Enrol(t.ID, public, life, now); err != nil {
		return nil, err
	}
	text, err := t.Text()
	if err != nil {
		return nil, err
	}
	key := wire.TokenKey(seed[:])
	if _, err := c.ledger.AddToken(ctx, ledger.Token{ID: t.ID, Domain: t.Domain, Site: t.Site, IssuedBy: actor(ctx), Expires: c.clock.motion.At(expires)}, sha256.Sum256(key[:])); err != nil {
		return nil, err
	}
	if err := c.notices.Audit(ctx, "token", "site "+s.Name, "token "+t.ID); err != nil {
		return nil, err
	}
	issued := &IssuedToken{ID: t.ID, Domain: t.Domain, Site: t.Site, Expires: expires, Text: text}
	x := c.fleet.get(wire.Address{Domain: s.Domain, Site: s.Name})
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.identity != nil {
		issued.Joined, issued.Connected, issued.Seen, issued.Version = x.identity.Enrolled, c.fleet.heard(x), x.seen, cmp.Or(x.sighting.Version, x.identity.Version)
	}
	return issued, nil
}

// Wave makes tokens for the first n sites of a scope that have not joined.
func (c *Core) Wave(ctx context.Context, scope fleet.Scope, n int, life time.Duration) ([]IssuedToken, error) {
	list, err := c.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	var out []IssuedToken
	for _, s := range list {
		if len(out) == n {
			break
		}
		x := c.fleet.get(wire.Address{Domain: s.Domain, Site: s.Name})
		x.mu.Lock()
		joined := x.identity != nil
		x.mu.Unlock()
		if joined {
			continue
		}
		t, err := c.Token(ctx, s.Name, life)
		if err != nil {
			return out, err
		}
		out = append(out, *t)
	}
	return out, nil
}

// Tokens lists the tokens that were issued, without secrets.
func (c *Core) Tokens(ctx context.Context) ([]ledger.Token, error) { return c.ledger.Tokens(ctx) }

// hearEnrolment works on a message of somebody who holds a token.
func (c *Core) hearEnrolment(ctx context.Context, m message) {
	switch m.verb {
	case wire.VerbChallenge:
		var v wire.Challenge
		signed, err := wire.Open(m.data, c.storage.repo.Load().ID(), m.from, m.verb, anybody, &v)
		if err == nil && signed.Signer != v.Public {
			err = fmt.Errorf("%w: signed by key %s, it asks for %s", trust.ErrUntrusted, signed.Signer, v.Public)
		}
		if err != nil {
			c.refusals.refuseError(ctx, m, err)
			return
		}
		nonce := make([]byte, 32)
		rand.Read(nonce) // never fails (crypto/rand)
		now := c.o.Now()
		if !c.enrols.put(m.from.Site, challenge{nonce, v.Public, now.Add(nonceLife)}, now) {
			c.down.answer(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "too many sites are enrolling: try again in a minute"})
			return
		}
		c.down.answer(m.from, wire.VerbNonce, 0, &wire.Nonce{Nonce: nonce})
	case wire.VerbEnrol:
		var v wire.Enrol
		signed, err := wire.Open(m.data, c.storage.repo.Load().ID(), m.from, m.verb, anybody, &v)
		if err != nil {
			c.refusals.refuseError(ctx, m, err)
			return
		}
		c.enrol(ctx, m, &v, signed.Signer)
	default:
		c.refusals.refuse(ctx, m, "forged", "a token's holder can only enroll", Malformed)
	}
}

// anybody accepts the signature of a key that is to become known.
func anybody(trust.Public) error { return nil }

func (c *Core) enrol(ctx context.Context, m message, v *wire.Enrol, identity trust.Public) {
	ch, ok := c.enrols.take(m.from.Site)
	if !ok || ch.identity != identity || string(ch.nonce) != string(v.Nonce) || c.o.Now().After(ch.expires) {
		c.refusals.refuse(ctx, m, "expired", "the enrollment took longer than a minute, or another one came between: begin again", TokenBad)
		return
	}
	if !v.Proves(identity) {
		c.refusals.refuse(ctx, m, "forged", "the token's seed has not signed for this identity", Forged)
		return
	}
	public, err := bus.PublicText(identity[:])
	if err != nil {
		c.refusals.refuseError(ctx, m, err)
		return
	}
	c.joinMu.Lock() // a site that is being revoked does not slip in meanwhile
	defer c.joinMu.Unlock()
	t, err := c.ledger.TakeToken(ctx, m.from.Site, sha256.Sum256(v.Token[:]), public)
	if err != nil {
		c.tokenRefused(ctx, m, err)
		return
	}
	s := c.settings.Load().Fleet.Site(t.Site)
	if s == nil || s.Domain != t.Domain {
		c.refusals.refuse(ctx, m, "unknown", fmt.Sprintf("the Core's configuration no longer has site %q in domain %q: add it and make a new token", t.Site, t.Domain), TokenBad)
		return
	}
	grant, err := c.grant(ctx, m, v, s, public)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		c.refusals.refuse(ctx, m, "revoked", "this key was revoked or superseded before: remove the agent's state and enroll with a new token", Revoked)
	case err != nil:
		c.notices.LedgerFailed(err)
		c.down.answer(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "the Core could not do it now: try again"})
	default:
		c.down.answer(m.from, wire.VerbGrant, 0, grant)
	}
}

func (c *Core) tokenRefused(ctx context.Context, m message, err error) {
	code := ""
	switch {
	case errors.Is(err, ledger.ErrUsedToken):
		code = "used"
	case errors.Is(err, ledger.ErrExpiredToken):
		code = "expired"
	case errors.Is(err, ledger.ErrUnknownToken):
		code = "unknown"
	default:
		c.notices.LedgerFailed(err)
		c.down.answer(m.from, wire.VerbRefuse, 0, &wire.Refusal{Of: m.verb, Code: "busy", Why: "the Core could not look the token up: try again"})
		return
	}
	c.refusals.refuse(ctx, m, code, err.Error(), TokenBad)
}

// grant enters the identity and makes what the site needs from now on. The
// identity that it supersedes is cut before it returns.
func (c *Core) grant(ctx context.Context, m message, v *wire.Enrol, s *fleet.Site, public string) (*wire.Grant, error) {
	now := c.o.Now()
	id := ledger.Identity{Domain: s.Domain, Site: s.Name, Public: public, Enrolled: c.clock.motion.At(now), JWTExpires: now.Add(userLife), Version: clip(v.Version)}
	g := &wire.Grant{Core: c.urls(), Store: c.storage.store.Load().origin, Region: s.Region}
	var err error
	if key := c.storage.keys.Load().repo; key != nil {
		if g.Sealed, err = wire.SealTo(v.Box, key); err != nil {
			return nil, err
		}
	}
	old, err := c.ledger.Enrol(ctx, id)
	if err != nil {
		return nil, err
	}
	a := wire.Address{Domain: s.Domain, Site: s.Name}
	x := c.fleet.get(a)
	if err := x.take(&id, time.Time{}); err != nil {
		return nil, err
	}
	c.replaced(ctx, a, x)
	if old != nil && old.Public != public {
		if err := errors.Join(c.enforceRevocations(ctx), c.userNotCut(ctx, a, old.Public)); err != nil {
			return nil, err
		}
	}
	if g.JWT, err = c.authority.Load().User(s.Domain, s.Name, public, userLife, now); err != nil {
		return nil, err
	}
	c.alarms.Over(Revoked, "", a)
	c.alarms.Over(Cloned, "", a)
	detail := "key " + public + ", " + clip(strings.TrimSpace(v.Version+" "+v.System))
	if old != nil && old.Public != public {
		detail += ", in place of key " + old.Public
	}
	if err := c.ledger.Audit(ctx, ledger.Deed{Who: "token " + m.from.Site, What: "enrolled", Object: "site " + s.Name, Detail: detail}); err != nil {
		return nil, err
	}
	c.notices.emit(Event{Kind: SiteEnrolled, Domain: a.Domain, Site: a.Site})
	return g, nil
}

// RevokeSite ends a site's identity and its outstanding tokens, and cuts its
// connection before it returns.
func (c *Core) RevokeSite(ctx context.Context, name, why string) error {
	c.joinMu.Lock()
	defer c.joinMu.Unlock()
	tokens := 0
	if s := c.settings.Load().Fleet.Site(name); s != nil {
		var err error
		if tokens, err = c.endTokens(ctx, s.Domain, name); err != nil {
			return err
		}
	}
	var found []wire.Address
	c.fleet.each(func(a wire.Address, x *site) {
		if a.Site == name {
			x.mu.Lock()
			if x.identity != nil {
				found = append(found, a)
			}
			x.mu.Unlock()
		}
	})
	if len(found) == 0 && tokens == 0 {
		return fmt.Errorf("site %q has no identity and no token: nothing to revoke", name)
	}
	for _, a := range found {
		if err := c.revoke(ctx, a, why); err != nil {
			return err
		}
	}
	return c.enforceRevocations(ctx)
}

// endTokens ends what nobody should enrol with any more.
func (c *Core) endTokens(ctx context.Context, domain, site string) (int, error) {
	n, err := c.ledger.EndTokens(ctx, domain, site)
	if err != nil || n == 0 {
		return n, err
	}
	object := "domain " + domain
	if site != "" {
		object = "site " + site
	}
	return n, c.notices.Audit(ctx, "revoke", object, fmt.Sprintf("%d unused tokens", n))
}

func (c *Core) revoke(ctx context.Context, a wire.Address, why string) error {
	id, err := c.ledger.Revoke(ctx, a.Domain, a.Site, why)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	x := c.fleet.get(a)
	if err := x.take(nil, c.o.Now()); err != nil {
		return err
	}
	c.replaced(ctx, a, x)
	c.sweepIncidents()
	c.notices.emit(Event{Kind: SiteRevoked, Domain: a.Domain, Site: a.Site, Text: why})
	if err := c.notices.Audit(ctx, "revoke", "site "+a.Site, "key "+id.Public+": "+why); err != nil || id.Public == "" {
		return err
	}
	return c.userNotCut(ctx, a, id.Public)
}

// RevokeDomain ends the identities and outstanding tokens of all sites of a
// domain, cuts them and replaces its signing key; it returns the sites.
func (c *Core) RevokeDomain(ctx context.Context, domain, why string) ([]string, error) {
	if c.settings.Load().Fleet.Domain(domain) == nil {
		return nil, fmt.Errorf("no domain %q is configured", domain)
	}
	c.joinMu.Lock()
	defer c.joinMu.Unlock()
	var found []wire.Address
	c.fleet.each(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if a.Domain == domain && x.identity != nil {
			found = append(found, a)
		}
	})
	var keys []string
	for _, s := range c.authority.Load().Scopes() {
		if s.Role == bus.DomainRole(domain) {
			keys = append(keys, s.Key)
		}
	}
	// The key first: whoever stole it makes no further user.
	if err := c.vault.Delete(ctx, domainSecret(domain)); err != nil {
		return nil, err
	}
	if err := c.cutDomain(ctx, domain); err != nil {
		return nil, err
	}
	if _, err := c.endTokens(ctx, domain, ""); err != nil {
		return nil, err
	}
	var sites []string
	for _, a := range found {
		if err := c.revoke(ctx, a, why); err != nil {
			return sites, err
		}
		sites = append(sites, a.Site)
	}
	if err := c.notices.Audit(ctx, "revoke", "domain "+domain, why); err != nil {
		return sites, err
	}
	for _, k := range keys {
		if err := c.notCut(ctx, wire.Address{}, "domain "+domain, "nsc edit account --name NAME --rm-sk "+k); err != nil {
			return sites, err
		}
	}
	return sites, c.newAuthority(ctx, c.settings.Load().Fleet)
}
