package ledger

import (
	"context"
	"time"
)

// APIToken is a token of the HTTP interface. The ledger holds the SHA-256 of its text only.
type APIToken struct {
	ID             string
	Hash           [32]byte
	Name           string
	Role           string
	Domain, Region string // its scope; empty: no limit
	Issued         time.Time
	IssuedBy       string
	Expires        time.Time
	Used           time.Time // last use, to some minutes; zero: never
	Revoked        time.Time // zero: it is not revoked
	RevokedBy      string
}

// Add stores a new token.
func (store *APITokens) Add(ctx context.Context, t APIToken) error {
	return store.db.makeChange(ctx, "store an API token", func(x *tx) error {
		return x.execSQL("INSERT INTO api_tokens (id, hash, name, role, domain, region, issued, issued_by, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			t.ID, t.Hash[:], t.Name, t.Role, t.Domain, t.Region, toMicros(t.Issued), t.IssuedBy, toMicros(t.Expires))
	})
}

// Revoke ends a token. Repeating it changes nothing.
func (store *APITokens) Revoke(ctx context.Context, id, by string, at time.Time) error {
	return store.db.makeChange(ctx, "revoke an API token", func(x *tx) error {
		return x.execSQL("UPDATE api_tokens SET revoked = ?, revoked_by = ? WHERE id = ? AND revoked = 0", toMicros(at), by, id)
	})
}

// MarkUsed stores the last uses of tokens, by id.
func (store *APITokens) MarkUsed(ctx context.Context, uses map[string]time.Time) error {
	return store.db.makeChange(ctx, "store the last use of API tokens", func(x *tx) error {
		for id, at := range uses {
			if err := x.execSQL("UPDATE api_tokens SET used = max(used, ?) WHERE id = ?", toMicros(at), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// List lists the tokens that Prune has not removed, newest first.
func (store *APITokens) List(ctx context.Context) ([]APIToken, error) {
	return queryAll(ctx, store.db.read, "list API tokens", func(s scanner, t *APIToken) error {
		return s.Scan(&t.ID, blob{t.Hash[:]}, &t.Name, &t.Role, &t.Domain, &t.Region, moment{&t.Issued}, &t.IssuedBy, moment{&t.Expires}, moment{&t.Used}, moment{&t.Revoked}, &t.RevokedBy)
	}, "SELECT id, hash, name, role, domain, region, issued, issued_by, expires, used, revoked, revoked_by FROM api_tokens ORDER BY issued DESC, id")
}
