package core_test

import (
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
)

// TestRehearsal: a Core and its sites follow the calendar of another night, in
// fast motion, through a restart; what guards something keeps the real time,
// and neither a fleet at work can be rehearsed with nor a rehearsal be put to
// work.
func TestRehearsal(t *testing.T) {
	begin := time.Date(2035, 3, 25, 0, 30, 0, 0, time.UTC) // Berlin's clocks change in that night
	opens, closes := begin.Add(30*time.Minute), begin.Add(4*time.Hour+30*time.Minute)
	w := newWorldWith(t, nil, func(w *world) {
		f := *w.settings.Fleet
		f.Sites = append([]fleet.Site{}, f.Sites...)
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Sites {
			s := &f.Sites[i]
			s.Zone, s.Location = "Europe/Berlin", berlin
			s.Placements = append([]fleet.Placement{}, s.Placements...)
			for k := range s.Placements {
				s.Placements[k].Windows = "02:15-07:00" // from 01:00 UTC on, since 02:15 is skipped
			}
		}
		w.settings.Fleet = &f
		w.options.Rehearse = begin.Format(time.RFC3339) + "@600"
	})
	w.write("a.inf", "one")
	w.publish("package")
	stop := w.runAgent("osaka", true) // its token and its credential are the real time's
	var run ledger.Run
	w.until("the run of that night", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", State: "verified"})
		if err != nil {
			t.Fatal(err)
		}
		if len(runs) > 0 {
			run = runs[0]
		}
		return len(runs) > 0
	})
	if run.Started.Before(opens) || !run.Started.Before(closes) {
		t.Errorf("the run started at %s, the window is %s to %s", run.Started, opens, closes)
	}
	h := w.channel("osaka", "package")
	if h.State != "current" || h.Verified.Before(opens.Add(-10*time.Minute)) { // a statement's time has whole seconds, of ten minutes each
		t.Errorf("osaka is %s, verified %s", h.State, h.Verified)
	}
	p, err := w.core.Query.Plan(t.Context(), query.PlanRequest{})
	if err != nil || p.From.Before(begin) || p.From.Year() != 2035 {
		t.Errorf("the plan begins at %v, %v", p.From, err)
	}
	before := w.core.Rehearsal()
	w.restart()
	after := w.core.Rehearsal()
	if before == nil || after == nil || after.Time.Before(before.Time) || after.Time.Sub(before.Time) > 600*patience || after.Speed != 600 {
		t.Errorf("a restart leads from %+v to %+v", before, after)
	}
	stop()
	w.stop()
	for spec, want := range map[string]string{"": "go on with --rehearse " + w.options.Rehearse, begin.Format(time.RFC3339) + "@60": "records do not go back", "tonight@60": "want START@SPEED"} {
		o := w.options
		o.Rehearse = spec
		if _, err := core.Open(t.Context(), o, w.settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with --rehearse %q: %v, want %q", spec, err, want)
		}
	}

	atWork := newWorld(t, nil)
	atWork.runAgent("osaka", true)()
	atWork.stop()
	o := atWork.options
	o.Rehearse = "now@60"
	if _, err := core.Open(t.Context(), o, atWork.settings); err == nil || !strings.Contains(err.Error(), "sites that are at work") {
		t.Errorf("a fleet at work is rehearsed with: %v", err)
	}
}
