package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// KeyedRequest is a request that carried an idempotency key. The ledger holds MACs of the key, of the principal and of the
// request, and the sealed answer.
type KeyedRequest struct {
	ID, Who, Request [32]byte
	At               time.Time
	Ended            bool
	Answer           []byte // sealed; empty: it was too long to keep
}

// KeyedBounds are the bounds of the stored requests. The oldest ones are removed beyond them.
type KeyedBounds struct {
	Age       time.Duration // in both directions, since the clock may have been wrong
	Each, All int           // requests of one principal, and of all
	Bytes     int64         // of all answers
}

// Begin stores a request and returns nil, or returns the stored request that has its ID. It removes requests beyond the
// bounds.
func (store *KeyedRequests) Begin(ctx context.Context, r KeyedRequest, b KeyedBounds) (old *KeyedRequest, err error) {
	err = store.db.makeChange(ctx, "store an idempotency key", func(x *tx) error {
		if err := x.execSQL("DELETE FROM keyed_requests WHERE at < ? OR at > ?", toMicros(r.At.Add(-b.Age)), toMicros(r.At.Add(b.Age))); err != nil {
			return err
		}
		found := KeyedRequest{ID: r.ID}
		err := x.queryRow("SELECT who, request, at, answer IS NOT NULL, ifnull(answer, x'') FROM keyed_requests WHERE id = ?", r.ID[:]).
			Scan(blob{found.Who[:]}, blob{found.Request[:]}, moment{&found.At}, &found.Ended, &found.Answer)
		if err == nil {
			old = &found
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		for _, older := range []struct {
			than string
			args []any
		}{
			{"SELECT seq FROM keyed_requests WHERE who = ? ORDER BY seq DESC LIMIT -1 OFFSET ?", []any{r.Who[:], b.Each - 1}},
			{"SELECT seq FROM keyed_requests ORDER BY seq DESC LIMIT -1 OFFSET ?", []any{b.All - 1}},
			{"SELECT seq FROM (SELECT seq, sum(length(answer)) OVER (ORDER BY seq DESC) AS bytes FROM keyed_requests) WHERE bytes > ?", []any{b.Bytes}},
		} {
			if err := x.execSQL("DELETE FROM keyed_requests WHERE seq IN ("+older.than+")", older.args...); err != nil {
				return err
			}
		}
		return x.execSQL("INSERT INTO keyed_requests (id, who, request, at) VALUES (?, ?, ?, ?)", r.ID[:], r.Who[:], r.Request[:], toMicros(r.At))
	})
	return old, err
}

// Finish stores the answer to a request.
func (store *KeyedRequests) Finish(ctx context.Context, id [32]byte, answer []byte) error {
	return store.db.makeChange(ctx, "store an answer", func(x *tx) error {
		return x.execSQL("UPDATE keyed_requests SET answer = ? WHERE id = ? AND answer IS NULL", bytesOf(answer), id[:])
	})
}

// Drop removes a request that had no effect, so that its key can be used again.
func (store *KeyedRequests) Drop(ctx context.Context, id [32]byte) error {
	return store.db.makeChange(ctx, "remove an idempotency key", func(x *tx) error {
		return x.execSQL("DELETE FROM keyed_requests WHERE id = ? AND answer IS NULL", id[:])
	})
}
