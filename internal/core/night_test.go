package core_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
)

// TestCadence: the Core publishes by itself, once for each time of the cadence,
// also when that fell into a restart.
func TestCadence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	published := func() []ledger.Run {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Core: true, Channel: "package"})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(runs, func(r ledger.Run) bool { return r.Trigger != "publish" })
	}
	// Due twice, at times that lie ahead of this test's clock until it jumps.
	first := time.Now().UTC().Add(3 * time.Minute)
	f := *w.settings.Fleet
	f.Channels = append([]fleet.Channel{}, f.Channels...)
	f.Channels[1].Cadence = fmt.Sprintf("%d,%d * * * * UTC", first.Minute(), first.Add(5*time.Minute).Minute())
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.until("the cadence to be known", func() bool { return w.remembers("package") })
	if n := len(published()); n != 0 {
		t.Fatalf("%d publishes before the time", n)
	}
	w.stop()
	w.ahead.Store(int64(4 * time.Minute)) // the time passes while the Core is down
	w.start()
	w.until("the publish that was missed", func() bool { r := published(); return len(r) == 1 && r[0].State == "published" })
	w.write("a.inf", "two")
	w.restart()
	w.ahead.Store(int64(9 * time.Minute))
	w.until("the second publish", func() bool { r := published(); return r[0].Number == 2 && r[0].State == "published" })
	if r := published(); len(r) != 2 {
		t.Errorf("%d publishes for two times of the cadence", len(r))
	}
}

// TestMissed: a window in which a site that lacks a release was away leaves one
// run that was missed, with a log file.
func TestMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	f := *w.settings.Fleet
	f.Sites = append([]fleet.Site{}, f.Sites...)
	open := time.Now().UTC().Add(time.Minute).Truncate(time.Minute).Add(time.Minute)
	for i := range f.Sites {
		p := append([]fleet.Placement{}, f.Sites[i].Placements...)
		for j := range p {
			at := open
			if f.Sites[i].Name == "tokyo" {
				at = open.Add(time.Minute)
			}
			p[j].Windows = at.Format("15:04-") + at.Add(time.Minute).Format("15:04")
		}
		f.Sites[i].Placements = p
	}
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.runAgent("osaka", true)() // it joins, and goes away
	w.runAgent("tokyo", true)()
	w.publish("package")
	w.ahead.Store(int64(13 * time.Minute)) // osaka's window and its grace are over
	var run ledger.Run
	w.until("the run that was missed", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		if err != nil {
			t.Fatal(err)
		}
		if len(runs) > 0 {
			run = runs[0]
		}
		return len(runs) > 0
	})
	if run.State != "missed" || run.Number != 1 || !run.Started.Equal(open) || !strings.Contains(run.Cause, "last heard") {
		t.Errorf("%+v", run)
	}
	w.untilRendered()
	w.restart()
	w.ahead.Store(int64(14*time.Minute + 5*time.Second)) // tokyo's too
	w.until("tokyo's", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "tokyo", State: "missed"})
		return err == nil && len(runs) == 1
	})
	if runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"}); err != nil || len(runs) != 1 {
		t.Errorf("%d runs of osaka, %v: the same window was missed once", len(runs), err)
	}
	found := false
	for name, text := range w.logs() {
		found = found || strings.Contains(name, "osaka") && strings.Contains(text, `"missed"`)
	}
	if !found {
		t.Error("no log file tells of it")
	}
}

// TestWindowsTravel: a real agent keeps to its windows, obeys an order that says
// now, and a limit; the plan tells when it would start by itself.
func TestWindowsTravel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for i := range 20 {
		w.write(fmt.Sprintf("d/f%d.inf", i), strings.Repeat("x", 1000*i))
	}
	f := *w.settings.Fleet
	f.Sites = append([]fleet.Site{}, f.Sites...)
	now := time.Now().UTC()
	rule := now.Add(3*time.Hour).Format("15:04-") + now.Add(5*time.Hour).Format("15:04")
	f.Sites[1].Placements = append([]fleet.Placement{}, f.Sites[1].Placements...)
	f.Sites[1].Placements[0].Windows = rule
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.runAgent("osaka", true)
	w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")
	osaka := fleet.Scope{Site: "osaka"}

	plan, err := w.core.Query.Plan(t.Context(), query.PlanRequest{Scope: osaka, Days: 2})
	if err != nil {
		t.Fatal(err)
	}
	opens := now.Add(3 * time.Hour).Truncate(time.Minute)
	if len(plan.Items) != 1 || !plan.Items[0].Start.Equal(opens) || !plan.Items[0].Tonight || !plan.Items[0].Assumed || plan.Items[0].Bytes != 190_000 {
		t.Errorf("the plan is %+v, want one start at %v", plan.Items, opens)
	}
	orders, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: osaka})
	if err != nil || len(orders) != 1 || !orders[0].Opens.Equal(opens) {
		t.Errorf("%+v, %v; want the window's start, %v", orders, err, opens)
	}
	l, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: osaka, Rate: "0", For: ledger.Seconds(time.Hour)})
	if err != nil || len(l) != 1 || l[0].Rate != "else 0" || l[0].Until.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: osaka, Now: true}); err != nil {
		t.Fatal(err)
	}
	w.until("osaka to know", func() bool {
		s, err := w.core.Query.Sites(t.Context(), osaka)
		return err == nil && s[0].Revision == s[0].Wanted
	})
	w.restart() // the limit outlives it
	if runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"}); err != nil || len(runs) > 0 {
		t.Fatalf("%d runs at a rate of 0, %v", len(runs), err)
	}
	if l, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: osaka}); err != nil || l[0].Rate != "else unlimited" {
		t.Errorf("%+v, %v", l, err)
	}
	w.untilCurrent(1, "osaka")
	if plan, err := w.core.Query.Plan(t.Context(), query.PlanRequest{Scope: osaka}); err != nil || len(plan.Items) != 0 {
		t.Errorf("%+v, %v: nothing is due", plan, err)
	}
}
