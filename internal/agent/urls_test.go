package agent

import (
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/wire"
)

// TestLentUntilItsEnd: a URL is used until shortly before the end that the Core
// said, asked for again after it, and at once when the store refuses it. So a
// Core whose credential is renewed every hour is asked every hour.
func TestLentUntilItsEnd(t *testing.T) {
	var passed atomic.Int64 // of the store's clock
	began := time.Unix(1_800_000_000, 0)
	asks := make(chan wire.Ask, 8)
	u := newURLs(func(a wire.Ask) error { asks <- a; return nil }, func() time.Time { return began.Add(time.Duration(passed.Load())) }, time.Hour)
	lend := func(expired string) chan string {
		got := make(chan string, 1)
		go func() {
			raw, err := u.Lend(t.Context(), "packs/x", expired)
			if err != nil {
				t.Error(err)
			}
			got <- raw
		}()
		return got
	}
	answer := func(raw string, until time.Duration) {
		t.Helper()
		select {
		case a := <-asks:
			if len(a.Keys) != 1 || a.Keys[0] != "packs/x" {
				t.Errorf("asked for %q", a.Keys)
			}
			u.Answer(&wire.URLs{ID: a.ID, Until: began.Add(until).Unix(), Lent: []wire.URL{{Key: "packs/x", URL: raw}}})
		case <-time.After(patience):
			t.Fatal("the Core was not asked")
		}
	}
	want := func(got chan string, raw string) {
		t.Helper()
		if s := <-got; s != raw {
			t.Errorf("got %q, want %q", s, raw)
		}
	}
	first := lend("")
	answer("first", time.Hour)
	want(first, "first")
	passed.Store(int64(58 * time.Minute))
	want(lend(""), "first")
	passed.Store(int64(59*time.Minute + 30*time.Second))
	second := lend("")
	answer("second", 2*time.Hour)
	want(second, "second")
	third := lend("second") // refused by the store
	answer("third", 2*time.Hour)
	want(third, "third")
	want(lend(""), "third")
	if n := len(asks); n != 0 {
		t.Errorf("%d asks too many", n)
	}
}

// TestHaltOfTheNewestAnswer: the halt object is read through the URL that came
// last, because the credential of an older one may be gone; when the store refuses
// that, or it has ended, through one that lasts longer; and only then is the Core
// asked. A process that starts again has one that lasts as long as its content.
func TestHaltOfTheNewestAnswer(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ends := map[string]time.Time{"old": now.Add(100 * time.Hour), "new": now.Add(6 * time.Hour), "last": now.Add(200 * time.Hour)}
	next := make(chan string, 1) // what the Core answers with
	var u *urls
	u = newURLs(func(a wire.Ask) error {
		by := "nobody expected an ask"
		select {
		case by = <-next:
		default:
		}
		m := &wire.URLs{ID: a.ID, Until: ends[by].Unix(), Lent: []wire.URL{{Key: haltKey, URL: by}}}
		for _, key := range a.Keys {
			if key != haltKey {
				m.Lent = append(m.Lent, wire.URL{Key: key, URL: by + " " + key})
			}
		}
		u.Answer(m)
		return nil
	}, func() time.Time { return now }, time.Hour)
	lend := func(key, expired, want string) {
		t.Helper()
		if raw, err := u.Lend(t.Context(), key, expired); err != nil || raw != want {
			t.Errorf("%s is read through %q, %v; want %q", key, raw, err, want)
		}
	}
	kept := func(want string, keys ...string) {
		t.Helper()
		lent, err := u.keepPresigned(t.Context(), append(keys, haltKey), now)
		if err != nil || len(lent) != len(keys)+1 {
			t.Fatalf("%d are kept, %v", len(lent), err)
		}
		again := newURLs(nil, func() time.Time { return now }, time.Hour)
		again.restoreKept(lent, "")
		if raw, err := again.Lend(t.Context(), haltKey, ""); err != nil || raw != want || !again.HasHaltURL() {
			t.Errorf("a new process reads it through %q, %v; want %q", raw, err, want)
		}
	}
	next <- "old"
	lend("packs/x", "", "old packs/x")
	lend(haltKey, "", "old")
	next <- "new"
	lend("packs/y", "", "new packs/y")
	lend(haltKey, "", "new")
	kept("new", "packs/y")
	kept("old", "packs/x", "packs/y")
	lend(haltKey, "new", "old") // refused by the store
	lend(haltKey, "", "old")
	next <- "new"
	lend(haltKey, "old", "new") // and that, too: the Core is asked
	next <- "old"
	lend("packs/z", "", "old packs/z")
	next <- "new"
	lend("packs/w", "", "new packs/w")
	lend(haltKey, "", "new")
	now = ends["new"]
	lend(haltKey, "", "old")
	next <- "last"
	lend("packs/v", "", "last packs/v")
	lend(haltKey, "", "last")
	next <- "new"
	lend(haltKey, "last", "new") // what ends earlier than a newer one is not kept
}
