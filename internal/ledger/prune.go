package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/clock"
)

const (
	// pruneStep bounds the rows removed in one step, so that commits wait only briefly.
	pruneStep = 2000
	// auditFor is the minimum retention of audit entries. A trigger refuses to delete younger ones.
	auditFor = 90 * 24 * time.Hour
)

// maxPurge is the maximum difference between the times of two successive purges.
const maxPurge = 48 * time.Hour

// BeginPurge returns the time by which a purge at now must judge ages, and stores it for the next purge. It is at most
// two days after that of the previous purge, whatever the clock shows. If the clock is wrong for one purge, or for the
// first purge of a restored backup, only two days' worth is removed.
func (l *Ledger) BeginPurge(ctx context.Context, now clock.Calendar) (clock.Calendar, error) {
	err := l.db.makeChange(ctx, "begin a purge", func(x *tx) error {
		var last time.Time
		if err := x.queryRow("SELECT purged FROM meta").Scan(moment{&last}); err != nil {
			return err
		}
		if last.IsZero() { // the first purge: start from the last event of the oldest run
			err := x.queryRow("SELECT ifnull(min(last), 0) FROM runs").Scan(moment{&last})
			if err != nil {
				return err
			}
		}
		mark := now
		if !last.IsZero() {
			mark = clock.Clamp(now, clock.CalendarAt(last.Add(-maxPurge)), clock.CalendarAt(last.Add(maxPurge)))
		}
		if mark.Before(now) {
			now = mark
		}
		return x.execSQL("UPDATE meta SET purged = ?", toMicros(mark.Time()))
	})
	return now, err
}

// A run that never ends, because its site is gone, is past if its last event is older than the retention of summaries.
const pastRun = "(finished > 0 AND finished < ?1 AND rendered > 0 OR last < ?1)"

// siteGone matches rows of sites without an identity.
func siteGone(table string) string {
	return fmt.Sprintf("NOT EXISTS (SELECT 1 FROM identities i WHERE i.domain = %s.domain AND i.site = %s.site AND i.ended = 0)", table, table)
}

// ages lists everything that is pruned by age. Rows that depend on a run come before it, so that they are counted and
// no step exceeds its bound. whereSQL names the cutoff ?1.
var ages = []struct {
	table, where string
	keep         func(Retention) time.Duration
	small        bool // few rows, without a rowid
}{
	{"events", "run IN (SELECT seq FROM runs WHERE finished > 0 AND finished < ?1 AND rendered > 0)", keepLogs, false},
	{"exceptions", "last < ?1", keepLogs, false},
	{"events", "run IN (SELECT seq FROM runs WHERE " + pastRun + ")", keepRuns, false},
	{"attestations", "run IN (SELECT seq FROM runs WHERE " + pastRun + ")", keepRuns, false},
	{"runs", pastRun, keepRuns, false},
	{"incidents", "resolved > 0 AND resolved < ?1", keepRuns, false},
	{"halts", "resumed > 0 AND resumed < ?1", keepRuns, false},
	{"tokens", "max(expires, used) < ?1", keepRuns, false},
	{"api_tokens", "iif(revoked > 0, min(revoked, expires), expires) < ?1", keepRuns, false},
	{"sessions", "expires < ?1", keepLogs, false},
	{"jobs", "ended > 0 AND ended < ?1", keepRuns, false},
	{"keyed_requests", "at < ?1", func(Retention) time.Duration { return KeyedFor }, false},
	{"identities", "ended > 0 AND max(ended, jwt_expires) < ?1", keepRuns, false},
	{"spools", "last_seen < ?1 AND (" + siteGone("spools") + " OR EXISTS (SELECT 1 FROM spools n WHERE n.domain = spools.domain AND n.site = spools.site AND n.turn > spools.turn))", keepRuns, true},
	{"sightings", "seen < ?1 AND " + siteGone("sightings"), keepRuns, true},
	{"holdings", "attested < ?1 AND " + siteGone("holdings"), keepRuns, true},
	{"fills", "at < ?1 AND NOT EXISTS (SELECT 1 FROM identities i WHERE i.site = fills.site AND i.ended = 0)", keepRuns, true},
	// For sites whose last identity was removed by the previous rule.
	{"desired_revisions", "?1 > 0 AND NOT EXISTS (SELECT 1 FROM identities i WHERE i.domain = desired_revisions.domain AND i.site = desired_revisions.site)" +
		" AND NOT EXISTS (SELECT 1 FROM desired d WHERE d.domain = desired_revisions.domain AND d.site = desired_revisions.site)", keepRuns, true},
	{"limits", "?1 > 0 AND NOT EXISTS (SELECT 1 FROM desired_revisions r WHERE r.domain = limits.domain AND r.site = limits.site)", keepRuns, true},
	{"releases", "published < ?1 AND number < (SELECT max(number) FROM releases n WHERE n.channel = releases.channel)" +
		" AND NOT EXISTS (SELECT 1 FROM holdings h WHERE h.channel = releases.channel AND h.number <= releases.number)" +
		" AND NOT EXISTS (SELECT 1 FROM desired d WHERE d.channel = releases.channel AND d.number <= releases.number)", keepReleases, true},
	{"measurements", "at < ?1 AND NOT EXISTS (SELECT 1 FROM releases r WHERE r.channel = measurements.channel AND r.number = measurements.number)", keepReleases, true},
	{"audit", "at < ?1", func(r Retention) time.Duration {
		if r.Runs <= 0 {
			return 0
		}
		return max(r.Runs, auditFor)
	}, false},
}

