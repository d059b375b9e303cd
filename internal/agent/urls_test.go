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
