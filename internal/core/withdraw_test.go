package core_test

import (
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
)

// TestWithdraw takes a request back before its site has joined: the site's first run is an ordinary one. A request whose site has
// run since is left.
func TestWithdraw(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "a")
	w.publish("package")
	orders, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka", Channel: "package"}, DryRun: true})
	if err != nil || len(orders) != 1 {
		t.Fatalf("%+v %v", orders, err)
	}
	withdrawn, left, err := w.core.Orders.Withdraw(t.Context(), orders)
	if err != nil || len(withdrawn) != 1 || len(left) != 0 {
		t.Errorf("%+v %+v %v", withdrawn, left, err)
	}
	defer w.runAgent("osaka", true)()
	w.untilCurrent(1, "osaka")
	list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || len(list) == 0 || list[len(list)-1].DryRun {
		t.Errorf("the request was obeyed: %+v %v", list, err)
	}
	if withdrawn, left, err = w.core.Orders.Withdraw(t.Context(), orders); err != nil || len(withdrawn) != 0 || len(left) != 1 {
		t.Errorf("after a run: %+v %+v %v", withdrawn, left, err)
	}
}

// TestWithdrawLeavesOthers withdraws a request that has replaced one of another person, and one that a later request has
// replaced: the site is to run in both cases.
func TestWithdrawLeavesOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "a")
	w.publish("package")
	sync := func() []core.Order {
		t.Helper()
		orders, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka", Channel: "package"}, Rehash: true})
		if err != nil || len(orders) != 1 {
			t.Fatalf("%+v %v", orders, err)
		}
		return orders
	}
	first, second := sync(), sync()
	for name, orders := range map[string][]core.Order{"the earlier one": first, "the later one": second} {
		withdrawn, left, err := w.core.Orders.Withdraw(t.Context(), orders)
		if err != nil || len(withdrawn) != 0 || len(left) != 1 {
			t.Errorf("%s: %+v %+v %v", name, withdrawn, left, err)
		}
	}
	defer w.runAgent("osaka", true)()
	w.until("the run that was asked for", func() bool {
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		return err == nil && len(list) == 1 && !list[0].Finished.IsZero() && list[0].Trigger == "sync"
	})
}