// KeyedFor is how long the answer to a request with an idempotency key is kept.
const KeyedFor = 24 * time.Hour

func keepLogs(r Retention) time.Duration { return r.Logs }
func keepRuns(r Retention) time.Duration { return r.Runs }
func keepReleases(r Retention) time.Duration {
	if r.Runs <= 0 {
		return 0
	}
	return max(r.Runs, r.Releases)
}

// Prune removes rows that are older than r allows at now. It continues after errors. It never removes an open incident,
// an active halt, a site's identity, or the events of an ended run whose log file is incomplete. Other callers can
// write between its small steps. The counts are correct even if it returns an error.
func (l *Ledger) Prune(ctx context.Context, now clock.Calendar, r Retention) (Pruned, error) {
	p := Pruned{}
	var errs []error
	for _, a := range ages {
		keep := a.keep(r)
		if keep <= 0 {
			continue
		}
		where, step := a.where, int64(0)
		if !a.small {
			where, step = fmt.Sprintf("rowid IN (SELECT rowid FROM %s WHERE %s LIMIT %d)", a.table, a.where, pruneStep), pruneStep
		}
		for n := step; n == step; {
			err := l.db.makeChange(ctx, "prune "+a.table, func(x *tx) (err error) {
				n, err = x.execCount("DELETE FROM "+a.table+" WHERE "+where, toMicros(now.Add(-keep).Time()))
				return err
			})
			if err != nil {
				errs = append(errs, err)
				break
			}
			if n > 0 {
				p[a.table] += n
			}
			if a.small {
				break
			}
		}
	}
	return p, errors.Join(errs...)
}

// Pruned counts the rows that a Prune removed, by table.
type Pruned map[string]int64

// String lists the counts by table.
func (p Pruned) String() string {
	var parts []string
	told := map[string]bool{}
	for _, a := range ages {
		if !told[a.table] {
			told[a.table] = true
			parts = append(parts, fmt.Sprintf("%d %s", p[a.table], strings.ReplaceAll(a.table, "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}

const (
	// spare is the number of free pages that the file keeps for the next night.
	spare = 1000
	// shrinkStep bounds the pages released in one step.
	shrinkStep = 2000
)

// Shrink returns free pages of the file to the disk, in small steps.
func (l *Ledger) Shrink(ctx context.Context) error {
	for {
		var free, after int64
		err := l.db.makeChange(ctx, "shrink the ledger", func(x *tx) error {
			if err := x.queryRow("SELECT freelist_count FROM pragma_freelist_count").Scan(&free); err != nil || free <= spare {
				return err
			}
			// The pragma frees one page for each row that is read from it.
			rows, err := x.conn.QueryContext(x.ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", min(shrinkStep, free-spare)))
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }() // a second Close has no effect
			for rows.Next() {
			}
			if err := errors.Join(rows.Err(), rows.Close()); err != nil {
				return err
			}
			return x.queryRow("SELECT freelist_count FROM pragma_freelist_count").Scan(&after)
		})
		if err != nil || free <= spare || after >= free {
			return err
		}
	}
}
