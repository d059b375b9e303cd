package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

var gen = [16]byte{0xaa}

// batch returns a batch of n outcome events of one run.
func batch(domain, site string, first uint64, n int, run RunID) Batch {
	b := Batch{Domain: domain, Site: site, Generation: gen, First: first}
	for i := range n {
		b.Events = append(b.Events, Event{Run: run, Channel: "package", Kind: 3, At: time.Unix(int64(first)+int64(i), 0).UTC(),
			Body: fmt.Append(nil, "event ", first+uint64(i))})
	}
	return b
}

func bodies(t *testing.T, l *Ledger, run RunID) (list []string) {
	t.Helper()
	must(t, l.RunEvents(t.Context(), run, func(e Event) error { list = append(list, string(e.Body)); return nil }))
	return list
}

func wantBodies(t *testing.T, l *Ledger, run RunID, n int) {
	t.Helper()
	got := bodies(t, l, run)
	for i, b := range got {
		if b != fmt.Sprint("event ", i+1) {
			t.Fatalf("event %d is %q", i+1, b)
		}
	}
	if len(got) != n {
		t.Fatalf("%d events, want %d", len(got), n)
	}
}

func TestCommitKeepsEachEventOnce(t *testing.T) {
	l, _ := newLedger(t)
	ctx := t.Context()
	run := runID(1)
	c, err := l.Commit(ctx, batch("apac", "osaka", 1, 5, run))
	must(t, err)
	same(t, "first batch", c, Committed{Last: 5, Fresh: 5})
	for _, again := range []struct {
		first uint64
		n     int
		want  Committed
	}{
		{1, 5, Committed{Last: 5}},
		{2, 2, Committed{Last: 5}},
		{3, 6, Committed{Last: 8, Fresh: 3}},
		{9, 0, Committed{Last: 8}},
	} {
		c, err := l.Commit(ctx, batch("apac", "osaka", again.first, again.n, run))
		must(t, err)
		same(t, fmt.Sprint("batch from ", again.first), c, again.want)
	}
	_, err = l.Commit(ctx, batch("apac", "osaka", 10, 1, run))
	var gap *GapError
	if !errors.As(err, &gap) || gap.Want != 9 || gap.Got != 10 {
		t.Fatalf("a gap: %v", err)
	}
	wantBodies(t, l, run, 8)

	// Another site cannot add to this run, and its whole batch is refused.
	b := batch("apac", "perth", 1, 2, runID(2))
	b.Events[1].Run = run
	_, err = l.Commit(ctx, b)
	wantErr(t, err, ErrForeignRun)
	if got := bodies(t, l, runID(2)); len(got) != 0 {
		t.Fatalf("half a batch was kept: %v", got)
	}

	// A new spool starts at 1. The ledger still knows the old one.
	fresh := batch("apac", "osaka", 1, 1, runID(3))
	fresh.Generation = [16]byte{0xbb}
	c, err = l.Commit(ctx, fresh)
	must(t, err)
	same(t, "new generation", c, Committed{Last: 1, Fresh: 1, NewGeneration: true})
	c, err = l.Commit(ctx, batch("apac", "osaka", 1, 8, run))
	must(t, err)
	same(t, "old generation", c, Committed{Last: 8})

	must(t, l.Skip(ctx, "apac", "osaka", gen, 100))
	c, err = l.Commit(ctx, batch("apac", "osaka", 100, 1, runID(4)))
	must(t, err)
	same(t, "after a skip", c, Committed{Last: 100, Fresh: 1})
	must(t, l.Check(ctx))
}

