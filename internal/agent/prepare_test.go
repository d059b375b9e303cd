package agent

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/policy"
	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// TestSmallestNeedFirst: what counts is what a channel has still to fetch, where
// that is known, and not how large its release is.
func TestSmallestNeedFirst(t *testing.T) {
	s := &wire.State{Desired: []wire.Desired{
		{Channel: "driver", Number: 1, Bytes: 200},
		{Channel: "image", Number: 7, Bytes: 40_000},
		{Channel: "package", Number: 3, Bytes: 2_000},
		{Channel: "patch", Number: 2, Bytes: 9_000, Policy: policy.Policy{Priority: 1}},
	}}
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	a := resting(t, filepath.Join(t.TempDir(), "agent.db"), func() time.Time { return now }, s)
	if got := startingTurns(a, now); got != "patch driver package image" {
		t.Errorf("%s", got)
	}
	a.preparing.setNeeded(&s.Desired[1], 150) // most of it is here already
	if got := startingTurns(a, now); got != "patch image driver package" {
		t.Errorf("with most of the image here: %s", got)
	}
	s.Desired[1].Number = 8
	if got := startingTurns(a, now); got != "patch driver package image" {
		t.Errorf("what was known of another release counts: %s", got)
	}
	// A channel that has waited for days goes before what is new and more
	// important, but not if it holds its release, and is only checked again.
	a.turns.since["image"] = now.Add(-schedule.Patience - time.Second)
	if got := startingTurns(a, now); got != "image patch driver package" {
		t.Errorf("after days: %s", got)
	}
	d := &s.Desired[1]
	if err := a.turns.recordWaiting(t.Context(), a.spool, s, []spool.Held{{Held: wire.Held{Channel: d.Channel, Number: d.Number, Release: d.Release}, Target: d.Target}}, now); err != nil {
		t.Fatal(err)
	}
	if got := startingTurns(a, now); got != "patch driver package image" {
		t.Errorf("with the image here: %s", got)
	}
}

// TestMayAsk: the plan of a release may be read where a timetable says 0, which
// is about content, and not where an operator does.
func TestMayAsk(t *testing.T) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		state wire.State
		want  bool
	}{
		{wire.State{}, true},
		{wire.State{Rates: "06:00-20:00 0; else unlimited"}, true},
		{wire.State{Limit: "else 0"}, false},
		{wire.State{Limit: "06:00-20:00 0; else unlimited"}, false},
		{wire.State{Limit: "else 0", LimitUntil: noon.Unix() - 1}, true},
		{wire.State{Limit: "else 0", LimitUntil: noon.Unix() + 1}, false},
		{wire.State{Zone: "Nowhere/Land"}, false},
	} {
		if got := readNight(&c.state).mayAsk(noon); got != c.want {
			t.Errorf("%+v: %v", c.state, got)
		}
	}
}

// TestAbsentCountsForAWeek: with the Core away, its word that there is no newer
// trust document counts for a week, and not once there is one.
func TestAbsentCountsForAWeek(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	asks := make(chan wire.Ask, 16)
	u := newURLs(func(q wire.Ask) error { asks <- q; return nil }, func() time.Time { return now }, time.Millisecond)
	const key = "trust/2"
	refuse := func() {
		go func() { // the Core, once
			q := <-asks
			u.Answer(&wire.URLs{ID: q.ID, Until: now.Add(time.Hour).Unix(), Lent: []wire.URL{{Key: haltKey, URL: "https://store/halt"}}, Refused: []wire.Refused{{Key: key, Absent: true}}})
		}()
	}
	refuse()
	lent, err := u.keepPresigned(t.Context(), []string{key, haltKey}, now.Add(time.Hour))
	if err != nil || len(lent) != 2 || lent[0] != (spool.Presigned{Key: key, Until: now.Add(7 * 24 * time.Hour).Unix()}) || lent[1].Until != now.Add(time.Hour).Unix() {
		t.Fatalf("%+v, %v", lent, err)
	}
	later := newURLs(func(wire.Ask) error { return nil }, func() time.Time { return now }, time.Millisecond)
	later.restoreKept(lent, "trust/3") // a newer document was seen since
	if later.knownAbsent(key) {
		t.Error("a document is absent that was seen")
	}
	if !later.HasHaltURL() {
		t.Error("after a restart content could move that no order in the store would stop")
	}
	later.restoreKept(lent, key)
	now = now.Add(7*24*time.Hour - time.Second)
	if _, err := later.Lend(t.Context(), key, ""); !strings.Contains(err.Error(), "no such object") {
		t.Error(err)
	}
	now = now.Add(time.Second)
	if later.knownAbsent(key) {
		t.Error("it counts for longer than a week")
	}
	later.restoreKept([]spool.Presigned{{Key: key, Until: now.Add(time.Hour).Unix()}}, key)
	later.forgetAbsent()
	if later.knownAbsent(key) {
		t.Error("it counts although there is a newer document")
	}
}
