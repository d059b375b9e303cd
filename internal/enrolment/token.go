package enrolment

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// tokenLife is the life of a token, if none is named.
const tokenLife = 24 * time.Hour

// IssuedToken is a newly made enrollment token. Text is the secret.
type IssuedToken struct {
	ID      string    `json:"id"`
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Expires time.Time `json:"expires"`
	Text    string    `json:"token"`
	// Joined is when the site's current identity was enrolled; using the token ends that identity.
	// Zero: the site has none.
	Joined    time.Time `json:"joined,omitzero"`
	Connected bool      `json:"connected,omitempty"` // the agent with that identity sent a message recently
	Seen      time.Time `json:"seen,omitzero"`       // when its last message arrived
	Version   string    `json:"version,omitempty"`   // of its agent
}

// Token makes a one-time token for a configured site, good for life (0: 24 h).
func (s *Service) Token(ctx context.Context, site string, life time.Duration) (*IssuedToken, error) {
	f := s.o.Fleet()
	at := f.Site(site)
	if at == nil {
		if _, err := f.Select(fleet.Scope{Site: site}); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("no site %q is configured", site)
	}
	if life <= 0 {
		life = tokenLife
	}
	select {
	case <-s.o.Ready:
	default:
		return nil, errors.New("the Core is starting: try again")
	}
	t, user, err := s.makeToken(at, life)
	if err != nil {
		return nil, err
	}
	text, err := t.Text()
	if err != nil {
		return nil, err
	}
	key, expires := wire.TokenKey(t.Seed), time.Unix(t.Expires, 0)
	if _, err := s.o.Tokens.AddToken(ctx, ledger.Token{ID: t.ID, Domain: t.Domain, Site: t.Site, IssuedBy: s.o.Actor(ctx), User: user, Expires: s.o.Calendar(expires)}, sha256.Sum256(key[:])); err != nil {
		return nil, err
	}
	if err := s.o.Notices.Audit(ctx, "token", "site "+at.Name, "token "+t.ID); err != nil {
		return nil, err
	}
	issued := &IssuedToken{ID: t.ID, Domain: t.Domain, Site: t.Site, Expires: expires, Text: text}
	for _, a := range s.enrolledAs(at.Name) { // the site's domain, or the one that it was moved from
		old := s.o.Sites.Enrolment(a)
		if old.Identity != nil {
			issued.Joined, issued.Connected, issued.Seen, issued.Version = old.Identity.Enrolled, old.Connected, old.Seen, cmp.Or(old.Version, old.Identity.Version)
		}
	}
	return issued, nil
}

// makeToken makes a token, and its user on the bus.
func (s *Service) makeToken(at *fleet.Site, life time.Duration) (t *wire.Token, user string, err error) {
	var seed [32]byte
	var id [8]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	rand.Read(id[:])
	now, r := s.o.Now(), s.o.Repository()
	t = &wire.Token{Core: s.o.Bus.URLs(), CA: digest.Digest(s.o.Bus.Pin()), Repo: r.ID, Root: r.Root,
		Domain: at.Domain, Site: at.Name, ID: hex.EncodeToString(id[:]), Seed: seed[:], Expires: now.Add(life).Unix()}
	if _, user, err = bus.IdentityOf(seed); err != nil {
		return nil, "", err
	}
	err = s.o.Access.Sign(func(authority *bus.Authority) (err error) {
		t.JWT, err = authority.Enrol(t.ID, user, life, now)
		return err
	})
	return t, user, err
}

// Wave makes tokens for the first n sites of a scope that have not joined, or have to join again.
func (s *Service) Wave(ctx context.Context, scope fleet.Scope, n int, life time.Duration) ([]IssuedToken, error) {
	list, err := s.o.Fleet().Select(scope)
	if err != nil {
		return nil, err
	}
	var out []IssuedToken
	for _, at := range list {
		if len(out) == n {
			break
		}
		if known := s.o.Sites.Enrolment(wire.Address{Domain: at.Domain, Site: at.Name}); known.Identity != nil && !known.Refused {
			continue
		}
		t, err := s.Token(ctx, at.Name, life)
		if err != nil {
			return out, err
		}
		out = append(out, *t)
	}
	return out, nil
}