func TestRunFromStartToLog(t *testing.T) {
	l, clk := newLedger(t)
	ctx := t.Context()
	run, at := runID(1), clk.now()
	att := &Attestation{At: at.Add(3 * time.Second), Nonce: [16]byte{4}, Number: 2, Release: trust.ReleaseDigest(d("r2")), Tree: d("t2"), Files: 3, Bytes: 30, Read: 1, Statted: 2, Verified: true, Signed: []byte("signed")}
	b := Batch{Domain: "apac", Site: "osaka", Generation: gen, First: 1, Events: []Event{
		{Run: run, Channel: "package", Kind: 1, At: at, Start: &Start{Number: 2, Release: trust.ReleaseDigest(d("r2")), Tree: d("t2"), Parent: 1, Trigger: "desired"}},
		{Run: run, Channel: "package", Kind: 3, At: at.Add(time.Second), Body: []byte("outcomes"), Exceptions: []Exception{{Path: "a\x01b", Outcome: "locked", Cause: "in use", Size: 9}}},
		{Run: run, Channel: "package", Kind: 4, At: at.Add(2 * time.Second), Finish: &Finish{State: "incomplete", Cause: "locked", Totals: runs.Totals{Files: 3, Bytes: 30, Counts: runs.Counts{Added: 2, Locked: 1}, Fetched: 21}, Attestation: att}},
		{Kind: 9, Incidents: []IncidentReport{{Key: "locked osaka", Kind: "locked", Domain: "apac", Site: "osaka"}}},
	}}
	c, err := l.Commit(ctx, b)
	must(t, err)
	same(t, "committed", c, Committed{Last: 4, Fresh: 4, Opened: []string{"locked osaka"}, Finished: []RunID{run}})
	want := Run{ID: run, Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: trust.ReleaseDigest(d("r2")), Tree: d("t2"), Parent: 1, Trigger: "desired",
		Started: at, Finished: at.Add(2 * time.Second), State: "incomplete", Cause: "locked",
		Totals: runs.Totals{Files: 3, Bytes: 30, Counts: runs.Counts{Added: 2, Locked: 1}, Fetched: 21}, Attestation: digest.Of([]byte("signed"))}
	un, err := l.Unrendered(ctx)
	must(t, err)
	same(t, "unrendered", un, []Run{want})
	must(t, l.MarkRendered(ctx, run))
	wantErr(t, l.MarkRendered(ctx, runID(9)), ErrNotFound)
	want.Rendered = clk.now()
	wantErr(t, l.RunEvents(ctx, run, func(e Event) error { return fmt.Errorf("%+v was kept though the log is written", e) }), ErrRendered)

	// The log contains the run's end, so later events change no total.
	_, err = l.Commit(ctx, Batch{Domain: "apac", Site: "osaka", Generation: gen, First: 5, Events: []Event{
		{Run: run, Channel: "package", Kind: 4, At: at.Add(time.Hour), Finish: &Finish{State: "failed"}}}})
	must(t, err)
	want.Late = 1
	for name, list := range map[string]func() ([]Run, error){
		"by id":     func() ([]Run, error) { r, err := l.Run(ctx, run); return []Run{r}, err },
		"by prefix": func() ([]Run, error) { return l.FindRuns(ctx, run.String()[:5]) },
		"by filter": func() ([]Run, error) {
			return l.Runs(ctx, RunFilter{Domain: "apac", Site: "osaka", Channel: "package", State: "incomplete", Since: at, Until: at.Add(time.Second)})
		},
	} {
		got, err := list()
		must(t, err)
		same(t, name, got, []Run{want})
	}
	if none, err := l.Runs(ctx, RunFilter{Core: true}); err != nil || len(none) != 0 {
		t.Fatalf("the Core's runs: %v, %v", none, err)
	}
	if _, err := l.FindRuns(ctx, "xyz"); err == nil {
		t.Fatal("a prefix that is not hexadecimal was accepted")
	}

	ex, err := l.Exceptions(ctx, Filter{Site: "osaka"})
	must(t, err)
	same(t, "exceptions", ex, []Exception{{Domain: "apac", Site: "osaka", Channel: "package", Path: "a\x01b", Outcome: "locked", Cause: "in use", Size: 9,
		First: at.Add(time.Second), Last: at.Add(time.Second), Count: 1, As: run, Run: run}})
	atts, err := l.Attestations(ctx, Filter{Run: run})
	must(t, err)
	stated := *att
	stated.Run, stated.Domain, stated.Site, stated.Channel, stated.Digest = run, "apac", "osaka", "package", digest.Of([]byte("signed"))
	same(t, "attestations", atts, []Attestation{stated})

	// The site attests the same release again, unverified. Since and Verified keep their values.
	again := *att
	again.At, again.Verified = att.At.Add(time.Hour), false
	_, err = l.Append(ctx, "apac", "osaka", []Event{{Run: runID(2), Channel: "package", At: again.At, Finish: &Finish{State: "unverified", Attestation: &again}}})
	must(t, err)
	hold, err := l.Holdings(ctx, Filter{Channel: "package"})
	must(t, err)
	same(t, "holdings", hold, []Holding{{Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: trust.ReleaseDigest(d("r2")), Tree: d("t2"),
		Since: att.At, Attested: again.At, Verified: att.At, Run: runID(2), Files: att.Files, Bytes: att.Bytes}})
}

func TestConcurrentCommits(t *testing.T) {
	l, _ := newLedger(t)
	const sites, rounds, size = 24, 20, 3
	var wg sync.WaitGroup
	for s := range sites {
		wg.Go(func() {
			for r := range rounds {
				// Every batch is committed twice, as after a lost acknowledgement. One site in four sends an invalid
				// batch in between.
				for range 2 {
					c, err := l.Commit(t.Context(), batch("apac", fmt.Sprint("s", s), uint64(r*size+1), size, runID(s)))
					if err != nil || c.Last != uint64(r*size+size) {
						t.Errorf("site %d round %d: %+v, %v", s, r, c, err)
					}
				}
				if s%4 == 0 {
					var gap *GapError
					if _, err := l.Commit(t.Context(), batch("apac", fmt.Sprint("s", s), 1e6, 1, runID(s))); !errors.As(err, &gap) {
						t.Errorf("site %d: a gap gives %v", s, err)
					}
				}
			}
		})
	}
	wg.Wait()
	for s := range sites {
		wantBodies(t, l, runID(s), rounds*size)
	}
}

