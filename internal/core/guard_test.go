package core

import (
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/incident"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/wire"
)

// TestProgressAfterReload: progress that is handled while a reload removes its
// site changes nothing.
func TestProgressAfterReload(t *testing.T) {
	c := newCore(Options{Now: time.Now})
	c.settings.Store(&Settings{Fleet: &fleet.Fleet{}})
	x := &site{progress: map[string]query.Progress{}}
	c.handleProgress(wire.Address{Domain: "corp", Site: "gone"}, x, &wire.Progress{Run: make([]byte, 16), Channel: "package"})
	if len(x.progress) > 0 {
		t.Error("a site that is not configured makes progress")
	}
}

// TestStalledEnds: late progress of an ended run is no movement, and an ended run is not stalled.
func TestStalledEnds(t *testing.T) {
	now := time.Now()
	s := sites{now: func() time.Time { return now }, beat: time.Hour, started: now.Add(-time.Minute)}
	a := wire.Address{Domain: "apac", Site: "osaka"}
	x := s.siteOf(a)
	x.spoke, x.seen = true, now
	si := sightings{o: &Options{Now: s.now}, fleet: &s, notices: &notices{incidents: incident.New(incident.Options{Now: s.now})}}
	run := ledger.Run{ID: ledger.RunID{7}, Domain: "apac", Site: "osaka", Channel: "package"}
	si.noteMovement(a, x, "package", run.ID)
	now = now.Add(20 * time.Minute)
	if list := s.stalled(x); len(list) != 1 || list["package"].Run != run.ID {
		t.Fatalf("%+v", list)
	}
	si.notices.endMovement(x, &run)
	si.noteMovement(a, x, "package", run.ID)
	now = now.Add(20 * time.Minute)
	if list := s.stalled(x); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}
