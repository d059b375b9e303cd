package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/trust"
)

// handClock is a clock that the test sets.
type handClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *handClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newClock() *handClock {
	return &handClock{t: time.Date(2026, 3, 1, 22, 0, 0, 123456000, time.UTC)}
}

func openAt(t *testing.T, path string, c *handClock) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path, Options{Now: c.now})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func newLedger(t *testing.T) (*Ledger, *handClock) {
	t.Helper()
	c := newClock()
	return openAt(t, filepath.Join(t.TempDir(), "ledger.db"), c), c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func d(s string) digest.Digest { return digest.Of([]byte(s)) }

func runID(n int) (id RunID) {
	copy(id[:], digest.Of(fmt.Append(nil, n)).String())
	return id
}

func TestSettingsOfEveryConnection(t *testing.T) {
	l, _ := newLedger(t)
	ask := func(pragma string, read bool) string {
		db := l.db.write
		if read {
			db = l.db.read
		}
		var v string
		must(t, db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&v))
		return v
	}
	for _, read := range []bool{false, true} {
		got := map[string]string{}
		for _, p := range []string{"journal_mode", "synchronous", "foreign_keys", "busy_timeout"} {
			got[p] = ask(p, read)
		}
		same(t, "pragmas", got, map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"})
	}
	if _, err := l.db.read.ExecContext(t.Context(), "DELETE FROM meta"); err == nil {
		t.Fatal("a reader can write")
	}
}

func TestTokens(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	hash := [32]byte{1}
	_, err := l.Sites.AddToken(ctx, Token{ID: "t1", Domain: "apac", Site: "osaka", IssuedBy: "kay", Expires: c.now().Add(24 * time.Hour), User: "T1"}, hash)
	must(t, err)
	_, err = l.Sites.AddToken(ctx, Token{ID: "t1"}, hash)
	wantErr(t, err, ErrConflict)
	_, err = l.Sites.TakeToken(ctx, "none", hash, "U1")
	wantErr(t, err, ErrUnknownToken)
	_, err = l.Sites.TakeToken(ctx, "t1", [32]byte{2}, "U1")
	wantErr(t, err, ErrUnknownToken)

	// Twenty callers try concurrently; one succeeds.
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { _, errs[i] = l.Sites.TakeToken(ctx, "t1", hash, fmt.Sprint("U", i)) })
	}
	wg.Wait()
	winner, n := -1, 0
	for i, err := range errs {
		if err == nil {
			winner, n = i, n+1
		} else {
			wantErr(t, err, ErrUsedToken)
		}
	}
	if n != 1 {
		t.Fatalf("%d of 20 took the token, want 1", n)
	}
	tok, err := l.Sites.TakeToken(ctx, "t1", hash, fmt.Sprint("U", winner)) // as if the first answer was lost
	must(t, err)
	same(t, "token", tok, Token{ID: "t1", Domain: "apac", Site: "osaka", Issued: c.now(), IssuedBy: "kay",
		Expires: c.now().Add(24 * time.Hour), Used: c.now(), UsedBy: fmt.Sprint("U", winner), User: "T1"})

	_, err = l.Sites.AddToken(ctx, Token{ID: "t2", Expires: c.now().Add(time.Hour), User: "T2"}, hash)
	must(t, err)
	c.add(time.Hour)
	_, err = l.Sites.TakeToken(ctx, "t2", hash, "U9")
	wantErr(t, err, ErrExpiredToken)

	// After the winner's first message the token has ended, also for the winner.
	for i, want := range []int{1, 0} {
		n, err := l.Sites.EndUsedTokens(ctx, tok.UsedBy)
		must(t, err)
		same(t, fmt.Sprint("tokens ended by hello ", i+1), n, want)
	}
	_, err = l.Sites.TakeToken(ctx, "t1", hash, tok.UsedBy)
	wantErr(t, err, ErrUsedToken)

	// A revoked token stays revoked if the clock goes back.
	_, err = l.Sites.AddToken(ctx, Token{ID: "t3", Domain: "apac", Site: "tokyo", Expires: c.now().Add(time.Hour), User: "T3"}, hash)
	must(t, err)
	unused, err := l.Sites.EndTokens(ctx, "apac", "tokyo")
	must(t, err)
	same(t, "unused tokens", unused, 1)
	c.add(-30 * time.Minute)
	_, err = l.Sites.TakeToken(ctx, "t3", hash, "U9")
	wantErr(t, err, ErrExpiredToken)
	users, err := l.Sites.EndedTokenUsers(ctx)
	must(t, err)
	same(t, "users of ended tokens", users, []string{"T1", "T3"})
}

