package core_test

import (
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
)

// TestRequestAfterTheChannelReturned: a sync request counts also when its
// channel, or its site, was out of the configuration for a while.
func TestRequestAfterTheChannelReturned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	f := w.apart()
	w.write("a.txt", "one")
	w.publish("package")
	w.runAgent("tokyo", true)
	w.untilCurrent(1, "tokyo")
	for range 3 {
		w.sync("tokyo")
	}
	whole := *f
	reload := func(f fleet.Fleet) {
		t.Helper()
		s := w.settings
		s.Fleet = &f
		if err := w.core.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	without := whole
	without.Sites = append([]fleet.Site{}, whole.Sites...)
	without.Sites[2].Placements = []fleet.Placement{{Channel: "driver", Target: w.dir + "/sites/tokyo/driver"}} // tokyo, without its channel
	reload(without)
	reload(whole)
	w.sync("tokyo")
	without.Sites = whole.Sites[:2] // without tokyo
	reload(without)
	reload(whole)
	w.sync("tokyo")
}

// TestWaiting: the Core knows why a channel has not started.
func TestWaiting(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, func(w *world) { w.apart().Sites[2].Placements[0].Windows = "never" })
	w.write("a.txt", "one")
	w.publish("package")
	waits := func(why string) {
		t.Helper()
		w.until("tokyo to wait: "+why, func() bool {
			ch := w.channel("tokyo", "package")
			return ch.Waiting != nil && ch.Waiting.Why == why
		})
	}
	stop := w.runAgent("tokyo", true)
	waits("window")
	if _, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: fleet.Scope{Site: "tokyo"}, Rate: "0"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "tokyo"}, Now: true}); err != nil {
		t.Fatal(err)
	}
	waits("rate")
	stop()
	w.ahead.Store(int64(10 * time.Minute)) // it is not heard meanwhile
	waits("away")
	w.ahead.Store(0)
	w.runAgent("tokyo", false)
	if _, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: fleet.Scope{Site: "tokyo"}}); err != nil {
		t.Fatal(err)
	}
	w.until("the run", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "tokyo", State: "verified"})
		return err == nil && len(runs) == 1 && w.channel("tokyo", "package").Waiting == nil
	})
}
