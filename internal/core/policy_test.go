package core_test

import (
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
)

// TestIgnoreReachesSites: a site keeps what its channel's policy ignores, in a
// run that prunes and in a check, and in a pruning run that finds the pattern's
// file between a release's own.
func TestIgnoreReachesSites(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) {
		p := w.settings.Fleet.Site("tokyo").Placement("package")
		p.Prune, p.Ignore = true, []string{"keep/", "*.local", "/d/own"}
	})
	w.write("d/a.bin", "content")
	w.write("z.bin", "content")
	w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")

	kept := []string{"keep/deep/file.ini", "site.local", "d/other.local", "d/own/x", "z/keep/y"}
	for _, name := range append(kept, "junk.txt", "d/junk.txt", "gone/junk.txt") {
		w.place("tokyo", name, "the site's own")
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "tokyo"}}); err != nil {
		t.Fatal(err)
	}
	w.until("the run that prunes", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "tokyo", Limit: 1})
		return err == nil && len(runs) == 1 && runs[0].State == "verified" && runs[0].Totals.Deleted > 0
	})
	for _, name := range []string{"junk.txt", "d/junk.txt", "gone"} {
		if _, err := os.Lstat(w.at("tokyo", name)); !os.IsNotExist(err) {
			t.Errorf("%s was not pruned: %v", name, err)
		}
	}
	for _, name := range kept {
		if _, err := os.Lstat(w.at("tokyo", name)); err != nil {
			t.Errorf("a file that the channel ignores was pruned: %v", err)
		}
	}

	if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "tokyo"}}); err != nil {
		t.Fatal(err)
	}
	w.until("the check", func() bool { return len(w.runs("tokyo", "verify")) == 1 })
	if r := w.runs("tokyo", "verify")[0]; r.State != "verified" {
		t.Errorf("the check of what the channel ignores ended %s: %s", r.State, r.Cause)
	}
}

// place writes a file of the site's own.
func (w *world) place(site, name, text string) {
	w.t.Helper()
	path := w.at(site, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}
