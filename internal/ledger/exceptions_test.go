package ledger

import (
	"fmt"
	"testing"
	"time"
)

// TestRepeatedFailure checks that a file that fails in every run is one exception with the time and run of the first
// failure and a count. Another cause starts a new exception.
func TestRepeatedFailure(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	start := c.now()
	report := func(n int, cause string) time.Time {
		t.Helper()
		c.add(time.Hour)
		_, err := l.Append(ctx, "apac", "osaka", []Event{{Run: runID(n), Channel: "package", At: c.now(), Exceptions: []Exception{
			{Path: "a", Outcome: "failed", Cause: cause, Size: 1}, {Path: "b", Outcome: "locked", Size: 2}}}})
		must(t, err)
		return c.now()
	}
	for n := range 40 {
		report(n+1, "access denied")
	}
	last := report(41, "disk full")
	got, err := l.Exceptions(ctx, Filter{Domain: "apac", Site: "osaka"})
	must(t, err)
	same(t, "exceptions", got, []Exception{
		{Domain: "apac", Site: "osaka", Channel: "package", Path: "b", Outcome: "locked", Size: 2, First: start.Add(time.Hour), Last: last, Count: 41, As: runID(1), Run: runID(41)},
		{Domain: "apac", Site: "osaka", Channel: "package", Path: "a", Outcome: "failed", Cause: "disk full", Size: 1, First: last, Last: last, Count: 1, As: runID(41), Run: runID(41)}})
	// The same path at another site or in another channel is a separate exception.
	_, err = l.Append(ctx, "apac", "tokyo", []Event{{Run: runID(50), Channel: "package", At: c.now(), Exceptions: []Exception{{Path: "a", Outcome: "failed"}}}})
	must(t, err)
	if got, err = l.Exceptions(ctx, Filter{Run: runID(50)}); err != nil || len(got) != 1 || got[0].Count != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestExceptionsAreBounded checks that one site cannot fill the ledger.
func TestExceptionsAreBounded(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	var many []Exception
	for i := range 10 {
		many = append(many, Exception{Path: fmt.Sprintf("file-%06d", i), Outcome: "failed"})
	}
	// All but one of the rows that a site may have are there already.
	must(t, l.db.makeChange(ctx, "fill", func(x *tx) error {
		return x.execSQL(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO exceptions (domain, site, channel, path, outcome, cause, size, first, last, count, as_run, run)
			SELECT 'apac', 'osaka', 'package', 'old-' || i, 'failed', '', 0, 1, 1, 1, ?2, ?2 FROM n`, MaxExceptions-1, make([]byte, 16))
	}))
	for n := range 2 {
		_, err := l.Append(ctx, "apac", "osaka", []Event{{Run: runID(n + 1), Channel: "package", At: c.now(), Exceptions: many}})
		must(t, err)
	}
	_, err := l.Append(ctx, "apac", "tokyo", []Event{{Run: runID(9), Channel: "package", At: c.now(), Exceptions: many[:1]}})
	must(t, err)
	got, err := l.Exceptions(ctx, Filter{Site: "osaka", Limit: 2 * MaxExceptions})
	must(t, err)
	if len(got) != MaxExceptions || got[0].Count != 2 {
		t.Errorf("%d exceptions of one site are kept, want %d; the first was reported %d times", len(got), MaxExceptions, got[0].Count)
	}
	if got, err = l.Exceptions(ctx, Filter{Site: "tokyo"}); err != nil || len(got) != 1 {
		t.Errorf("another site's: %+v, %v", got, err)
	}
}