func TestIdentities(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	first := Identity{Domain: "apac", Site: "osaka", Public: "U1", Enrolled: c.now(), JWTExpires: c.now().Add(90 * 24 * time.Hour), Version: "1"}
	old, err := l.Sites.Enrol(ctx, first)
	must(t, err)
	same(t, "superseded", old, []Identity(nil))
	_, err = l.Sites.Enrol(ctx, first) // a repeated request
	must(t, err)
	c.add(time.Minute)
	second := first
	second.Public, second.Enrolled = "U2", c.now()
	old, err = l.Sites.Enrol(ctx, second)
	must(t, err)
	first.Ended, first.Why = c.now(), "superseded"
	same(t, "superseded", old, []Identity{first})
	_, err = l.Sites.Enrol(ctx, Identity{Domain: "emea", Site: "paris", Public: "U1"})
	wantErr(t, err, ErrConflict)
	wantErr(t, l.Sites.Renew(ctx, "U1", c.now(), "2"), ErrNotFound)
	second.JWTExpires, second.Version = c.now().Add(time.Hour), "2"
	must(t, l.Sites.Renew(ctx, "U2", second.JWTExpires, "2"))
	got, err := l.Sites.Identity(ctx, "apac", "osaka")
	must(t, err)
	same(t, "identity", got, second)

	// The site moves to another domain, and back.
	moved := Identity{Domain: "emea", Site: "osaka", Public: "U3", Enrolled: c.now(), JWTExpires: second.JWTExpires}
	old, err = l.Sites.Enrol(ctx, moved)
	must(t, err)
	second.Ended, second.Why = c.now(), "superseded"
	same(t, "superseded in another domain", old, []Identity{second})
	_, err = l.Sites.Identity(ctx, "apac", "osaka")
	wantErr(t, err, ErrNotFound)
	former := second
	second.Public, second.Ended, second.Why, second.Version = "U4", time.Time{}, "", ""
	old, err = l.Sites.Enrol(ctx, second)
	must(t, err)
	moved.Ended, moved.Why = c.now(), "superseded"
	same(t, "superseded in another domain", old, []Identity{moved})

	got, err = l.Sites.Revoke(ctx, "apac", "osaka", "stolen")
	must(t, err)
	second.Ended, second.Why = c.now(), "stolen"
	same(t, "revoked", got, second)
	_, err = l.Sites.Identity(ctx, "apac", "osaka")
	wantErr(t, err, ErrNotFound)
	_, err = l.Sites.Revoke(ctx, "apac", "osaka", "again")
	wantErr(t, err, ErrNotFound)
	all, err := l.Sites.Identities(ctx, true)
	must(t, err)
	same(t, "all identities", all, []Identity{first, former, second, moved})

	s := Sighting{Domain: "apac", Site: "osaka", Seen: c.now(), Version: "2", ClockOffset: -3 * time.Second, Lag: 7, Revision: 4}
	late := s
	late.Seen, late.Lag = s.Seen.Add(-time.Hour), 99
	must(t, l.Sites.Seen(ctx, []Sighting{s, late}))
	seen, err := l.Sites.Sightings(ctx)
	must(t, err)
	same(t, "sightings", seen, []Sighting{s})
}