func TestPrune(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	const day = 24 * time.Hour
	keep := Retention{Logs: 30 * day, Runs: 400 * day}
	finish := func(n int, render bool) {
		t.Helper()
		_, err := l.Append(ctx, "apac", "osaka", []Event{{Run: runID(n), Channel: "package", At: c.now(), Exceptions: []Exception{{Path: fmt.Sprint("x", n), Outcome: "failed"}}},
			{Run: runID(n), Channel: "package", At: c.now(), Finish: &Finish{State: "verified", Attestation: &Attestation{At: c.now(), Verified: true}}}})
		must(t, err)
		if render {
			must(t, l.MarkRendered(ctx, runID(n)))
		}
	}
	finish(1, true)
	finish(2, false) // its log was never written
	_, err := l.Incidents.OpenIncident(ctx, IncidentReport{Key: "old and open"})
	must(t, err)
	_, err = l.Incidents.OpenIncident(ctx, IncidentReport{Key: "old and resolved", Site: "osaka"})
	must(t, err)
	_, err = l.Incidents.ResolveMember(ctx, "old and resolved", "", "osaka")
	must(t, err)
	must(t, l.Halts.Keep(ctx, []Halt{{Order: [16]byte{1}, At: c.now()}, {Order: [16]byte{2}, At: c.now(), Resumed: c.now(), ResumedBy: "kay"}}))
	_, err = l.Sites.AddToken(ctx, Token{ID: "t", Expires: c.now().Add(day)}, [32]byte{})
	must(t, err)
	for _, key := range []string{"U1", "U2"} {
		_, err = l.Sites.Enrol(ctx, Identity{Domain: "apac", Site: "osaka", Public: key, JWTExpires: c.now().Add(90 * day)})
		must(t, err)
	}
	c.add(31 * day)
	finish(3, true)
	p, err := l.Prune(ctx, clock.CalendarAt(c.now()), keep)
	must(t, err)
	same(t, "after 31 days", p, Pruned{"exceptions": 2})
	if got := bodies(t, l, runID(2)); len(got) != 2 {
		t.Fatal("a run that has no log yet lost its events")
	}
	c.add(470 * day)
	finish(4, true)
	p, err = l.Prune(ctx, clock.CalendarAt(c.now()), keep)
	must(t, err)
	same(t, "after 501 days", p, Pruned{"events": 2, "exceptions": 1, "runs": 3, "attestations": 3, "incidents": 1, "halts": 1, "tokens": 1, "identities": 1})
	runs, err := l.Runs(ctx, RunFilter{})
	must(t, err)
	incidents, err := l.Incidents.List(ctx, true)
	must(t, err)
	halts, err := l.Halts.List(ctx, true)
	must(t, err)
	hold, err := l.Holdings(ctx, Filter{})
	must(t, err)
	if len(runs) != 1 || len(incidents) != 1 || len(halts) != 1 || len(hold) != 1 {
		t.Fatalf("left: runs %v, incidents %v, halts %v, holdings %v", runs, incidents, halts, hold)
	}
	_, err = l.Sites.Identity(ctx, "apac", "osaka")
	must(t, err)
	must(t, l.Check(ctx))
}

func TestBackup(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	_, err := l.Commit(ctx, batch("apac", "osaka", 1, 10, runID(1)))
	must(t, err)
	path := filepath.Join(t.TempDir(), "it's 100%", "copy?.db")
	if err := l.Backup(ctx, path); err == nil {
		t.Fatal("a backup into a missing folder")
	}
	path = filepath.Join(t.TempDir(), "it's 100% a#copy.db")
	must(t, l.Backup(ctx, path))
	if err := l.Backup(ctx, path); err == nil {
		t.Fatal("a backup was overwritten")
	}
	_, err = l.Commit(ctx, batch("apac", "osaka", 11, 1, runID(1)))
	must(t, err)
	copied := openAt(t, path, c)
	wantBodies(t, copied, runID(1), 10)
	must(t, copied.Check(ctx))
	if copied.CoreID() != l.CoreID() {
		t.Fatal("the copy is another Core's")
	}
}

// TestPurgeGoesOnByTwoDays checks that a purge judges ages by a time at most two days after that of the previous purge,
// whatever the clock shows. A clock that was set back takes effect at once.
func TestPurgeGoesOnByTwoDays(t *testing.T) {
	l, c := newLedger(t)
	start := c.now()
	for i, x := range []struct{ shown, want time.Duration }{
		{0, 0}, {24 * time.Hour, 24 * time.Hour}, {400 * 24 * time.Hour, 72 * time.Hour}, {400 * 24 * time.Hour, 120 * time.Hour},
		{48 * time.Hour, 48 * time.Hour}, {-400 * 24 * time.Hour, -400 * 24 * time.Hour}, {0, 0},
	} {
		got, err := l.BeginPurge(t.Context(), clock.CalendarAt(start.Add(x.shown)))
		if err != nil || !got.Time().Equal(start.Add(x.want)) {
			t.Errorf("%d: the clock shows %v, the purge is at %v, %v; want %v", i, x.shown, got.Time().Sub(start), err, x.want)
		}
	}
}
