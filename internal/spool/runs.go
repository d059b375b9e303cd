package spool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Run is a run under way. A channel has at most one.
type Run struct {
	ID      []byte // 16 random bytes
	Channel string
	Number  trust.ReleaseNumber
	Release trust.ReleaseDigest
	Target  string
	Start   uint64 // revision of the sync request that started it; 0: none
	DryRun  bool
	Check   uint8 // kind of check, as in wire.Desired; 0: not a check
	Began   int64 // Unix seconds
	Fetched int64 // bytes of content fetched by all attempts
	Wire    int64 // bytes received for that
	Pass    int64 // the attempt under way, as returned by Pass; not stored
}

// Begin stores a run, with its first event, before the run changes anything.
func (s *Spool) Begin(ctx context.Context, r Run, started wire.Event) error {
	return s.runChange(ctx, "begin the run", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outcomes WHERE channel = ?", r.Channel); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			r.Channel, r.ID, int64(r.Number), r.Release[:], r.Target, int64(r.Start), r.DryRun, r.Began, r.Check, r.Fetched, r.Wire); err != nil {
			return err
		}
		return appendEvent(ctx, tx, &started)
	})
}

// AddFetched adds bytes that an attempt of the channel's run has fetched: bytes of content, and bytes received for it.
// It is called often, so it does not wait for the disk: the count survives a kill, but a power cut only if a later
// call of another method has returned.
func (s *Spool) AddFetched(ctx context.Context, channel string, content, wire int64) (err error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("count fetched bytes: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	_, err = c.ExecContext(ctx, "PRAGMA synchronous = NORMAL")
	if err == nil {
		_, err = c.ExecContext(ctx, "UPDATE runs SET fetched = fetched + ?, wire = wire + ? WHERE channel = ?", content, wire, channel)
	}
	if _, ferr := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA synchronous = FULL"); ferr != nil {
		// The next connection starts with FULL.
		_ = c.Raw(func(any) error { return driver.ErrBadConn })
		err = errors.Join(err, ferr)
	}
	if err != nil {
		return fmt.Errorf("count fetched bytes: %w", classifyError(err))
	}
	return nil
}

// Runs returns the runs under way. When a process starts, these are the runs of an earlier process.
func (s *Spool) Runs(ctx context.Context) (all []Run, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT channel, id, number, release, target, start, dry, began, checking, fetched, wire FROM runs ORDER BY channel")
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r Run
		var release []byte
		if err := rows.Scan(&r.Channel, &r.ID, &r.Number, &release, &r.Target, &r.Start, &r.DryRun, &r.Began, &r.Check, &r.Fetched, &r.Wire); err != nil {
			return nil, fmt.Errorf("read runs: %w", classifyError(err))
		}
		copy(r.Release[:], release)
		all = append(all, r)
	}
	return all, rows.Err()
}

// Held is the release that a channel's target holds, as far as the site knows.
type Held struct {
	wire.Held
	Target string
}

// Holds returns the held release of each channel.
func (s *Spool) Holds(ctx context.Context) (all []Held, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT channel, number, release, verified, target, coalesce(start, 0) FROM holds LEFT JOIN orders USING (channel) ORDER BY channel")
	if err != nil {
		return nil, fmt.Errorf("read the held releases: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h Held
		var release []byte
		if err := rows.Scan(&h.Channel, &h.Number, &release, &h.Verified, &h.Target, &h.Obeyed); err != nil {
			return nil, fmt.Errorf("read the held releases: %w", classifyError(err))
		}
		copy(h.Release[:], release)
		all = append(all, h)
	}
	return all, rows.Err()
}

// addFilled records that the target of the channel's run holds content of a release.
func addFilled(ctx context.Context, tx *sql.Tx, channel string) error {
	_, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO filled SELECT channel, target FROM runs WHERE channel = ?", channel)
	return err
}

// Filled lists the targets to which runs of a channel have ever committed, or whose content they have proven.
func (s *Spool) Filled(ctx context.Context, channel string) (targets []string, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT target FROM filled WHERE channel = ?", channel)
	if err != nil {
		return nil, fmt.Errorf("read the filled targets: %w", classifyError(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var target string
		if err := rows.Scan(&target); err != nil {
			return nil, fmt.Errorf("read the filled targets: %w", classifyError(err))
		}
		targets = append(targets, target)
	}
	return targets, rows.Err()
}

// Obeyed returns the newest sync request that a run of the channel has served.
func (s *Spool) Obeyed(ctx context.Context, channel string) (start uint64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT start FROM orders WHERE channel = ?", channel).Scan(&start)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return start, classifyError(err)
}

// Counts holds the number of outcomes of a run.
type Counts struct {
	runs.Counts
	Sent     int64 // total of all outcomes
	Previous int64 // entries of the release whose outcome comes from an earlier pass; the last pass counted them as unchanged
}

// Finish ends the channel's run in one transaction. It turns settled and told outcomes into events and appends the
// event that last creates from the counts. It stores the failure that last returns, if any, for operators on the site;
// with hold, the channel's failure is forgotten. It removes the run, records its sync request as served, and stores hold, if
// set, as the target's new content. It drops outcomes that were only intended. If the run has already ended, Finish
// does nothing.
func (s *Spool) Finish(ctx context.Context, r Run, hold *Held, last func(Counts) (wire.Event, *Failure, error)) error {
	return s.runChange(ctx, "finish the run", func(tx *sql.Tx) error {
		var open int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM runs WHERE channel = ? AND id = ?", r.Channel, r.ID).Scan(&open); err != nil || open == 0 {
			return err
		}
		var c Counts
		if err := mergeOutcomes(ctx, tx, r, s.now().UnixMilli(), &c); err != nil {
			return err
		}
		e, failure, err := last(c)
		if err != nil {
			return err
		}
		if err := keepFailure(ctx, tx, r.Channel, failure, hold != nil); err != nil {
			return err
		}
		if err := appendEvent(ctx, tx, &e); err != nil {
			return err
		}
		if hold != nil {
			if err := addFilled(ctx, tx, r.Channel); err != nil {
				return err
			}
		}
		for _, q := range []string{"DELETE FROM outcomes WHERE channel = ?", "DELETE FROM runs WHERE channel = ?"} {
			if _, err := tx.ExecContext(ctx, q, r.Channel); err != nil {
				return err
			}
		}
		if r.Start > 0 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?) ON CONFLICT (channel) DO UPDATE SET start = max(start, excluded.start)", r.Channel, int64(r.Start)); err != nil {
				return err
			}
		}
		if hold == nil {
			return nil
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO holds VALUES (?, ?, ?, ?, ?) ON CONFLICT (channel) DO UPDATE SET number = excluded.number, release = excluded.release, verified = excluded.verified, target = excluded.target",
			r.Channel, int64(hold.Number), hold.Release[:], hold.Verified, hold.Target)
		return err
	})
}
