package reports

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/incident"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

var osaka = wire.Address{Domain: "apac", Site: "osaka"}

// desk is a Service over a real ledger.
type desk struct {
	*Service
	t         *testing.T
	ledger    *ledger.Ledger
	incidents *incident.Service
	refused   []string
	failed    []error
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) }
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &desk{t: t, ledger: l, incidents: incident.New(incident.Options{Records: &l.Incidents, Now: now, OnChange: func(incident.Change) {}})}
	f := &fleet.Fleet{Sites: []fleet.Site{{Name: "osaka", Domain: "apac", Placements: []fleet.Placement{{Channel: "package", Target: "/srv/x"}}}}}
	d.Service = New(Options{
		Ledger: l, Published: l, Measured: &l.Measurements, Incidents: d.incidents, Notices: d, Releases: releases.New(nil, func() *repo.Repo { return nil }),
		Now: now, Wall: now, Calendar: func(t time.Time) time.Time { return t }, Fleet: func() *fleet.Fleet { return f },
		Repo: func() trust.RepoID { return trust.RepoID{} }, GaveNonce: func(wire.Address, string, trust.ReleaseNumber, []byte) bool { return false }, Contested: func(wire.Address) bool { return false },
		PanicSite: func() string { return "" },
	})
	return d
}

func (d *desk) ReportFailure(_ string, err error) { d.failed = append(d.failed, err) }

func (d *desk) LedgerFailed(err error) { d.failed = append(d.failed, err) }

func (d *desk) LedgerWorks() {}

func (d *desk) RefusedAttestation(_ context.Context, _ wire.Address, why string) {
	d.refused = append(d.refused, why)
}

func (d *desk) event(run byte, kind wire.EventKind, body any) wire.Event {
	d.t.Helper()
	b, err := wire.Encode(body)
	if err != nil {
		d.t.Fatal(err)
	}
	id := ledger.RunID{run}
	return wire.Event{Run: id[:], Channel: "package", At: time.Date(2026, 3, 2, 11, 0, 0, 0, time.UTC).UnixMilli(), Kind: kind, Body: b}
}

func (d *desk) commit(first uint64, events ...wire.Event) Effects {
	d.t.Helper()
	return d.Commit(d.t.Context(), osaka, trust.Public{}, &wire.Report{Generation: make([]byte, 16), First: first, Events: events})
}

// TestEffects: a batch starts and ends runs once. Committed again, it is
// acknowledged again and has no effects.
func TestEffects(t *testing.T) {
	d := newDesk(t)
	batch := []wire.Event{d.event(1, wire.StartedEvent, &wire.Started{Number: 1}), d.event(1, wire.FinishedEvent, &wire.Finished{Verdict: runs.Failed, Error: "disk full"})}
	e := d.commit(1, batch...)
	if e.Ack == nil || e.Number != 2 || len(e.Started) != 1 || e.Started[0] != (Started{ledger.RunID{1}, "package"}) || len(e.Ended) != 1 || e.Ended[0].State != runs.Failed || e.Ended[0].Cause != "disk full" {
		t.Fatalf("%+v", e)
	}
	if e = d.commit(1, batch...); e.Ack == nil || e.Number != 2 || len(e.Started)+len(e.Ended) != 0 {
		t.Errorf("again: %+v", e)
	}
	outcomes, err := wire.EncodeOutcomes([]wire.File{{Outcome: runs.FileLocked, Path: "a", Cause: `probe "a": locked by another process`},
		{Outcome: runs.FileFailed, Path: "b", Cause: `probe "b": marked immutable or append-only: operation not permitted`}, {Outcome: runs.FileFailed, Path: "c", Cause: `open "c": permission denied`}})
	if err != nil {
		t.Fatal(err)
	}
	files := d.event(2, wire.OutcomesEvent, nil)
	files.Body = outcomes
	d.commit(3, d.event(2, wire.StartedEvent, &wire.Started{Number: 1}), files)
	e = d.commit(5, d.event(2, wire.FinishedEvent, &wire.Finished{Verdict: runs.Incomplete, Totals: runs.Totals{Counts: runs.Counts{Locked: 1, Failed: 2}}}))
	if !slices.Equal(e.Opened, []string{"run/package"}) {
		t.Errorf("two runs in a row failed, opened %q", e.Opened)
	}
	list, err := d.ledger.Incidents.List(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	remedy := kinds.Remedy(kinds.RunFails, list[0].Text)
	for text, parts := range map[string][]string{list[0].Text: {`2 files failed in "/srv/x": b (probe "b": marked immutable`, `; c (open "c": permission denied)`, `1 file is locked by another program in "/srv/x": a (`},
		remedy: {"chattr -i -a", "setfacl", "which program holds"}} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q lacks %q", text, part)
			}
		}
	}
	if c := d.Counts(); c.Commits != 4 || c.Events != 5 || len(d.failed) > 0 {
		t.Errorf("%+v, %v", c, d.failed)
	}
}

// TestVerifiedNeedsProof: a run that a site calls verified without a valid
// attestation has failed, and opens an incident.
func TestVerifiedNeedsProof(t *testing.T) {
	d := newDesk(t)
	for n, proof := range [][]byte{nil, []byte("forged")} {
		run := byte(n + 1)
		e := d.commit(uint64(2*n+1), d.event(run, wire.StartedEvent, &wire.Started{Number: 1}), d.event(run, wire.FinishedEvent, &wire.Finished{Verdict: runs.Verified, Attestation: proof}))
		if len(e.Ended) != 1 || e.Ended[0].State != runs.Failed {
			t.Errorf("proof %q: %+v", proof, e.Ended)
		}
	}
	if len(d.refused) != 1 || !d.incidents.Has("attestation", "package", osaka) {
		t.Errorf("refused %q", d.refused)
	}
}

// TestGap: the Core asks for missing events, and gives up on them when the site
// reports the same gap for the third time.
func TestGap(t *testing.T) {
	d := newDesk(t)
	started := func(n byte) wire.Event { return d.event(n, wire.StartedEvent, &wire.Started{Number: 1}) }
	d.commit(1, started(1))
	for range gapsBeforeSkip - 1 {
		if e := d.commit(5, started(2)); e.Ack == nil || e.Ack.Want != 2 || e.Number != 1 {
			t.Fatalf("%+v", e)
		}
	}
	if e := d.commit(5, started(2)); e.Ack != nil || !d.incidents.Has("lost-events", "", osaka) {
		t.Fatalf("the third time: %+v", e)
	}
	if e := d.commit(5, started(2)); e.Ack == nil || e.Number != 5 || len(d.gaps) != 0 {
		t.Errorf("after it: %+v, %v", e, d.gaps)
	}
}

// TestInvalidReports: a report that names no sequence is refused as a whole; an
// event that does not parse opens an incident, and the queue continues.
func TestInvalidReports(t *testing.T) {
	d := newDesk(t)
	if e := d.commit(0); e.Refused == "" || e.Ack != nil {
		t.Errorf("%+v", e)
	}
	if e := d.commit(1, wire.Event{Kind: 99, Body: []byte{0xff}}, d.event(1, wire.StartedEvent, &wire.Started{Number: 1})); e.Number != 2 || len(e.Started) != 1 {
		t.Errorf("%+v", e)
	}
	if !d.incidents.Has("malformed", "", osaka) {
		t.Error("no incident")
	}
}
