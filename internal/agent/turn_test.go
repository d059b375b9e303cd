package agent

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/policy"
	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// resting is an agent that nothing was started of, with a state of its own.
func resting(t *testing.T, path string, now func() time.Time, s *wire.State) *agent {
	t.Helper()
	sp, err := spool.Open(t.Context(), path, spool.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sp.Close() }) // it may be closed already
	o := Options{Now: now, StateDir: filepath.Dir(path)}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	a := newAgent(o, &Identity{Domain: "emea", Site: "lyon-1", Store: "http://127.0.0.1:1"}, nil, sp)
	if a.turns.since, err = sp.Waiting(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.state, a.night, a.revision = s, readNight(s), 1
	return a
}

// turns names the channels of an agent in the order in which they would start.
func startingTurns(a *agent, now time.Time) string {
	var due []dueChannel
	for _, d := range a.state.Desired {
		due = append(due, dueChannel{Desired: d})
	}
	var names []string
	for m := a.planMoment(a.night, due, 0, now); len(m.Waiting) > 0; {
		m.Running = schedule.MaxRuns - 1
		_, starts, _ := schedule.Next(m)
		names = append(names, m.Waiting[starts[0]].Channel)
		m.Waiting = slices.Delete(m.Waiting, starts[0], starts[0]+1)
	}
	return strings.Join(names, " ")
}

// TestPatienceSurvives: a channel that waits for its turn waits on through new
// releases and restarts.
func TestPatienceSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	begin := time.Date(2026, 3, 2, 22, 0, 0, 0, time.UTC)
	for day := range 30 {
		now := begin.AddDate(0, 0, day)
		a := resting(t, path, func() time.Time { return now }, &wire.State{Desired: []wire.Desired{
			{Channel: "image", Number: trust.ReleaseNumber(day + 1), Release: trust.ReleaseDigest(digest.Of([]byte{byte(day)})), Bytes: 1 << 40},
			{Channel: "patch", Number: trust.ReleaseNumber(day + 1), Release: trust.ReleaseDigest(digest.Of([]byte{byte(day), 1})), Bytes: 1, Policy: policy.Policy{Priority: 1}},
		}})
		if err := a.turns.recordWaiting(t.Context(), a.spool, a.state, nil, now); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(startingTurns(a, now), " ")
		if first == "image" {
			if day < 3 {
				t.Errorf("the image goes first on day %d already", day)
			}
			return
		}
		a.turns.takeTurn(first, now) // it has its turn
		if err := a.turns.recordWaiting(t.Context(), a.spool, a.state, nil, now); err != nil {
			t.Fatal(err)
		}
		if err := a.spool.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the image has no turn in 30 nights")
}

// TestNoStartBeforeClocks: nothing starts after a restart until a clock was
// compared with the Core's or the store's.
func TestNoStartBeforeClocks(t *testing.T) {
	now := time.Now()
	a := resting(t, filepath.Join(t.TempDir(), "agent.db"), func() time.Time { return now }, &wire.State{Desired: []wire.Desired{
		{Channel: "package", Number: 1, Release: trust.ReleaseDigest(digest.Of([]byte("r"))), Target: filepath.Join(t.TempDir(), "elsewhere")}}})
	var g errgroup.Group
	start := func() {
		t.Helper()
		if _, err := a.startDue(t.Context(), &g); err != nil {
			t.Fatal(err)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	start()
	if a.refused["package"] != "" || len(a.waits) != 1 || a.waits[0].Why != wire.WhyClock {
		t.Fatalf("a run was tried: %q; waits %+v", a.refused, a.waits)
	}
	a.coreClock.set(now.Add(3*time.Hour), now)
	start()
	if a.refused["package"] != "" || a.waits[0].Why != wire.WhyClock {
		t.Fatalf("a run was tried with a wrong clock: %q; waits %+v", a.refused, a.waits)
	}
	a.coreClock.set(now, now)
	start()
	if a.refused["package"] == "" {
		t.Fatal("no run was tried, with clocks that agree")
	}
	start()
	if len(a.waits) != 1 || a.waits[0].Why != wire.WhyRefused || a.waits[0].Text == "" {
		t.Errorf("waits %+v", a.waits)
	}
}
