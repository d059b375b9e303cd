package spool

import (
	"context"
	"database/sql"
	"errors"

	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Failure is the last run of a channel, if it did not end well.
type Failure struct {
	Channel string
	Number  trust.ReleaseNumber
	State   runs.State
	Cause   string
	At      int64 // Unix seconds
}

// keepFailure stores a channel's failure in place of an earlier one, or forgets that.
func keepFailure(ctx context.Context, tx *sql.Tx, channel string, f *Failure, forget bool) error {
	if forget || f != nil {
		if _, err := tx.ExecContext(ctx, "DELETE FROM failures WHERE channel = ?", channel); err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO failures VALUES (?, ?, ?, ?, ?)", channel, int64(f.Number), string(f.State), f.Cause, f.At)
	return err
}

// Failures returns the failures by channel.
func (s *Spool) Failures(ctx context.Context) (all []Failure, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT channel, number, state, cause, at FROM failures ORDER BY channel")
	if err != nil {
		return nil, classifyError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var f Failure
		if err := rows.Scan(&f.Channel, &f.Number, &f.State, &f.Cause, &f.At); err != nil {
			return nil, classifyError(err)
		}
		all = append(all, f)
	}
	return all, classifyError(rows.Err())
}