func TestDesired(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	want := Desired{Domain: "apac", Site: "osaka", Channel: "package", Number: 3, Release: trust.ReleaseDigest(d("r3")), Tree: d("t3"), Nonce: [16]byte{7}, By: "kay", Body: []byte("x")}
	want.Mode = 5
	key := SiteKey{"apac", "osaka"}
	limit := map[SiteKey]Limit{key: {"else 5B", 9}}
	rev, err := l.ChangeDesired(ctx, DesiredChange{Set: []Desired{want}, Limits: limit})
	must(t, err)
	same(t, "revision", rev, uint64(1))
	other := want
	other.Site = "tokyo"
	rev, err = l.ChangeDesired(ctx, DesiredChange{Set: []Desired{other}})
	must(t, err)
	same(t, "revision of another site", rev, uint64(2))
	rev, err = l.ChangeDesired(ctx, DesiredChange{Limits: limit})
	must(t, err)
	same(t, "revision of no change of rows", rev, uint64(2))
	n, err := l.NextRevision(ctx)
	must(t, err)
	same(t, "next", n, uint64(3))
	must(t, l.Restate(ctx, 50))
	if err := l.Restate(ctx, 50); !errors.Is(err, ErrConflict) {
		t.Errorf("a revision that was issued: %v", err)
	}
	want.Set, want.Revision = c.now(), 1
	state, err := l.DesiredState(ctx, "apac", "osaka")
	must(t, err)
	same(t, "desired", *state, DesiredState{Rows: []Desired{want}, Revisions: map[SiteKey]uint64{key: 50}, Limits: limit})
	all, err := l.DesiredState(ctx, "", "")
	must(t, err)
	same(t, "rows of all sites", len(all.Rows), 2)
	rev, err = l.ChangeDesired(ctx, DesiredChange{Drop: []DesiredKey{{"apac", "osaka", "package"}}})
	must(t, err)
	same(t, "revision of a drop", rev, uint64(51))
	state, err = l.DesiredState(ctx, "apac", "osaka")
	must(t, err)
	same(t, "after the drop", *state, DesiredState{Revisions: map[SiteKey]uint64{key: 51}, Limits: limit})
	_, err = l.ChangeDesired(ctx, DesiredChange{Limits: map[SiteKey]Limit{key: {}}})
	must(t, err)
	state, err = l.DesiredState(ctx, "apac", "osaka")
	must(t, err)
	same(t, "limits when it is lifted", len(state.Limits), 0)

	rel := Release{Channel: "package", Number: 3, Digest: trust.ReleaseDigest(d("r3")), Tree: d("t3"), Files: 10, Bytes: 100, Published: c.now(), Run: runID(1)}
	must(t, l.AddRelease(ctx, rel))
	must(t, l.AddRelease(ctx, rel))
	another := rel
	another.Digest = trust.ReleaseDigest(d("other"))
	wantErr(t, l.AddRelease(ctx, another), ErrConflict)
	rels, err := l.Releases(ctx, "", 0)
	must(t, err)
	same(t, "releases", rels, []Release{rel})
}

func TestIncidentsHaltsAudit(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	for i, want := range []bool{true, false, false} {
		opened, err := l.Incidents.OpenIncident(ctx, IncidentReport{Key: "clock", Kind: "clock", Text: "off", Domain: "apac", Site: []string{"osaka", "osaka", "perth"}[i]})
		must(t, err)
		same(t, "opened", opened, want)
	}
	for i, want := range []bool{false, false, true, false} {
		resolved, err := l.Incidents.ResolveMember(ctx, "clock", "apac", []string{"osaka", "osaka", "perth", "perth"}[i])
		must(t, err)
		same(t, fmt.Sprint("resolved by leave ", i), resolved, want)
	}
	opened, err := l.Incidents.OpenIncident(ctx, IncidentReport{Key: "clock", Kind: "clock"})
	must(t, err)
	same(t, "opened again", opened, true)
	resolved, err := l.Incidents.ResolveMember(ctx, "clock", "", "")
	must(t, err)
	same(t, "resolved", resolved, true)
	open, err := l.Incidents.List(ctx, false)
	must(t, err)
	all, err := l.Incidents.List(ctx, true)
	must(t, err)
	if len(open) != 0 || len(all) != 2 || len(all[1].Members) != 2 || all[1].Count != 3 {
		t.Fatalf("incidents: open %v, all %v", open, all)
	}

	h := Halt{Order: halt.ID{5}, Scope: "region", Value: "ap", Reason: "outage", By: "kay", At: c.now()}
	must(t, l.Halts.Keep(ctx, []Halt{h}))
	stop := Stop{Domain: "apac", Site: "osaka", Stopped: c.now(), BytesAfter: 12, Said: c.now(), Confirmed: c.now(), Within: Seconds(time.Second), Process: "01"}
	kept := h
	kept.Confirmed = []Stop{stop, {Domain: "apac", Site: "perth", Stopped: c.now()}}
	must(t, l.Halts.Keep(ctx, []Halt{kept}))
	later := kept
	later.Confirmed = []Stop{{Domain: "apac", Site: "osaka", Stopped: c.now().Add(time.Hour), BytesAfter: 1}}
	must(t, l.Halts.Keep(ctx, []Halt{later}))
	stop = later.Confirmed[0]
	must(t, l.Halts.ForgetStops(ctx, "apac", "perth"))
	c.add(time.Minute)
	h.Resumed, h.ResumedBy = c.now(), "lee"
	must(t, l.Halts.Keep(ctx, []Halt{h}))
	again := h
	again.Resumed, again.ResumedBy = c.now().Add(time.Hour), "kay"
	must(t, l.Halts.Keep(ctx, []Halt{again}))
	must(t, l.Halts.ForgetStops(ctx, "apac", "osaka")) // only for active orders: lifted ones are history
	h.Confirmed = []Stop{stop}
	halts, err := l.Halts.List(ctx, true)
	must(t, err)
	same(t, "halts", halts, []Halt{h})

	// If an error leaves the transaction open, the next change must not run in it.
	if err := l.db.makeChange(ctx, "err", func(x *tx) error { return x.execSQL("SELECT broken") }); err == nil {
		t.Fatal("nonsense was obeyed")
	}
	must(t, l.Audit(ctx, Deed{Who: "kay", What: "secret read", Object: "smtp", Detail: "mail"}))
	deeds, err := l.Deeds(ctx, DeedFilter{Who: "kay"})
	must(t, err)
	same(t, "audit", deeds, []Deed{{ID: 1, At: c.now(), Who: "kay", What: "secret read", Object: "smtp", Detail: "mail"}})
	for _, q := range []string{"DELETE FROM audit", "UPDATE audit SET who = 'nobody'"} {
		if err := l.db.makeChange(ctx, "tamper", func(x *tx) error { return x.execSQL(q) }); err == nil {
			t.Fatalf("%s was obeyed", q)
		}
	}
}

