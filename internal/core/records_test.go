package core_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// ended waits for the newest run of a site (or of the Core) in that state, and
// returns its log's lines.
func (w *world) ended(site, state string) (run ledger.Run, lines []string) {
	w.t.Helper()
	w.until("a run that is "+state+" at "+site, func() bool {
		newest := w.newest(ledger.RunFilter{Site: site, Core: site == ""})
		if newest == nil || string(newest.State) != state || newest.Rendered.IsZero() {
			return false
		}
		run = *newest
		return true
	})
	for name, text := range w.logs() {
		if strings.HasSuffix(name, run.ID.String()+".jsonl") {
			return run, strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		}
	}
	w.t.Fatalf("run %s at %q, %s, has no log", run.ID, site, state)
	return
}

// newest returns the newest run but those that measure a source, which come by
// themselves; nil: there is none.
func (w *world) newest(f ledger.RunFilter) *ledger.Run {
	w.t.Helper()
	runs, err := w.core.Query.Runs(w.t.Context(), f)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range runs {
		if runs[i].Trigger != "measure" {
			return &runs[i]
		}
	}
	return nil
}

// TestEveryEndHasALog: whatever became of a run, its log tells it.
func TestEveryEndHasALog(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.settings.Fleet.Channels[1].LogUnchanged = true })
	w.write("a.txt", "one")
	w.write("d/b.txt", "two")
	const entries = 3 // a.txt, d, d/b.txt
	w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	publish := func(want string, o core.PublishOptions, fails bool) {
		t.Helper()
		if _, err := w.core.Publisher.Publish(t.Context(), "package", o); (err != nil) != fails {
			t.Fatal(want, err)
		}
		w.ended("", want)
	}
	last, log := w.ended("osaka", "verified")
	if len(log) != entries+2 {
		t.Errorf("%d lines:\n%s", len(log), strings.Join(log, "\n"))
	}
	// An order where there is nothing to do, also dry: every unchanged file has a line, as the channel says.
	for _, dry := range []bool{false, true} {
		if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka"}, Now: true, DryRun: dry}); err != nil {
			t.Fatal(err)
		}
		var run ledger.Run
		w.until("the order to be obeyed", func() bool {
			run, log = w.ended("osaka", "verified")
			return run.ID != last.ID
		})
		last = run
		if text := strings.Join(log, "\n"); run.DryRun != dry || len(log) != entries+2 || strings.Count(text, `"outcome":"unchanged"`) != entries {
			t.Errorf("dry %t: %+v\n%s", dry, run, text)
		}
	}
	publish("nothing", core.PublishOptions{}, false)
	w.write("a.txt", "three")
	publish("planned", core.PublishOptions{DryRun: true}, false)
	// A guard.
	w.remove("a.txt")
	w.remove("d/b.txt")
	publish("refused", core.PublishOptions{}, true)
	// A target that the site does not allow.
	w.settings.Fleet = testFleet(w.source, w.dir)
	w.apart().Sites[1].Placements[0].Target = filepath.ToSlash(filepath.Join(w.dir, "elsewhere"))
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.untilIncident("target-refused")
	run, log := w.ended("osaka", "refused")
	if run.Cause == "" || len(log) != 2 || !strings.Contains(log[1], "elsewhere") {
		t.Errorf("%+v\n%s", run, strings.Join(log, "\n"))
	}
}

// TestLogOfARunWithoutEnd: whatever a site tells of one run, little of it is held
// in memory, and its log has all that an honest one tells.
func TestLogOfARunWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.write("d/b.txt", "two")
	const entries = 3 // a.txt, d, d/b.txt
	osaka := w.join("osaka")
	w.publish("package")
	d := osaka.stateOf("package", 1)
	var told []wire.File
	for i := range 1000 { // files that it names again and again, and some that are none
		told = append(told, wire.File{Outcome: runs.FileFailed, Ordinal: uint64(i % (2 * entries)), Cause: fmt.Sprint("try ", i)})
	}
	paths := []wire.File{{Outcome: runs.FileDeleted, Path: "z"}, {Outcome: runs.FileDeleted, Path: "d/y", Cause: "first"}, {Outcome: runs.FileAdded, Path: "a.txt"},
		{Outcome: runs.FileDeleted, Path: "x"}, {Outcome: runs.FileDeleted, Path: "d/y", Cause: "again"}, {Outcome: runs.FileDeleted, Path: "b"}}
	osaka.deliver(osaka.events(ledger.RunID{7}, d, append(told, paths...), &wire.Finished{}, nil)[:2])
	osaka.deliver(osaka.events(ledger.RunID{8}, d, paths, &wire.Finished{}, nil)[:2])
	for _, want := range []struct {
		run   ledger.RunID
		most  int
		lines []string
	}{
		{ledger.RunID{7}, 1 << 20, []string{"a.txt try 996", "d try 997", "d/b.txt try 998", "a.txt ", "b ", "d/y again", "x ", "z "}},
		{ledger.RunID{8}, 1 << 20, []string{"a.txt ", "b ", "d/y again", "x ", "z "}},
		{ledger.RunID{8}, 450, []string{"d/y ", "z ", "a.txt ", "x ", "b "}}, // two paths: the others come last, as they were told
	} {
		lines, err := w.core.LinesWithin(t.Context(), want.run, want.most)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range lines {
			got = append(got, f.Path+" "+f.Cause)
		}
		if diff := cmp.Diff(want.lines, got); diff != "" {
			t.Error(want.run, want.most, diff)
		}
	}
}

// TestDailyUpkeep: heads are signed again, old logs and rows go, summaries stay,
// and what went is said.
func TestDailyUpkeep(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.settings.Retention.Logs = 24 * time.Hour })
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	run, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	w.untilMeasured("package", 1)
	w.untilRendered()
	if n := len(w.logs()); n != 3 {
		t.Fatalf("%d logs", n)
	}
	head := func() *repo.Head {
		t.Helper()
		r, err := repo.Open(t.Context(), w.store, repo.Options{Now: w.now})
		if err != nil {
			t.Fatal(err)
		}
		h, err := r.Head(t.Context(), "package")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := head()
	w.stop()
	w.ahead.Store(int64(48 * time.Hour)) // as far as a purge goes on
	w.start()
	w.untilDeed("purge", "3 log files")
	if left := w.logs(); len(left) > 0 {
		t.Errorf("left: %d logs", len(left))
	}
	w.until("the head to be signed again", func() bool { return head().Expires.After(before.Expires) })
	if h := head(); h.Number != before.Number || h.Release != before.Release {
		t.Errorf("%+v, was %+v", h, before)
	}
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || len(runs) != 1 || runs[0].ID != run || runs[0].State != "verified" {
		t.Errorf("%+v, %v", runs, err)
	}
	if err := w.core.Upkeep.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.logs()); n != 0 {
		t.Errorf("%d logs were written again", n)
	}
}
