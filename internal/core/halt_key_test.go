package core_test

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
)

// TestKeyMadeWhileTheCoreIsDead: the operators make a key when the Core is dead, and stop a site with it that moves
// content. The order itself stops the site, not the fail-safe, and the key lifts it. The Core that returns agrees.
func TestKeyMadeWhileTheCoreIsDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var fetching, free atomic.Bool
	let := make(chan struct{})
	release := sync.OnceFunc(func() { free.Store(true); close(let) })
	t.Cleanup(release)
	w.through(func(next http.Handler) http.Handler {
		hold := s3test.HangBody(1000, 100, let)(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/packs/") && r.URL.Query().Has("X-Amz-Expires") && !free.Load() { // presigned: a site reads it
				fetching.Store(true)
				hold.ServeHTTP(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	w.noise("big", 1<<20, 1)
	w.publish("package")
	w.joined("osaka", func(o *agent.Options) { o.HaltEvery, o.Spread = 2*time.Second, 100*time.Millisecond })
	w.until("osaka to fetch", fetching.Load)
	w.stop()

	_, fresh, _ := ed25519.GenerateKey(nil)
	w.keys(t, func(d *trust.Doc) {
		d.Keys = append(d.Keys, trust.Key{Public: repo.PublicOf(fresh), Roles: trust.AllRoles, Since: time.Now().Unix()})
	})
	change := func(change func(*halt.Orders)) {
		t.Helper()
		if _, err := w.others().Halts().Put(t.Context(), fresh, func(o *halt.Orders) error { change(o); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	change(func(o *halt.Orders) {
		o.Add(halt.Order{ID: halt.NewID(), Scope: halt.Domain, Value: "apac", Reason: "bad package", By: "on call", At: time.Now().Unix()})
	})
	w.until("osaka to stop", func() bool { return w.said("agent osaka: package release 1: stopped") })
	if !w.said("bad package") || w.said("neither the Core nor the store's orders to stop can be read") {
		t.Error("the order has not stopped it")
	}
	change(func(o *halt.Orders) { o.Active = nil })
	release()
	w.untilSame(w.folder("osaka", "package"))

	w.start()
	w.untilCurrent(1, "osaka")
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := w.halts(); len(m) != 0 {
		t.Errorf("in force are %+v", m)
	}
	for _, k := range []string{"site-control", "site-store", "site-repository", "site-line", "forged", "denied", "store", "core"} {
		if w.open(k) {
			t.Errorf("an incident of kind %s: %q", k, w.texts(k))
		}
	}
}
