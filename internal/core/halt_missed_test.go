package core_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
)

// TestHaltOfTheRegionASiteHasNow: the configuration has moved a site to another
// region since it was enrolled. Orders count it to that.
func TestHaltOfTheRegionASiteHasNow(t *testing.T) {
	w := newWorld(t, nil)
	w.runAgent("osaka", true)
	f := *w.settings.Fleet
	f.Sites = append([]fleet.Site{}, f.Sites...)
	for i := range f.Sites {
		if f.Sites[i].Name == "osaka" {
			f.Sites[i].Region = "emea"
		}
	}
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Region, Value: "emea", Reason: "heat"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("osaka to obey", w.obeys("osaka", done.Orders[0]))
}

// TestPublishesMissedInAHalt lets the cadence of two channels come up several
// times under a halt. Nothing is published under it. When it is lifted, each
// channel publishes once, and neither waits for the other.
func TestPublishesMissedInAHalt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	driver := w.source + "-driver"
	if err := os.MkdirAll(driver, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(driver, "d.sys"), []byte("d"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Add(3 * time.Minute)
	f := *w.settings.Fleet
	f.Channels = append([]fleet.Channel{}, f.Channels...)
	for i := range f.Channels {
		f.Channels[i].Cadence = fmt.Sprintf("%d,%d * * * * UTC", at.Minute(), at.Add(5*time.Minute).Minute())
	}
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.until("the cadences to be known", func() bool { return w.remembers("package") && w.remembers("driver") })
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "night off"})
	if err != nil {
		t.Fatal(err)
	}
	runs := func() []ledger.Run {
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Core: true})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(list, func(r ledger.Run) bool { return r.Trigger != "publish" }) // its sources are measured, too
	}
	w.stop()
	w.ahead.Store(int64(9 * time.Minute)) // both times pass
	w.start()
	looked := w.object("halt")
	time.Sleep(4 * w.options.Poll) // a measurement: what is due is published at every poll
	if n := len(runs()); n != 0 || len(looked) == 0 {
		t.Fatalf("%d publishes under a halt", n)
	}
	if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.until("both publishes", func() bool {
		n := 0
		for _, r := range runs() {
			if r.State == "published" {
				n++
			}
		}
		return n == 2
	})
	time.Sleep(4 * w.options.Poll)
	list := runs()
	if len(list) != 2 || list[0].Channel == list[1].Channel {
		t.Fatalf("%+v", list)
	}
}
