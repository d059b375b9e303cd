package core_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/wire"
)

// TestTroubleInside: what fails inside the Core is told to people, by name, and is
// over when it was quiet for a day; a Core that works has nothing of it open, also
// after a restart.
func TestTroubleInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	w.publish("package")
	w.untilMeasured("package", 1)
	w.restart()
	w.until("the bucket's check", func() bool {
		_, err := os.Stat(filepath.Join(w.options.Data, "state", "bucket.json"))
		return err == nil
	})
	list, err := w.core.Query.Incidents(t.Context(), true)
	if err != nil || len(list) > 0 {
		t.Fatalf("nothing has failed: %+v, %v", list, err)
	}
	// The Core's record of its cadences cannot be read.
	w.stop()
	memory := filepath.Join(w.options.Data, "state", "cadence.json")
	if err := errors.Join(os.RemoveAll(memory), os.MkdirAll(filepath.Join(memory, "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	f := *w.settings.Fleet
	f.Channels = append(f.Channels[:1:1], f.Channels[1:]...)
	f.Channels[1].Cadence = "0 0 1 1 * UTC"
	w.settings.Fleet = &f
	w.start()
	// The folder is set aside at the next write, so the incident may be over at once.
	w.until("an incident about cadence.json that is over", func() bool {
		all, err := w.core.Query.Incidents(t.Context(), true)
		return err == nil && slices.ContainsFunc(all, func(i query.Incident) bool {
			return i.Kind == string(kinds.Inside) && strings.Contains(i.Text, "cadence.json") && !i.Resolved.IsZero()
		})
	})
}

// TestLedgerFails: a ledger that fails, and is not full, is an incident until it
// works again.
func TestLedgerFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	w.core.LedgerFailed(errors.New("disk I/O error"))
	if text := w.untilIncident(string(kinds.Ledger)); !strings.Contains(text, "disk I/O error") {
		t.Errorf("%q", text)
	}
	w.publish("package")
	w.untilOver(string(kinds.Ledger))
	w.core.LedgerFailed(errors.Join(ledger.ErrFull, errors.New("again")))
	w.until("a full ledger", func() bool { return w.said(string(kinds.Full)) }) // which may be over by now: the publish is still being measured
	if w.has(string(kinds.Ledger)) {
		t.Error("a full disk is another incident")
	}
}

// TestCountsAreTheReleases: a site that attests the right tree and other counts is
// not believed.
func TestCountsAreTheReleases(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.inf", "one")
	osaka := w.join("osaka")
	p := w.publish("package")
	d := osaka.stateOf("package", 1)
	for i, at := range []wire.Attestation{{Files: 2, Bytes: 3}, {Files: 1, Bytes: 4}} {
		at.Channel, at.Nonce, at.Release, at.Tree, at.At = "package", d.Nonce, d.Release, p.Tree, time.Now().Unix()
		osaka.deliver(osaka.events(ledger.RunID{byte(i + 1)}, d, nil, &wire.Finished{Verdict: "verified"}, &at))
		if r := w.lastRun("osaka"); r.State != "failed" || !strings.Contains(r.Cause, "it counts") {
			t.Errorf("%+v", r)
		}
	}
	w.untilIncident(string(kinds.BadProof))
	if ch := w.channel("osaka", "package"); ch.Holds != 0 {
		t.Errorf("%+v", ch)
	}
}
