//go:build unix

package core_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestPain15_PowerCutAtTheCore: a Core, a process of its own, goes down again and
// again while a site reports. What it had acknowledged is there afterwards, once,
// also when the end of its write-ahead log, which no acknowledgement stands for,
// was lost or torn: that is what a power cut does beyond SIGKILL.
func TestPain15_PowerCutAtTheCore(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "x")
	w.publish("package")
	w.untilMeasured("package", 1)
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	w.stop()
	wal := filepath.Join(w.options.Data, "ledger.db-wal")
	size := func() int64 {
		st, err := os.Stat(wal)
		if errors.Is(err, fs.ErrNotExist) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	rng := mrand.New(mrand.NewPCG(20261122, 15))
	acked := map[string]bool{}
	var pending []wire.Event // said, and not acknowledged before the cut
	var last string
	torn := 0
	for range 8 {
		kill := w.startChild(w.child())
		osaka.back()
		if pending != nil { // the site says it again, not knowing
			osaka.deliver(pending)
			acked[last], pending = true, nil
		}
		kept := size()
		cut := make(chan struct{})
		time.AfterFunc(time.Duration(10+rng.IntN(150))*time.Millisecond, func() { kill(); close(cut) })
		for pending == nil {
			var run ledger.RunID
			rand.Read(run[:])
			last = run.String()
			events := osaka.events(run, d, []wire.File{{Outcome: runs.FileChanged}}, &wire.Finished{Verdict: "stopped", Error: "test", Totals: runs.Totals{Counts: runs.Counts{Changed: 1}}}, nil)
			if osaka.acknowledged(events, cut) {
				acked[last] = true
				kept = size()
			} else {
				pending = events
			}
		}
		<-cut
		// Of what was written since, the disk may have any part.
		if end := size(); end > kept {
			torn++
			if err := os.Truncate(wal, kept+rng.Int64N(end-kept)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.start()
	osaka.back()
	osaka.deliver(pending)
	acked[last] = true
	w.untilRendered()
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs were acknowledged; %d of 8 cuts lost something that was not", len(acked), torn)
	if len(runs) != len(acked) || len(acked) < 8 {
		t.Errorf("%d runs are in the ledger, %d were acknowledged", len(runs), len(acked))
	}
	for _, r := range runs {
		if !acked[r.ID.String()] || r.State != "stopped" || r.Totals.Changed != 1 || r.Late != 0 {
			t.Errorf("%+v", r)
		}
		delete(acked, r.ID.String())
	}
	for id := range acked {
		t.Errorf("run %s was acknowledged, and is gone", id)
	}
}

// acknowledged reports events and tells whether the Core acknowledged them before
// it was cut off.
func (s *wireSite) acknowledged(events []wire.Event, cut <-chan struct{}) bool {
	s.w.t.Helper()
	want := s.next + uint64(len(events)) - 1
	b, err := wire.Sign(s.key, s.token.Repo, s.at, wire.VerbReport, 0, &wire.Report{Generation: s.generation, First: s.next, Events: events})
	if err != nil {
		s.w.t.Fatal(err)
	}
	_ = s.client.Publish(s.at.Up(wire.VerbReport), b) // it may be cut off already
	for {
		select {
		case h := <-s.in:
			if h.verb != wire.VerbAck {
				continue
			}
			var a wire.Ack
			m, _, err := s.chain.OpenDown(h.data, s.at, h.verb, &a)
			if err != nil {
				s.w.t.Fatal(err)
			}
			if m.Number == want {
				s.next = want + 1
				return true
			}
		case <-cut:
			return false
		case <-time.After(patience):
			s.w.t.Fatal("no acknowledgement")
		}
	}
}
