package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// SetWaiting stores the times since which channels have waited for their turn, replacing the previous ones. Times are
// whole seconds.
func (s *Spool) SetWaiting(ctx context.Context, since map[string]time.Time) error {
	return s.runChange(ctx, "keep what waits", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM waiting"); err != nil {
			return err
		}
		for channel, at := range since {
			if _, err := tx.ExecContext(ctx, "INSERT INTO waiting VALUES (?, ?)", channel, at.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Waiting returns the times that SetWaiting stored.
func (s *Spool) Waiting(ctx context.Context) (since map[string]time.Time, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT channel, since FROM waiting")
	if err != nil {
		return nil, fmt.Errorf("read what waits: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	since = map[string]time.Time{}
	for rows.Next() {
		var channel string
		var at int64
		if err := rows.Scan(&channel, &at); err != nil {
			return nil, fmt.Errorf("read what waits: %w", classifyError(err))
		}
		since[channel] = time.Unix(at, 0)
	}
	return since, rows.Err()
}
