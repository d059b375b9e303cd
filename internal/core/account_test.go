package core_test

import (
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
)

// TestLogOfRemovedRelease: a run that is reported after gc has removed its
// release gets its log, with ordinals in place of names.
func TestLogOfRemovedRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	w.untilMeasured("package", 1)
	_, events := osaka.converge(osaka.stateOf("package", 1)) // done, and spooled: the control line is cut
	w.write("a.txt", "two")
	w.publish("package")
	w.untilMeasured("package", 2)
	w.untilRendered()
	w.restart()                                                                        // what the Core remembers of the release is gone, too
	if err := w.store.Delete(t.Context(), repo.ReleaseKey("package", 1)); err != nil { // gc
		t.Fatal(err)
	}
	osaka.back()
	osaka.deliver(events)
	w.until("the log", func() bool { r := w.lastRun("osaka"); return !r.Rendered.IsZero() })
	if list := w.texts("log"); len(list) > 0 {
		t.Errorf("there are incidents: %q", list)
	}
}

// TestPublishCountsEntries: what a publish leaves unchanged is never less than
// nothing, however many folders there are.
func TestPublishCountsEntries(t *testing.T) {
	w := newWorld(t, nil)
	for _, dir := range []string{"a", "a/b", "a/b/c", "d"} {
		w.write(filepath.Join(dir, "file"), dir)
	}
	w.publish("package")
	w.write("d/file", "changed")
	w.publish("package")
	list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Core: true, State: runs.Published})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []runs.Counts{{Changed: 1, Unchanged: 7}, {Added: 8}} {
		if got := list[i].Totals.Counts; got != want {
			t.Errorf("publish %d counts %+v, want %+v", 2-i, got, want)
		}
	}
}

// TestFailingFilesAgain: files that fail in every run are in the ledger once.
func TestFailingFilesAgain(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, func(w *world) { w.settings.Fleet.Site("osaka").Placement("package").Partial = true })
	w.write("f1", "x")
	w.write("f2", "x")
	w.place("osaka", "f1/own", "the site's own is in the way")
	w.place("osaka", "f2/own", "the site's own is in the way")
	w.publish("package")
	w.runAgent("osaka", true)
	w.until("four runs", func() bool {
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", State: runs.Incomplete})
		return err == nil && len(list) >= 4
	})
	list, err := w.core.Query.FailingFiles(t.Context(), fleet.Scope{Site: "osaka"}, 10)
	if err != nil || len(list) != 2 || list[0].Count < 3 || list[0].As == list[0].Run || !list[0].First.Before(list[0].Last.Add(-time.Millisecond)) {
		t.Errorf("%+v, %v: want one exception of each file, reported by several runs", list, err)
	}
	for _, x := range []struct {
		scope fleet.Scope
		limit int
		want  int
	}{
		{fleet.Scope{Region: w.settings.Fleet.Site("osaka").Region}, 10, 2}, {fleet.Scope{Channel: "package"}, 1, 1}, {fleet.Scope{Domain: w.settings.Fleet.Site("osaka").Domain}, 10, 2},
	} {
		if list, err := w.core.Query.FailingFiles(t.Context(), x.scope, x.limit); err != nil || len(list) != x.want {
			t.Errorf("%+v: %d files, %v, want %d", x.scope, len(list), err, x.want)
		}
	}
	if _, err := w.core.Query.FailingFiles(t.Context(), fleet.Scope{Site: "osak"}, 10); err == nil {
		t.Error("an unknown site is no error")
	}
}
