package ledger

import (
	"testing"
	"time"
)

// TestSessions checks the stored fields of sessions, and their end.
func TestSessions(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	a := Session{ID: "a", Hash: [32]byte{1}, Person: "user kay", Subject: "https://idp s", Claims: []byte(`{"values":["x"]}`), Address: "192.0.2.1:1", Started: c.now(), Seen: c.now(), Expires: c.now().Add(time.Hour)}
	must(t, l.Sessions.Add(ctx, a))
	c.add(time.Second)
	b := Session{ID: "b", Hash: [32]byte{2}, Person: "lee (console link)", Claims: []byte("{}"), Address: "192.0.2.2:1", Started: c.now(), Seen: c.now(), Expires: c.now().Add(time.Hour)}
	must(t, l.Sessions.Add(ctx, b))
	if err := l.Sessions.Add(ctx, Session{ID: "c", Hash: b.Hash}); err == nil {
		t.Fatal("two sessions with one hash")
	}
	a.Seen = c.now().Add(time.Minute)
	must(t, l.Sessions.MarkSeen(ctx, map[string]time.Time{"a": a.Seen, "gone": a.Seen}))
	must(t, l.Sessions.MarkSeen(ctx, map[string]time.Time{"a": c.now()}))
	list, err := l.Sessions.List(ctx)
	must(t, err)
	same(t, "sessions", list, []Session{b, a})
	must(t, l.Sessions.Remove(ctx, []string{"b", "gone"}))
	list, err = l.Sessions.List(ctx)
	must(t, err)
	same(t, "after the end of one", list, []Session{a})
}
