// Package apitokens issues and checks API tokens. A token's text is shown once; only its SHA-256 is kept. Checking needs no
// database, so that it never waits for one.
package apitokens

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// Prefix begins each token, so that tools that look for secrets find one.
const Prefix = "nft_"

const (
	maxTokens = 1000 // that are good
	minLife   = time.Minute
	maxLife   = 366 * 24 * time.Hour
	useEvery  = 10 * time.Minute // between two records of a token's use
)

// Store keeps tokens. *ledger.APITokens is one.
type Store interface {
	Add(ctx context.Context, t ledger.APIToken) error
	Revoke(ctx context.Context, id, by string, at time.Time) error
	MarkUsed(ctx context.Context, uses map[string]time.Time) error
	List(ctx context.Context) ([]ledger.APIToken, error)
}

// Options of Open.
type Options struct {
	Store Store
	Now   func() time.Time
	// Audit records a deed before it is done.
	Audit func(ctx context.Context, what, object, detail string) error
}

// Service holds the tokens of a Core.
type Service struct {
	o Options

	mu     sync.Mutex
	byHash map[[32]byte]*entry
}

type entry struct {
	ledger.APIToken
	role  rights.Role
	saved time.Time // value of Used that the store has
}

// Open reads the tokens of a store.
func Open(ctx context.Context, o Options) (*Service, error) {
	list, err := o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, byHash: map[[32]byte]*entry{}}
	for _, t := range list {
		role, err := rights.ParseRole(t.Role)
		if err != nil {
			return nil, fmt.Errorf("API token %s: %w", t.ID, err)
		}
		s.byHash[t.Hash] = &entry{t, role, t.Used}
	}
	return s, nil
}

// Request asks for a token.
type Request struct {
	Name  string
	Role  rights.Role
	Scope rights.Scope
	Life  time.Duration
	By    string // who asks, for the list
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// InvalidError describes the fault of a request.
type InvalidError struct{ Text string }

func (e *InvalidError) Error() string { return "API token: " + e.Text }

// Issue makes a token and returns its text, which nothing keeps.
func (s *Service) Issue(ctx context.Context, r Request) (text string, t ledger.APIToken, err error) {
	switch {
	case !namePattern.MatchString(r.Name):
		return "", t, &InvalidError{fmt.Sprintf("name %q: want 1 to 63 of a-z, 0-9, dot, dash and underscore", r.Name)}
	case r.Role < rights.Logs || r.Role > rights.Admin:
		return "", t, &InvalidError{"want a role: logs, viewer, operator, publisher or admin"}
	case r.Life < minLife || r.Life > maxLife:
		return "", t, &InvalidError{fmt.Sprintf("life %s: want %s to %s", r.Life, minLife, maxLife)}
	}
	now := s.o.Now()
	secret, id := make([]byte, 32), make([]byte, 4)
	rand.Read(secret) // never fails (crypto/rand)
	rand.Read(id)
	text = Prefix + base64.RawURLEncoding.EncodeToString(secret)
	t = ledger.APIToken{ID: hex.EncodeToString(id), Hash: sha256.Sum256([]byte(text)), Name: r.Name, Role: r.Role.String(), Domain: r.Scope.Domain, Region: r.Scope.Region,
		Issued: now, IssuedBy: r.By, Expires: now.Add(r.Life)}
	if err := s.admit(&t); err != nil {
		return "", t, err
	}
	if err := s.o.Audit(ctx, "api token issue", r.Name, fmt.Sprintf("%s, role %s over %s, until %s", t.ID, r.Role, r.Scope, t.Expires.UTC().Format(time.RFC3339))); err != nil {
		return "", t, err
	}
	if err := s.o.Store.Add(ctx, t); err != nil {
		return "", t, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHash[t.Hash] = &entry{APIToken: t, role: r.Role}
	return text, t, nil
}

// admit refuses a name that is in use, since the audit would not tell the two apart, and a token too many.
func (s *Service) admit(t *ledger.APIToken) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := 0
	for _, e := range s.byHash {
		if !e.good(t.Issued) {
			continue
		}
		if good++; e.Name == t.Name {
			return &InvalidError{fmt.Sprintf("a token named %q is good until %s: revoke it first, or choose another name", t.Name, e.Expires.UTC().Format(time.RFC3339))}
		}
		if good >= maxTokens {
			return &InvalidError{fmt.Sprintf("%d tokens are good already: revoke some", good)}
		}
	}
	return nil
}

func (e *entry) good(now time.Time) bool {
	return e.Revoked.IsZero() && now.Before(e.Expires)
}

// Check returns the principal of a token's text. It looks up the hash of the text, so that its time reveals nothing about
// how much of a guess is right.
func (s *Service) Check(text string) (rights.Principal, bool) {
	hash, now := sha256.Sum256([]byte(text)), s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byHash[hash]
	if e == nil || !strings.HasPrefix(text, Prefix) || !e.good(now) {
		return rights.Principal{}, false
	}
	if now.After(e.Used) {
		e.Used = now
	}
	return rights.Principal{Name: "token " + e.Name, Role: e.role, Scope: rights.Scope{Domain: e.Domain, Region: e.Region}}, true
}

// SaveUses stores the last uses of tokens, if some are due.
func (s *Service) SaveUses(ctx context.Context) error {
	uses := map[string]time.Time{}
	s.mu.Lock()
	for _, e := range s.byHash {
		if e.Used.Sub(e.saved) >= useEvery {
			uses[e.ID], e.saved = e.Used, e.Used
		}
	}
	s.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	return s.o.Store.MarkUsed(ctx, uses)
}

// Revoke ends the token with this id at once, by the word of someone.
func (s *Service) Revoke(ctx context.Context, id, by string) (t ledger.APIToken, err error) {
	s.mu.Lock()
	var found *entry
	for _, e := range s.byHash {
		if e.ID == id {
			found = e
		}
	}
	if found == nil {
		s.mu.Unlock()
		return t, fmt.Errorf("API token %q: %w", id, ledger.ErrNotFound)
	}
	if found.Revoked.IsZero() { // first in memory: it ends also if the ledger cannot take it now
		found.Revoked, found.RevokedBy = s.o.Now(), by
	}
	t = found.APIToken
	s.mu.Unlock()
	if err := s.o.Store.Revoke(ctx, id, t.RevokedBy, t.Revoked); err != nil {
		return t, err
	}
	return t, s.o.Audit(ctx, "api token revoke", t.Name, t.ID)
}

// List lists the tokens, newest first, with those that ended.
func (s *Service) List() []ledger.APIToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ledger.APIToken
	for e := range maps.Values(s.byHash) {
		out = append(out, e.APIToken)
	}
	slices.SortFunc(out, func(a, b ledger.APIToken) int {
		if c := b.Issued.Compare(a.Issued); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}
