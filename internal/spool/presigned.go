package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Presigned is a presigned URL that the Core issued ahead of use, so that a run can start while the Core is unreachable.
type Presigned struct {
	Key   string
	URL   string // a secret; empty: the Core reported that there is no such object
	Until int64  // Unix seconds by the store's clock: end of validity
}

// KeepPresigned replaces the stored URLs of a channel with those that its next run needs. An empty list deletes them.
func (s *Spool) KeepPresigned(ctx context.Context, channel string, all []Presigned) error {
	return s.runChange(ctx, "record the presigned URLs", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM lent WHERE channel = ?", channel); err != nil {
			return err
		}
		for _, l := range all {
			if _, err := tx.ExecContext(ctx, "INSERT INTO lent VALUES (?, ?, ?, ?)", channel, l.Key, l.URL, l.Until); err != nil {
				return err
			}
		}
		return nil
	})
}

// Presigned returns the stored URLs of all channels, for each key the one that is valid longest. It deletes those that
// expired before now, in Unix seconds.
func (s *Spool) Presigned(ctx context.Context, now int64) (all []Presigned, err error) {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM lent WHERE until < ?", now); err != nil {
		return nil, fmt.Errorf("remove the record of presigned URLs: %w", classifyError(err))
	}
	rows, err := s.db.QueryContext(ctx, "SELECT key, url, max(until) FROM lent GROUP BY key")
	if err != nil {
		return nil, fmt.Errorf("read the record of presigned URLs: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var l Presigned
		if err := rows.Scan(&l.Key, &l.URL, &l.Until); err != nil {
			return nil, fmt.Errorf("read the record of presigned URLs: %w", classifyError(err))
		}
		all = append(all, l)
	}
	return all, rows.Err()
}
