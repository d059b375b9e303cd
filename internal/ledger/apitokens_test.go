package ledger

import (
	"testing"
	"time"

	"nightferry/internal/clock"
)

// TestAPITokens checks the stored fields of API tokens, and that Prune removes only those that ended long ago.
func TestAPITokens(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	const day = 24 * time.Hour
	old := APIToken{ID: "a", Hash: [32]byte{1}, Name: "ci", Role: "viewer", Domain: "apac", Issued: c.now(), IssuedBy: "kay", Expires: c.now().Add(day)}
	must(t, l.APITokens.Add(ctx, old))
	c.add(time.Second)
	long := APIToken{ID: "b", Hash: [32]byte{2}, Name: "night", Role: "operator", Region: "ap", Issued: c.now(), IssuedBy: "kay", Expires: c.now().Add(400 * day)}
	must(t, l.APITokens.Add(ctx, long))
	if err := l.APITokens.Add(ctx, APIToken{ID: "c", Hash: long.Hash}); err == nil {
		t.Fatal("two tokens with one hash")
	}
	must(t, l.APITokens.MarkUsed(ctx, map[string]time.Time{"a": c.now(), "gone": c.now()}))
	must(t, l.APITokens.MarkUsed(ctx, map[string]time.Time{"a": c.now().Add(-time.Hour)}))
	must(t, l.APITokens.Revoke(ctx, "a", "lee", c.now()))
	must(t, l.APITokens.Revoke(ctx, "a", "kay", c.now().Add(time.Hour)))
	old.Used, old.Revoked, old.RevokedBy = c.now(), c.now(), "lee"
	list, err := l.APITokens.List(ctx)
	must(t, err)
	same(t, "tokens", list, []APIToken{long, old})
	c.add(100 * day)
	_, err = l.Prune(ctx, clock.CalendarAt(c.now()), Retention{Runs: 90 * day})
	must(t, err)
	list, err = l.APITokens.List(ctx)
	must(t, err)
	same(t, "after 100 days", list, []APIToken{long})
}
