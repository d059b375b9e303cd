// Package signin identifies the people who use the console: by a link that an account of the Core's machine has made, or by the
// organization's identity provider (OpenID Connect). It keeps their sessions in memory, so that a request never waits for a
// database, and in the ledger by the hash of their cookie, so that they outlive a restart.
package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// Bounds of sessions.
const (
	idleFor   = time.Hour      // without a request
	lifeFor   = 12 * time.Hour // whatever the requests
	maxOfOne  = 20             // of one person; a further one ends the oldest
	maxAll    = 5000
	seenEvery = 10 * time.Minute // between two records of a session's last request
)

// cookieName is of a cookie that only this host, over TLS and for all paths, can set.
const cookieName = "__Host-nightferry"

// Store keeps sessions. *ledger.Sessions is one.
type Store interface {
	Add(ctx context.Context, s ledger.Session) error
	MarkSeen(ctx context.Context, seen map[string]time.Time) error
	Remove(ctx context.Context, ids []string) error
	List(ctx context.Context) ([]ledger.Session, error)
}

// Options of Open.
type Options struct {
	Store Store
	Now   func() time.Time
	URL   string // of the console: https://host[:port]
	// Audit records an action and its actor, before it is done.
	Audit func(ctx context.Context, who, what, object, detail string) error
	// Linked reports that a console link was used.
	Linked func(id, text string)
	// Settings returns the identity provider in force. Nil: there is none.
	Settings func() *Settings
	// Secret returns the client's secret at the provider; empty: it has none.
	Secret func(ctx context.Context) (string, error)
}

// Service holds the sessions and the links of a Core.
type Service struct {
	o     Options
	pages *http.ServeMux
	links links
	oidc  provider

	ended once // sign-ins of the provider

	mu      sync.Mutex
	byHash  map[[32]byte]*session
	refused time.Time // last audit entry of a refused sign-in
}

// session is a session with its rights' origin.
type session struct {
	ledger.Session
	claims claims
	saved  time.Time // value of Seen that the store has
}

// claims determine the rights of a session: those of a console link, or the values of the provider's claim, by
// the configuration in force at each request.
type claims struct {
	Link   bool     `json:"link,omitempty"`
	Values []string `json:"values,omitempty"`
}

// Open reads the sessions of a store.
func Open(ctx context.Context, o Options) (*Service, error) {
	list, err := o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, byHash: map[[32]byte]*session{}, links: links{byHash: map[[32]byte]link{}}}
	for _, x := range list {
		e := &session{Session: x, saved: x.Seen}
		if err := json.Unmarshal(x.Claims, &e.claims); err != nil {
			return nil, fmt.Errorf("session %s: %w", x.ID, err)
		}
		s.byHash[x.Hash] = e
	}
	s.addPages()
	return s, nil
}

// newSecret returns a random text of 256 bits.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

func newID() string {
	b := make([]byte, 4)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// start begins a session, with a cookie of its own whatever the browser had before.
func (s *Service) start(ctx context.Context, w http.ResponseWriter, req *http.Request, x ledger.Session, c claims) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a session: %w", err)
	}
	secret, now := newSecret(), s.o.Now()
	x.ID, x.Hash, x.Claims, x.Address = newID(), sha256.Sum256([]byte(secret)), text, req.RemoteAddr
	x.Started, x.Seen, x.Expires = now, now, now.Add(lifeFor)
	old := s.named(req)
	s.mu.Lock()
	gone := s.expire(now)
	if old != nil {
		delete(s.byHash, old.Hash)
		gone = append(gone, old.ID)
	}
	own := s.sorted(func(e *session) bool { return e.Person == x.Person && e.Subject == x.Subject })
	for len(own) >= maxOfOne { // newest first
		last := own[len(own)-1]
		own = own[:len(own)-1]
		delete(s.byHash, last.Hash)
		gone = append(gone, last.ID)
	}
	full := len(s.byHash) >= maxAll
	if !full {
		s.byHash[x.Hash] = &session{Session: x, claims: c, saved: now}
	}
	s.mu.Unlock()
	if full {
		return fmt.Errorf("%d people have signed in, which is the limit", maxAll)
	}
	setCookie(w, cookieName, secret, 0)
	// The session counts from now on. A ledger that cannot keep it, as on a full disk, must not keep the person out: it then
	// ends with the process.
	if s.o.Store.Add(ctx, x) == nil && len(gone) > 0 {
		_ = s.o.Store.Remove(ctx, gone) // Open drops them by their age
	}
	return nil
}

