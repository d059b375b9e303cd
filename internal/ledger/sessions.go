package ledger

import (
	"context"
	"time"
)

// Session is a person who has signed in to the console. The ledger holds the SHA-256 of the cookie's text only.
type Session struct {
	ID      string
	Hash    [32]byte
	Person  string // as the audit names them
	Subject string // at the identity provider; empty: the session is of a console link
	Claims  []byte // JSON: the claims from which their rights follow
	Address string // of the client that signed in
	Started time.Time
	Seen    time.Time // last request, to some minutes
	Expires time.Time // whatever the requests
}

// Add stores a new session.
func (store *Sessions) Add(ctx context.Context, s Session) error {
	return store.db.makeChange(ctx, "store a session", func(x *tx) error {
		return x.execSQL("INSERT INTO sessions (id, hash, person, subject, claims, address, started, seen, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			s.ID, s.Hash[:], s.Person, s.Subject, string(s.Claims), s.Address, toMicros(s.Started), toMicros(s.Seen), toMicros(s.Expires))
	})
}

// MarkSeen stores the last requests of sessions, by id.
func (store *Sessions) MarkSeen(ctx context.Context, seen map[string]time.Time) error {
	return store.db.makeChange(ctx, "store when sessions were seen", func(x *tx) error {
		for id, at := range seen {
			if err := x.execSQL("UPDATE sessions SET seen = max(seen, ?) WHERE id = ?", toMicros(at), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove removes sessions that have ended. Repeating it changes nothing.
func (store *Sessions) Remove(ctx context.Context, ids []string) error {
	return store.db.makeChange(ctx, "remove sessions", func(x *tx) error {
		for _, id := range ids {
			if err := x.execSQL("DELETE FROM sessions WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// List lists the sessions, newest first.
func (store *Sessions) List(ctx context.Context) ([]Session, error) {
	return queryAll(ctx, store.db.read, "list sessions", func(s scanner, x *Session) error {
		var claims string
		err := s.Scan(&x.ID, blob{x.Hash[:]}, &x.Person, &x.Subject, &claims, &x.Address, moment{&x.Started}, moment{&x.Seen}, moment{&x.Expires})
		x.Claims = []byte(claims)
		return err
	}, "SELECT id, hash, person, subject, claims, address, started, seen, expires FROM sessions ORDER BY started DESC, id")
}
