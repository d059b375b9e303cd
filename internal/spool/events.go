package spool

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"nightferry/internal/wire"
)

// Append adds all events at the end of the sequence, or none.
func (s *Spool) Append(ctx context.Context, events ...wire.Event) error {
	return s.runChange(ctx, "spool events", func(tx *sql.Tx) error {
		for i := range events {
			if err := appendEvent(ctx, tx, &events[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func appendEvent(ctx context.Context, tx *sql.Tx, e *wire.Event) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO events (run, channel, at, kind, body) VALUES (?, ?, ?, ?, ?)",
		notNull(e.Run), e.Channel, e.At, e.Kind, notNull(e.Body))
	return err
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Batch returns events in order, starting at sequence from, until their bodies total maxBytes. It returns at least
// one event, if there is one, and at most wire.MaxEvents. first is the sequence of the first.
func (s *Spool) Batch(ctx context.Context, from uint64, maxBytes int) (first uint64, events []wire.Event, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT seq, run, channel, at, kind, body FROM events WHERE seq >= ? ORDER BY seq LIMIT ?", int64(from), wire.MaxEvents)
	if err != nil {
		return 0, nil, fmt.Errorf("read spooled events: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	size := 0
	for rows.Next() {
		var seq uint64
		var e wire.Event
		if err := rows.Scan(&seq, &e.Run, &e.Channel, &e.At, &e.Kind, &e.Body); err != nil {
			return 0, nil, fmt.Errorf("read spooled events: %w", classifyError(err))
		}
		size += len(e.Body) + len(e.Run) + len(e.Channel) + 16
		if len(events) > 0 && size > maxBytes {
			break
		}
		if len(events) == 0 {
			first = seq
		}
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return 0, nil, fmt.Errorf("read spooled events: %w", classifyError(err))
	}
	return first, events, nil
}

// Acked deletes the events up to and including a sequence that the Core has acknowledged.
func (s *Spool) Acked(ctx context.Context, upTo uint64) error {
	return s.runChange(ctx, "forget acknowledged events", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM events WHERE seq <= ?", int64(upTo))
		return err
	})
}

// Renumber starts a new generation. It spools the open problems again and then numbers the spooled events after
// them, starting from 1. The problems come first because the Core forgets those of the old generation.
func (s *Spool) Renumber(ctx context.Context) error {
	open, err := s.Problems(ctx)
	if err != nil {
		return err
	}
	var fresh [16]byte
	rand.Read(fresh[:]) // never fails
	err = s.runChange(ctx, "begin a new generation", func(tx *sql.Tx) error {
		var n, least int64
		if err := tx.QueryRowContext(ctx, "SELECT count(*), coalesce(min(seq), 0) FROM events").Scan(&n, &least); err != nil {
			return err
		}
		for _, q := range []string{"UPDATE events SET seq = -seq", "DELETE FROM sqlite_sequence WHERE name = 'events'"} { // avoid collisions of old and new numbers
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		for _, p := range open {
			body, err := wire.Encode(&p.Problem)
			if err != nil {
				return err
			}
			if err := appendEvent(ctx, tx, &wire.Event{Channel: p.Channel, At: s.now().UnixMilli(), Kind: wire.ProblemEvent, Body: body}); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "UPDATE events SET seq = ? - seq WHERE seq < 0", int64(len(open))+1-least); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM sqlite_sequence WHERE name = 'events'"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO sqlite_sequence VALUES ('events', ?)", n+int64(len(open))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, setMeta, "generation", fresh[:])
		return err
	})
	if err == nil {
		s.generation.Store(&fresh)
	}
	return err
}

// Spooled returns the number of unacknowledged events and the sequence of the next event.
func (s *Spool) Spooled(ctx context.Context) (n, next uint64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM events), 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)").Scan(&n, &next)
	if err != nil {
		err = fmt.Errorf("count spooled events: %w", classifyError(err))
	}
	return n, next, err
}

// Problem spools a problem if it is not open already, or its end if it is open.
// channel may be empty.
func (s *Spool) Problem(ctx context.Context, p wire.Problem, channel string) error {
	return s.runChange(ctx, "spool a problem", func(tx *sql.Tx) error {
		var text string
		err := tx.QueryRowContext(ctx, "SELECT text, since FROM problems WHERE kind = ? AND channel = ?", p.Kind, channel).Scan(&text, new(int64))
		known := err == nil
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if known != p.Resolved {
			return nil
		}
		if p.Resolved {
			err = tx.QueryRowContext(ctx, "DELETE FROM problems WHERE kind = ? AND channel = ? RETURNING since", p.Kind, channel).Scan(&p.Since)
		} else {
			_, err = tx.ExecContext(ctx, "INSERT INTO problems VALUES (?, ?, ?, ?)", p.Kind, channel, p.Text, p.Since)
		}
		if err != nil {
			return err
		}
		body, err := wire.Encode(&p)
		if err != nil {
			return err
		}
		return appendEvent(ctx, tx, &wire.Event{Channel: channel, At: s.now().UnixMilli(), Kind: wire.ProblemEvent, Body: body})
	})
}

// OpenProblem is a problem that has not ended.
type OpenProblem struct {
	Channel string
	wire.Problem
}

// Problems returns the open problems.
func (s *Spool) Problems(ctx context.Context) (all []OpenProblem, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT kind, channel, text, since FROM problems ORDER BY kind, channel")
	if err != nil {
		return nil, fmt.Errorf("read problems: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p OpenProblem
		if err := rows.Scan(&p.Kind, &p.Channel, &p.Text, &p.Since); err != nil {
			return nil, fmt.Errorf("read problems: %w", classifyError(err))
		}
		all = append(all, p)
	}
	return all, rows.Err()
}