func TestMigrations(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "ledger.db")
	steps, err := readMigrations()
	must(t, err)
	c := newClock()
	// A ledger with schema 1 and some content.
	l, err := openLedger(ctx, path, Options{Now: c.now}, steps[:1])
	must(t, err)
	must(t, l.Audit(ctx, Deed{Who: "kay", What: "init"}))
	id := l.CoreID()
	must(t, l.Close())

	// A migration keeps the content. A failing step leaves the previous schema.
	next := append(steps, "ALTER TABLE halts ADD COLUMN note TEXT NOT NULL DEFAULT ''; UPDATE meta SET revision = 41")
	if _, err := openLedger(ctx, path, Options{Now: c.now}, append(next, "CREATE TABLE extra (a); SELECT broken")); err == nil {
		t.Fatal("a broken migration was accepted")
	}
	l, err = openLedger(ctx, path, Options{Now: c.now}, next)
	must(t, err)
	rev, err := l.NextRevision(ctx)
	must(t, err)
	deeds, err := l.Deeds(ctx, DeedFilter{})
	must(t, err)
	if rev != 42 || len(deeds) != 1 || l.CoreID() != id || id == [16]byte{} {
		t.Fatalf("after the migration: revision %d, audit %v, id %x", rev, deeds, l.CoreID())
	}
	must(t, l.Check(ctx))
	must(t, l.Close())

	_, err = Open(ctx, path, Options{Now: c.now})
	var newer *NewerError
	if !errors.As(err, &newer) || newer.Found != len(steps)+1 || newer.Supported != len(steps) {
		t.Fatalf("a newer schema: %v", err)
	}
	foreign := filepath.Join(t.TempDir(), "other.db")
	must(t, os.WriteFile(foreign, nil, 0o600))
	db, err := openPool(foreign, "", "", 1)
	must(t, err)
	_, err = db.ExecContext(ctx, "PRAGMA application_id = 7; CREATE TABLE other (a)")
	must(t, errors.Join(err, db.Close()))
	if _, err = Open(ctx, foreign, Options{Now: c.now}); err == nil {
		t.Fatal("another program's database was taken for a ledger")
	}
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	must(t, os.WriteFile(garbage, make([]byte, 8192), 0o600))
	if _, err = Open(ctx, garbage, Options{Now: c.now}); err == nil {
		t.Fatal("zeros were taken for a ledger")
	}
}
