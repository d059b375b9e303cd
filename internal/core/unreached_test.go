package core_test

import (
	"testing"

	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestUnreached: a run that was broken off says nothing of the files that it
// does not name, so nobody is told that they are unchanged.
func TestUnreached(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		w.write(name, name)
	}
	osaka := w.join("osaka")
	w.publish("package")
	d := osaka.stateOf("package", 1)
	id := ledger.RunID{1, 2, 3}
	osaka.deliver(osaka.events(id, d, []wire.File{{Outcome: runs.FileAdded, Ordinal: 1}}, &wire.Finished{Verdict: "stopped", Error: "the Core wants something else now", Totals: runs.Totals{Files: 3, Counts: runs.Counts{Added: 1, Unchanged: 2}}}, nil))
	var run ledger.Run
	w.until("the log", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		if err != nil || len(runs) != 1 {
			t.Fatal(runs, err)
		}
		run = runs[0]
		return !run.Rendered.IsZero()
	})
	got := map[string]string{}
	err := w.core.Query.RunShow(t.Context(), id.String(), true, func(query.RunDetail) error { return nil }, func(f record.File) error {
		got[f.Path] = string(f.Outcome)
		return nil
	})
	if err != nil || len(got) != 3 || got["a"] != "unreached" || got["b"] != "added" || got["c"] != "unreached" {
		t.Errorf("%v, %v", got, err)
	}
	if run.State != "stopped" || run.Totals.Added != 1 || run.Totals.Unchanged != 0 {
		t.Errorf("%+v", run)
	}
}

// TestShownWhileItsLogIsWritten: the events of a run go once its log is there.
// Who was about to read them is shown the log.
func TestShownWhileItsLogIsWritten(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		w.write(name, name)
	}
	osaka := w.join("osaka")
	w.publish("package")
	run, events := osaka.converge(osaka.stateOf("package", 1))
	last := len(events) - 1
	osaka.deliver(events[:last])
	for _, all := range []bool{false, true} {
		count := 0
		err := w.core.Query.RunShow(t.Context(), run.String(), all, func(d query.RunDetail) error {
			if all {
				return nil
			}
			if !d.Finished.IsZero() {
				t.Error("the run has ended before its end was told")
			}
			osaka.deliver(events[last:])
			w.untilRendered()
			return nil
		}, func(f record.File) error {
			if f.Outcome == "added" {
				count++
			}
			return nil
		})
		if err != nil || count != 3 {
			t.Errorf("all %v: %d files, %v", all, count, err)
		}
	}
}
