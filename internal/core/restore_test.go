package core_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestRestoredLedger: the ledger is yesterday's. No site goes back, none is
// deaf to orders, what they hold is known again, and no run is there twice.
func TestRestoredLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	db := filepath.Join(w.options.Data, "ledger.db")
	w.write("a.txt", "one")
	stop := w.runAgent("osaka", true)
	w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "osaka", "tokyo")
	w.untilRendered()

	w.stop() // checkpoints and closes the file
	yesterday, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	for n, text := range []string{"two", "three", "four"} {
		w.write("a.txt", text)
		w.publish("package")
		w.untilCurrent(trust.ReleaseNumber(n)+2, "osaka", "tokyo")
	}
	// Orders of which the restored ledger knows nothing.
	for range 3 {
		w.sync("osaka")
	}
	w.untilRendered()
	stop()
	before := w.logs()

	w.stop()
	w.putBack(db, yesterday)
	w.start()
	w.runAgent("osaka", false)
	w.untilCurrent(4, "osaka", "tokyo") // proven anew
	w.untilIncident("lost-events")
	if w.has("behind") {
		t.Error("the store was there to be read")
	}
	w.sync("osaka") // is obeyed
	w.write("a.txt", "five")
	if p := w.publish("package"); p.Number != 5 {
		t.Errorf("release %d", p.Number)
	}
	w.untilCurrent(5, "osaka", "tokyo")
	w.untilRendered()
	for name, text := range before {
		if now, ok := w.logs()[name]; !ok || now != text {
			t.Errorf("the log %s is not what it was", name)
		}
	}
	w.checkLogs(1)
	for _, n := range []string{"osaka", "tokyo"} {
		if b, err := os.ReadFile(filepath.Join(w.dir, "sites", n, "package", "a.txt")); err != nil || string(b) != "five" {
			t.Errorf("%s: %q, %v", n, b, err)
		}
	}
}

// putBack replaces the ledger of a Core that is stopped.
func (w *world) putBack(db string, old []byte) {
	w.t.Helper()
	for _, name := range []string{db + "-wal", db + "-shm"} {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			w.t.Fatal(err)
		}
	}
	if err := os.WriteFile(db, old, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// sync orders a run and waits until it is done.
func (w *world) sync(site string) {
	w.t.Helper()
	last := func() ledger.Run {
		runs, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: site, Limit: 1})
		if err != nil || len(runs) != 1 {
			w.t.Fatal(runs, err)
		}
		return runs[0]
	}
	before := last().ID
	if _, err := w.core.Orders.Sync(w.t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: site}, Now: true}); err != nil {
		w.t.Fatal(err)
	}
	w.until("the ordered run", func() bool {
		run := last()
		return run.ID != before && run.Trigger == "sync" && !run.Finished.IsZero()
	})
}

func (w *world) has(kind string) bool { return len(w.texts(kind)) > 0 }

// TestBehind: a Core that knows less than a site, and cannot read the store to
// learn it, withholds the channel's desired state from that site. A halt order reaches it.
func TestBehind(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	osaka.stateOf("package", 1)
	osaka.say(wire.VerbHello, 0, &wire.Hello{Generation: osaka.generation, At: time.Now().UnixMilli(), Trust: osaka.chain.Number, Holds: []wire.Held{{Channel: "package", Number: 2}}})
	w.untilIncident("behind")
	for len(osaka.in) > 0 {
		<-osaka.in
	}
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "bad package"})
	if err != nil {
		t.Fatal(err)
	}
	var st wire.State
	for len(st.Halt) == 0 {
		st = wire.State{}
		if err := osaka.answer(wire.VerbState, &st); err != nil {
			t.Fatal(err)
		}
		if len(st.Desired) > 0 || !slices.Equal(st.Withheld, []string{"package"}) {
			t.Errorf("it gets a desired state: %+v", st)
		}
	}
	if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.write("a.txt", "two")
	w.publish("package")
	for st.Desired = nil; len(st.Desired) == 0; {
		if err := osaka.answer(wire.VerbState, &st); err != nil {
			t.Fatal(err)
		}
	}
	if st.Desired[0].Number != 2 {
		t.Fatal(st)
	}
	w.until("it to be over", func() bool { return !w.has("behind") })
}

// TestRestoredLedgerKeepsWholeLogs: a site that heard only of the beginning that
// it was committed tells the end once more. The ledger has lost the rest; the
// log that was written of it all has not, and stays.
func TestRestoredLedgerKeepsWholeLogs(t *testing.T) {
	w := newWorld(t, nil)
	db := filepath.Join(w.options.Data, "ledger.db")
	w.write("a.txt", "one")
	w.publish("package")
	w.untilMeasured("package", 1)
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	w.stop()
	yesterday, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	osaka.back()
	run, events := osaka.converge(d)
	osaka.deliver(events)
	w.untilRendered()
	before := w.logsOf(run.String())
	w.stop()
	w.putBack(db, yesterday)
	w.start()
	osaka.back()
	last := len(events) - 1
	osaka.next--
	for range 2 { // it insists that there is nothing before
		if n, _, err := osaka.report(osaka.next, events[last:]); err != nil || n != 0 {
			t.Fatal(n, err)
		}
	}
	osaka.say(wire.VerbReport, 0, &wire.Report{Generation: osaka.generation, First: osaka.next, Events: events[last:]}) // is believed
	osaka.deliver(events[last:])
	w.untilRendered()
	if now := w.logsOf(run.String()); len(before) != 1 || len(now) != 1 || now[0] != before[0] {
		t.Errorf("the log was\n%q\nand is\n%q", before, now)
	}
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || len(runs) != 1 || runs[0].Number != 1 || runs[0].Release != d.Release || runs[0].Trigger != "desired" || runs[0].State != "verified" {
		t.Errorf("%+v, %v", runs, err)
	}
}