// setCookie sets a cookie. life is in seconds: 0 for as long as the browser runs, and less than 0 removes it.
func setCookie(w http.ResponseWriter, name, value string, life int) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: life, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// named returns the session whose cookie a request has, good or not.
func (s *Service) named(req *http.Request) *session {
	c, err := req.Cookie(cookieName)
	if err != nil {
		return nil
	}
	hash := sha256.Sum256([]byte(c.Value)) // so that its time reveals nothing about how much of a guess is right
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHash[hash]
}

// Identify returns the person whose session a request has, with the rights that the configuration gives them now. valid
// reports whether that is still so; it counts as a request.
func (s *Service) Identify(req *http.Request) (p rights.Principal, valid func() bool, ok bool) {
	e := s.named(req)
	if e == nil {
		return p, nil, false
	}
	if p, ok = s.check(e); !ok {
		return rights.Principal{}, nil, false
	}
	s.saveSeen(req.Context(), e)
	return p, func() bool {
		now, ok := s.check(e)
		return ok && now == p
	}, true
}

// check returns the principal of a session, if it has not ended and still has rights.
func (s *Service) check(e *session) (p rights.Principal, ok bool) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byHash[e.Hash] != e || e.over(now) {
		return p, false
	}
	p.Name = e.Person
	if e.claims.Link {
		p.Role = rights.Admin
	} else {
		settings := s.o.Settings()
		if settings == nil || !strings.HasPrefix(e.Subject, settings.Issuer+" ") {
			return rights.Principal{}, false
		}
		if p.Role, p.Scope = settings.grant(e.claims.Values); p.Role == 0 {
			return rights.Principal{}, false
		}
	}
	e.Seen = now
	return p, true
}

// over reports whether a session has ended by its age. A clock that was set back does not prolong it.
func (e *session) over(now time.Time) bool {
	return !now.Before(e.Expires) || now.Sub(e.Seen) >= idleFor || now.Before(e.Started.Add(-idleFor))
}

func (s *Service) saveSeen(ctx context.Context, e *session) {
	s.mu.Lock()
	due, at := e.Seen.Sub(e.saved) >= seenEvery, e.Seen
	if due {
		e.saved = at
	}
	s.mu.Unlock()
	if due {
		_ = s.o.Store.MarkSeen(ctx, map[string]time.Time{e.ID: at}) // a later request repeats it
	}
}

// expire forgets the sessions that have ended, and returns their ids. s.mu is held.
func (s *Service) expire(now time.Time) (gone []string) {
	for hash, e := range s.byHash {
		if e.over(now) {
			delete(s.byHash, hash)
			gone = append(gone, e.ID)
		}
	}
	return gone
}

// sorted returns the sessions that match, the newest first. s.mu is held.
func (s *Service) sorted(match func(*session) bool) (out []*session) {
	for _, e := range s.byHash {
		if match(e) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *session) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// List lists the sessions that are good, the newest first.
func (s *Service) List() (out []ledger.Session) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.sorted(func(e *session) bool { return !e.over(now) }) {
		out = append(out, e.Session)
	}
	return out
}

// End ends the session with this id, or all sessions of this person, by the word of someone.
func (s *Service) End(ctx context.Context, id, person, by string) ([]ledger.Session, error) {
	return s.end(ctx, by, func(e *session) bool { return e.ID == id || person != "" && e.Person == person })
}

func (s *Service) end(ctx context.Context, by string, match func(*session) bool) (ended []ledger.Session, err error) {
	var ids []string
	s.mu.Lock()
	for _, e := range s.sorted(match) { // first in memory: they end also if the ledger cannot take it now
		delete(s.byHash, e.Hash)
		ended, ids = append(ended, e.Session), append(ids, e.ID)
	}
	s.mu.Unlock()
	if len(ids) == 0 {
		return nil, fmt.Errorf("session: %w", ledger.ErrNotFound)
	}
	if err := s.o.Store.Remove(ctx, ids); err != nil {
		return ended, err
	}
	return ended, s.o.Audit(ctx, by, "sign out", ended[0].Person, strings.Join(ids, ", "))
}
