package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"nightferry/internal/durable"
)

// pruneStep bounds the rows that one step of a Prune removes, so that commits
// never wait long behind it.
const pruneStep = 2000

// Prune removes what is older than r keeps. It never touches an open incident,
// an active halt, a site's identity, the audit, or the events of a run that
// ended and whose log file is not complete. It works in small steps, between
// which others can write; the counts hold what was removed even when it
// returns an error.
func (l *Ledger) Prune(ctx context.Context, r Retention) (p Pruned, err error) {
	now := l.now()
	logs, old := cutoff(now, r.Logs), cutoff(now, r.Summaries)
	// A run that never ends (its site is gone) is over when nobody has heard of it for as long as summaries are kept.
	const past = "(finished > 0 AND finished < ?1 AND rendered > 0 OR last < ?1)"
	for _, s := range []struct {
		table, where string
		before       int64
		count        *int64
	}{
		{"events", "run IN (SELECT seq FROM runs WHERE finished > 0 AND finished < ?1 AND rendered > 0)", logs, &p.Events},
		{"exceptions", "at < ?1 AND run IN (SELECT seq FROM runs WHERE finished > 0)", logs, &p.Exceptions},
		// What hangs on a run goes before it, so that it is counted and no step is larger than its bound.
		{"events", "run IN (SELECT seq FROM runs WHERE " + past + ")", old, &p.Events},
		{"exceptions", "run IN (SELECT seq FROM runs WHERE " + past + ")", old, &p.Exceptions},
		{"attestations", "run IN (SELECT seq FROM runs WHERE " + past + ")", old, &p.Attestations},
		{"runs", past, old, &p.Runs},
		{"incidents", "resolved > 0 AND resolved < ?1", old, &p.Incidents},
		{"halts", "resumed > 0 AND resumed < ?1", old, &p.Halts},
		{"tokens", "max(expires, used) < ?1", old, &p.Tokens},
		{"identities", "ended > 0 AND max(ended, jwt_expires) < ?1", old, &p.Identities},
	} {
		if s.before == math.MinInt64 {
			continue
		}
		query := fmt.Sprintf("DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %s WHERE %s LIMIT %d)", s.table, s.table, s.where, pruneStep)
		for n := int64(pruneStep); n == pruneStep; {
			if err := l.update(ctx, "prune "+s.table, func(x *tx) (err error) {
				n, err = x.count(query, s.before)
				return err
			}); err != nil {
				return p, err
			}
			*s.count += n
		}
	}
	return p, nil
}

func cutoff(now time.Time, keep time.Duration) int64 {
	if keep <= 0 {
		return math.MinInt64
	}
	return micros(now.Add(-keep))
}

// Backup writes a consistent copy of the ledger to path, which must not exist,
// while others go on. The copy is whole or not there, and readable by its owner
// only.
func (l *Ledger) Backup(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up the ledger to %q: %w", path, classify(err))
		}
	}()
	root, err := durable.Open(filepath.Dir(path), durable.Options{})
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Base(path)
	if _, err := root.Lstat(name); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	part := name + ".part" // of a backup that was killed: nobody has ever relied on it
	for _, n := range []string{part, part + "-journal"} {
		if err := root.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	defer func() {
		if err != nil {
			if rm := root.Remove(part); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
	}()
	// SQLite fills an empty file that is there, and so keeps the mode.
	f, err := os.OpenFile(filepath.Join(root.Dir(), part), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := connect(l.path, "", 1) // of its own: those of the readers must not write, and the writer has no time
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", filepath.Join(root.Dir(), part))
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// VACUUM INTO does not sync what it wrote.
	w, err := root.OpenRW(part)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := root.Rename(part, name); err != nil {
		return err
	}
	return root.SyncDir(".")
}

// Check reads the whole file and returns what is wrong with it.
func (l *Ledger) Check(ctx context.Context) error {
	faults, err := many(ctx, l.read, "check the ledger", func(s scanner, v *string) error { return s.Scan(v) },
		`SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'
		UNION ALL SELECT format('row %s of %s refers to nothing', rowid, "table") FROM pragma_foreign_key_check`)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("check the ledger %q: %q: restore a backup", l.path, faults)
	}
	return nil
}
