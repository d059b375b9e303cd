package core_test

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestFleetThatAges: 400 days with sites that join, are replaced, revoked and
// removed, a channel that goes, a clock that jumps by a year twice, and a Core
// that restarts. Afterwards no incident is open that nobody owns, no run is under
// way, and no table has more rows than a fleet of that size needs.
func TestFleetThatAges(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorldWith(t, nil, func(w *world) {
		w.settings.Retention = ledger.Retention{Logs: 6 * day, Summaries: 30 * day}
	})
	w.write("a.txt", "0")
	sites := map[string]*wireSite{"osaka": w.join("osaka"), "tokyo": w.join("tokyo"), "berlin": w.join("berlin")}
	rel := w.publish("package")
	night := func(name string, parts func([]wire.Event) []wire.Event) {
		s := sites[name]
		var run ledger.RunID
		_, _ = rand.Read(run[:]) // never fails
		d := s.stateOf("package", rel.Number)
		at := &wire.Attestation{Channel: d.Channel, Nonce: d.Nonce, Release: rel.Digest, Tree: rel.Tree, Files: rel.Files, Bytes: rel.Bytes, At: w.right().Unix(), OldestRead: w.right().Unix()}
		s.deliver(parts(s.events(run, d, nil, &wire.Finished{Verdict: "verified", Totals: runs.Totals{Files: rel.Files, Bytes: rel.Bytes}}, at)))
		s.settled()
	}
	whole := func(e []wire.Event) []wire.Event { return e }
	begun := func(e []wire.Event) []wire.Event { return e[:1] }
	for n := range 200 {
		w.ahead.Add(int64(2 * day))
		switch n {
		case 10: // berlin has problems, begins a run, and is scrapped
			sites["berlin"].deliver([]wire.Event{problem(t, "disk", "package", false), problem(t, "clock", "", false)})
			night("berlin", begun)
			if err := w.core.Enrolment.RevokeSite(t.Context(), "berlin", "scrapped"); err != nil {
				t.Fatal(err)
			}
			delete(sites, "berlin")
		case 20: // and taken out, with its channel, whose publish fails until then
			if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
				t.Fatal("a missing source was published")
			}
			f := w.apart()
			f.Sites = f.Sites[1:]
			f.Channels = f.Channels[1:]
			if err := w.core.Reload(t.Context(), w.settings); err != nil {
				t.Fatal(err)
			}
		case 40: // tokyo is replaced in the middle of a run
			night("tokyo", begun)
			sites["tokyo"] = w.join("tokyo")
			sites["tokyo"].generation[0]++ // of its own database
		case 60, 80: // the Core's clock is wrong for one round
			jump := 365 * day
			if n == 80 {
				jump = -jump
			}
			w.wrong.Store(int64(jump))
			w.core.UpkeepNow(t.Context())
			w.wrong.Store(0)
		}
		if n%20 == 5 {
			w.write("a.txt", fmt.Sprint(n))
			rel = w.publish("package")
		}
		if n%25 == 0 {
			w.restart()
			for _, s := range sites {
				s.back()
			}
		}
		for name := range sites {
			night(name, whole)
		}
		w.upkeep()
	}
	w.untilOver("clock")
	w.until("only incidents that somebody owns", func() bool { return len(w.openKeys()) == 0 })
	w.until("the end of every run", func() bool {
		open, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Open: true})
		return err == nil && len(open) == 0
	})
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Limit: 10_000})
	if err != nil || len(runs) > 100 { // 17 nights of two sites, and the Core's own
		t.Errorf("%d runs are kept, %v", len(runs), err)
	}
	all, err := w.core.Query.Incidents(t.Context(), true)
	if err != nil || len(all) > 100 {
		t.Errorf("%d incidents are kept, %v", len(all), err)
	}
	if n := len(w.logs()); n > 40 {
		t.Errorf("%d logs are kept", n)
	}
}
