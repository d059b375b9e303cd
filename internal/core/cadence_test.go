package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

// TestCadenceTriesAgain: a source that is empty when its cadence comes is tried again until the first window of a site opens,
// without an incident. After that it is one, which ends when the source is published.
func TestCadenceTriesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	w.publish("package")
	now := time.Now().UTC()
	f := w.apart()
	f.Channels = append([]fleet.Channel{}, f.Channels...)
	at := slices.IndexFunc(f.Channels, func(c fleet.Channel) bool { return c.Name == "package" })
	f.Channels[at].Cadence = fmt.Sprintf("%d * * * * UTC", now.Add(3*time.Minute).Minute())
	for i := range f.Sites {
		f.Sites[i].Zone, f.Sites[i].Location = "UTC", time.UTC
		for j := range f.Sites[i].Placements {
			f.Sites[i].Placements[j].Windows = now.Add(10*time.Hour).Format("15:04") + "-" + now.Add(11*time.Hour).Format("15:04")
		}
	}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.until("the cadence to be known", func() bool { return w.remembers("package") })
	ended := func() (list []ledger.Run) {
		all, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Core: true, Channel: "package"})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all, func(r ledger.Run) bool { return r.Trigger != "publish" || r.Finished.IsZero() })
	}
	w.until("the record of the publish", func() bool { return len(ended()) == 1 })
	w.remove("a.inf")
	later := func(ok func() bool) func() bool { // a minute passes at each look, and no window opens
		return func() bool {
			if time.Duration(w.ahead.Load()) < 9*time.Hour {
				w.ahead.Add(int64(time.Minute))
			}
			return ok()
		}
	}
	w.until("two tries", later(func() bool { return len(ended()) >= 3 }))
	if got := w.texts(string(kinds.Publishes)); len(got) != 0 {
		t.Errorf("before the window: %q", got)
	}
	w.ahead.Store(int64(10*time.Hour + 2*time.Minute))
	w.until("the incident", func() bool { // a try that began before the window opens none: the next one does
		w.ahead.Add(int64(time.Minute))
		return w.has(string(kinds.Publishes))
	})
	w.write("a.inf", "two")
	w.until("the end of the incident", func() bool {
		w.ahead.Add(int64(time.Minute))
		return len(w.texts(string(kinds.Publishes))) == 0
	})
	w.until("release 2", func() bool { list := ended(); return list[0].Number == 2 && list[0].State == "published" })
}

// TestOldNonceIsAProof: a site that was ordered to start a hundred times since answers with the nonce of the first state. The
// Core derives nonces and forgets none, so the attestation is no forgery.
func TestOldNonceIsAProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	for range 100 {
		if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka"}}); err != nil {
			t.Fatal(err)
		}
	}
	_, events := osaka.converge(d)
	osaka.deliver(events)
	osaka.hello()
	w.until("osaka to be current", func() bool { return w.channel("osaka", "package").State == "current" })
	if got := w.texts(string(kinds.BadProof)); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
