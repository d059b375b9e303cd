package ledger

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/trust"
)

// TestEveryTableIsBounded checks that no table keeps rows of a site that has been gone for the retention of summaries,
// nor of old releases that no site holds. It fails for a table that no rule covers.
func TestEveryTableIsBounded(t *testing.T) {
	l, c := newLedger(t)
	ctx, began := t.Context(), c.now()
	const day = 24 * time.Hour
	keep := Retention{Logs: 30 * day, Runs: 400 * day}
	for n := range 3 {
		must(t, l.AddRelease(ctx, Release{Channel: "package", Number: trust.ReleaseNumber(n + 1), Digest: trust.ReleaseDigest(d(fmt.Sprint(n))), Published: c.now()}))
		must(t, l.Measurements.Set(ctx, Measurement{Channel: "package", Number: trust.ReleaseNumber(n + 1), Release: trust.ReleaseDigest(d(fmt.Sprint(n))), At: c.now()}))
	}
	_, err := l.Sites.Enrol(ctx, Identity{Domain: "apac", Site: "osaka", Public: "U1", JWTExpires: c.now().Add(day)})
	must(t, err)
	_, err = l.ChangeDesired(ctx, DesiredChange{Set: []Desired{{Domain: "apac", Site: "osaka", Channel: "package", Number: 1}}, Limits: map[SiteKey]Limit{{"apac", "osaka"}: {Timetable: "else 0"}}})
	must(t, err)
	must(t, l.Sites.Seen(ctx, []Sighting{{Domain: "apac", Site: "osaka", Seen: c.now()}}))
	_, err = l.Commit(ctx, batch("apac", "osaka", 1, 3, runID(1)))
	must(t, err)
	_, err = l.Append(ctx, "apac", "osaka", []Event{{Run: runID(2), Channel: "package", At: c.now(), Exceptions: []Exception{{Path: "x", Outcome: "failed"}}, Finish: &Finish{State: "verified", Attestation: &Attestation{At: c.now(), Number: 1}, Filled: &Fill{Target: "/srv"}}}})
	must(t, err)
	_, err = l.Incidents.OpenIncident(ctx, IncidentReport{Key: "x", Kind: "x", Domain: "apac", Site: "osaka"})
	must(t, err)
	_, err = l.Incidents.ResolveMember(ctx, "x", "apac", "osaka")
	must(t, err)
	must(t, l.Halts.Keep(ctx, []Halt{{Order: [16]byte{1}, At: c.now(), Resumed: c.now(), ResumedBy: "kay", Confirmed: []Stop{{Domain: "apac", Site: "osaka", Stopped: c.now()}}}}))
	_, err = l.Sites.AddToken(ctx, Token{ID: "t", Expires: c.now().Add(day)}, [32]byte{})
	must(t, err)
	must(t, l.APITokens.Add(ctx, APIToken{ID: "t", Expires: c.now().Add(day)}))
	must(t, l.Sessions.Add(ctx, Session{ID: "s", Expires: c.now().Add(day)}))
	must(t, l.Jobs.Add(ctx, Job{ID: "j", Started: c.now()}))
	must(t, l.Jobs.Finish(ctx, Job{ID: "j", Ended: c.now()}))
	_, err = l.KeyedRequests.Begin(ctx, KeyedRequest{At: c.now()}, KeyedBounds{Age: day, Each: 1, All: 1})
	must(t, err)
	must(t, l.Audit(ctx, Deed{Who: "kay", What: "test"}))
	_, err = l.Sites.Revoke(ctx, "apac", "osaka", "gone")
	must(t, err)
	_, err = l.ChangeDesired(ctx, DesiredChange{Drop: []DesiredKey{{"apac", "osaka", "package"}}})
	must(t, err)

	tables, err := queryAll(ctx, l.db.read, "list the tables", func(s scanner, v *string) error { return s.Scan(v) }, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
	must(t, err)
	rows := func() map[string]int {
		out := map[string]int{}
		for _, table := range tables {
			n, err := queryOne(ctx, l.db.read, "count", func(s scanner, n *int) error { return s.Scan(n) }, "SELECT count(*) FROM "+table)
			must(t, err)
			out[table] = n
		}
		return out
	}
	for table, n := range rows() {
		if n == 0 && table != "desired" {
			t.Errorf("this test fills no row of %s", table)
		}
	}
	prune := func(at time.Duration) {
		t.Helper()
		_, err := l.Prune(ctx, clock.CalendarAt(began.Add(at)), keep)
		must(t, err)
	}
	must(t, l.db.makeChange(ctx, "let time pass", func(x *tx) error { return x.execSQL("UPDATE meta SET purged = ?", toMicros(began.Add(600*day))) }))
	prune(399 * day)
	if n := rows(); n["holdings"] != 1 || n["audit"] == 0 || n["releases"] != 3 {
		t.Errorf("too early: %v", n)
	}
	prune(500 * day)
	prune(500 * day) // rows that depended on removed rows
	left := rows()
	for table, n := range left {
		bound := map[string]int{"meta": 1, "releases": 1, "measurements": 1}[table]
		if n != bound {
			t.Errorf("%d rows of %s are left, want %d", n, table, bound)
		}
	}
	must(t, l.Check(ctx))
}

// TestAuditOfTheLastDaysStays checks that even the ledger's own connection cannot delete recent audit entries.
func TestAuditOfTheLastDaysStays(t *testing.T) {
	l, c := newLedger(t)
	must(t, l.Audit(t.Context(), Deed{Who: "kay", What: "test"}))
	now, err := l.BeginPurge(t.Context(), clock.CalendarAt(c.now()))
	must(t, err)
	_, err = l.Prune(t.Context(), now.Add(-time.Second), Retention{Logs: 1, Runs: 1})
	must(t, err)
	err = l.db.makeChange(t.Context(), "tamper", func(x *tx) error { return x.execSQL("DELETE FROM audit") })
	if err == nil || !strings.Contains(err.Error(), "append only") {
		t.Errorf("%v", err)
	}
}

// TestShrink checks that the file returns the space of removed rows.
func TestShrink(t *testing.T) {
	l, _ := newLedger(t)
	ctx := t.Context()
	size := func() int64 {
		must(t, l.db.makeChange(ctx, "nothing", func(*tx) error { return nil }))
		_, err := l.db.write.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
		must(t, err)
		info, err := os.Stat(l.db.path)
		must(t, err)
		return info.Size()
	}
	for range 20 {
		must(t, l.db.makeChange(ctx, "fill", func(x *tx) error {
			return x.execSQL("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO tokens SELECT hex(randomblob(500)), randomblob(8), '', '', 0, '', 0, 0, '', '', 0 FROM n")
		}))
	}
	full := size()
	must(t, l.db.makeChange(ctx, "empty", func(x *tx) error { return x.execSQL("DELETE FROM tokens") }))
	must(t, l.Shrink(ctx))
	if after := size(); after > 5<<20 || full < 10<<20 {
		t.Errorf("%d bytes when full, %d after", full, after)
	}
	must(t, l.Check(ctx))
}

// TestPruneGoesOn checks that a table that cannot be pruned does not block the others.
func TestPruneGoesOn(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	_, err := l.Sites.AddToken(ctx, Token{ID: "t", Expires: c.now()}, [32]byte{})
	must(t, err)
	_, err = l.Commit(ctx, batch("apac", "osaka", 1, 3, runID(1)))
	must(t, err)
	must(t, l.db.makeChange(ctx, "break", func(x *tx) error {
		return x.execSQL("CREATE TRIGGER stuck BEFORE DELETE ON runs BEGIN SELECT raise(ABORT, 'stuck'); END")
	}))
	c.add(500 * 24 * time.Hour)
	p, err := l.Prune(ctx, clock.CalendarAt(c.now()), Retention{Logs: 1, Runs: 400 * 24 * time.Hour})
	if err == nil || !strings.Contains(err.Error(), "stuck") || p["tokens"] != 1 {
		t.Errorf("%v, %v", p, err)
	}
}
