package core_test

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

const (
	ageingDay = 24 * time.Hour
	// ageingKeep is how many releases the channel retains.
	ageingKeep = 2
)

// ageing is a fleet over 400 days. Its turns are two days long: a purge advances by two days at most.
type ageing struct {
	*world
	sites  map[string]*wireSite
	rel    *core.Published                // the newest release of package
	held   map[string]trust.ReleaseNumber // by site: its last report
	silent map[string]time.Duration       // since when sites send nothing
	behind map[string]bool                // sites that are connected and keep their release
	states map[string]string              // state folders of the real agents, by site
	report usage                          // after the first 50 days
}

// TestFleetThatAges simulates 400 days: sites join, are cloned, replaced, renamed, silent, revoked and removed; a
// channel goes; a clock jumps by a year twice; the Core restarts often, in the middle of a report; real agents work
// for part of the time; gc runs. Afterwards no incident and no run is open, gc has freed all that no site holds, and
// tables, ledger file, bucket, memory and goroutines are as large as after 50 days.
func TestFleetThatAges(t *testing.T) {
	a := newAgeing(t)
	turns, restart := 200, 3
	if testbed.Soak() {
		turns, restart = 800, 1
	}
	for n := range turns {
		a.ahead.Add(int64(2 * ageingDay))
		a.change(n)
		if n%8 == 5 {
			a.write("a.txt", fmt.Sprint(n))
			a.rel = a.publish("package")
		}
		if n%restart == 0 {
			a.restartAmidReport()
		}
		for name := range a.sites {
			a.night(name)
		}
		a.runAgents()
		a.upkeep()
		if n%5 == 4 {
			a.collect()
		}
		switch n {
		case 24:
			a.report = a.measure()
		case 99, turns - 1:
			a.checkUsage(n)
		}
	}
	a.checkNothingOpen()
}

func newAgeing(t *testing.T) *ageing {
	a := &ageing{held: map[string]trust.ReleaseNumber{}, silent: map[string]time.Duration{}, behind: map[string]bool{}, states: map[string]string{}}
	a.world = newWorldWith(t, nil, func(w *world) {
		w.settings.Retention = ledger.Retention{Logs: 6 * ageingDay, Runs: 30 * ageingDay}
		for i := range w.settings.Fleet.Channels {
			w.settings.Fleet.Channels[i].Keep = ageingKeep
		}
		b, _ := s3test.Through(t, w.bucket, w.aheadToSites)
		w.options.StoreURL = b.URL("")
	})
	a.write("a.txt", "0")
	a.write("../source-driver/d.sys", "0")
	a.sites = map[string]*wireSite{"osaka": a.join("osaka"), "tokyo": a.join("tokyo"), "berlin": a.join("berlin")}
	a.rel = a.publish("package")
	a.publish("driver")
	return a
}

// change makes the changes of one turn.
func (a *ageing) change(n int) {
	a.t.Helper()
	ctx := a.t.Context()
	switch n {
	case 10: // berlin has problems, starts a run, and is scrapped
		a.sites["berlin"].deliver([]wire.Event{problem(a.t, "disk", "package", false), problem(a.t, "clock", "", false)})
		a.sites["berlin"].deliver(a.eventsOf("berlin")[:1])
		a.leave("berlin")
		a.remove("../source-driver/d.sys")
		a.remove("../source-driver")
	case 20: // and is removed with its channel, whose publish fails until then
		if _, err := a.core.Publisher.Publish(ctx, "driver", core.PublishOptions{}); err == nil {
			a.t.Fatal("a missing source was published")
		}
		a.reload(func(f *fleet.Fleet) { f.Sites, f.Channels = f.Sites[1:], f.Channels[1:] })
	case 40: // tokyo is replaced in the middle of a run
		a.sites["tokyo"].deliver(a.eventsOf("tokyo")[:1])
		a.sites["tokyo"].client.Close()
		a.sites["tokyo"] = a.join("tokyo")
		a.sites["tokyo"].generation[0]++ // of its own database
	case 50: // osaka is cloned, and enrolled again
		clone := a.sites["osaka"].clone()
		clone.hello()
		a.sites["osaka"].back()
		a.sites["osaka"].hello()
		a.untilIncident("cloned")
		clone.client.Close()
		a.sites["osaka"].client.Close()
		a.sites["osaka"] = a.join("osaka")
	case 60, 80: // the Core's clock is wrong for one round
		jump := 365 * ageingDay
		if n == 80 {
			jump = -jump
		}
		a.wrong.Store(int64(jump))
		a.core.UpkeepNow(ctx)
		a.wrong.Store(0)
	case 90: // tokyo is renamed
		a.leave("tokyo")
		a.reload(func(f *fleet.Fleet) { f.Sites[1].Name = "kyoto"; sortSites(f) })
		a.sites["kyoto"] = a.join("kyoto")
	case 100, 112: // osaka keeps its release
		a.behind["osaka"] = n == 100
	case 120: // two sites join, with real agents
		a.addAgents("kobe", "nara")
	case 132: // and leave
		a.removeAgents()
	case 140: // osaka is silent for 60 days
		a.silent["osaka"] = time.Duration(a.ahead.Load()) - 2*ageingDay
	case 170:
		delete(a.silent, "osaka")
	}
}

// eventsOf returns the report of one run of a site that verified the newest release.
func (a *ageing) eventsOf(name string) []wire.Event {
	a.t.Helper()
	s := a.sites[name]
	var run ledger.RunID
	_, _ = rand.Read(run[:]) // never fails
	d := s.stateOf("package", a.rel.Number)
	now := a.right().Unix()
	at := &wire.Attestation{Channel: d.Channel, Nonce: d.Nonce, Release: a.rel.Digest, Tree: a.rel.Tree, Files: a.rel.Files, Bytes: a.rel.Bytes, At: now, OldestRead: now}
	return s.events(run, d, nil, &wire.Finished{Verdict: "verified", Totals: runs.Totals{Files: a.rel.Files, Bytes: a.rel.Bytes}}, at)
}

// night is a site's part of one turn.
func (a *ageing) night(name string) {
	a.t.Helper()
	s := a.sites[name]
	if _, silent := a.silent[name]; silent {
		return
	}
	if a.behind[name] {
		s.hello()
		return
	}
	s.deliver(a.eventsOf(name))
	s.settled()
	a.held[name] = a.rel.Number
}

// restartAmidReport restarts the Core while the report of a site is under way. The site sends it again.
func (a *ageing) restartAmidReport() {
	a.t.Helper()
	var events []wire.Event
	var s *wireSite
	for _, name := range []string{"tokyo", "kyoto"} {
		if s = a.sites[name]; s != nil {
			events = a.eventsOf(name)
			s.say(wire.VerbReport, 0, &wire.Report{Generation: s.generation, First: s.next, Events: events})
			a.held[name] = a.rel.Number
			break
		}
	}
	a.restart()
	for _, s := range a.sites {
		s.back()
	}
	s.deliver(events)
}

// leave revokes a site for good.
func (a *ageing) leave(name string) {
	a.t.Helper()
	if err := a.core.Enrolment.RevokeSite(a.t.Context(), name, "scrapped"); err != nil {
		a.t.Fatal(err)
	}
	if s := a.sites[name]; s != nil {
		s.client.Close()
	}
	delete(a.sites, name)
	delete(a.held, name)
}

// reload changes the configuration.
func (a *ageing) reload(change func(*fleet.Fleet)) {
	a.t.Helper()
	f := a.apart()
	f.Channels = slices.Clone(f.Channels)
	change(f)
	if err := a.core.Reload(a.t.Context(), a.settings); err != nil {
		a.t.Fatal(err)
	}
}

func sortSites(f *fleet.Fleet) {
	slices.SortFunc(f.Sites, func(x, y fleet.Site) int { return cmp.Compare(x.Name, y.Name) })
}

// addAgents adds sites to the configuration, and enrols their agents.
func (a *ageing) addAgents(names ...string) {
	a.t.Helper()
	a.reload(func(f *fleet.Fleet) {
		for _, n := range names {
			s := f.Sites[0]
			s.Name, s.Placements = n, []fleet.Placement{{Channel: "package", Target: filepath.ToSlash(a.folder(n, "package"))}}
			f.Sites = append(f.Sites, s)
		}
		sortSites(f)
	})
	for _, n := range names {
		state, err := a.enter(n, func(o *agent.EnrolOptions) { o.Now = a.right })
		if err != nil {
			a.t.Fatal(err)
		}
		a.states[n] = state
	}
}

// runAgents runs the real agents until they have proven the newest release. None runs while the clock moves: a message
// under way would seem to be of a wrong clock.
func (a *ageing) runAgents() {
	a.t.Helper()
	var stops []func()
	for _, state := range a.states {
		stops = append(stops, a.agent(state, func(o *agent.Options) { o.Now = a.right }))
	}
	for n := range a.states {
		a.untilCurrent(a.rel.Number, n)
		a.untilSame(a.folder(n, "package"))
		a.held[n] = a.rel.Number
	}
	for _, stop := range stops {
		stop()
	}
}

// removeAgents removes the sites with real agents.
func (a *ageing) removeAgents() {
	a.t.Helper()
	a.reload(func(f *fleet.Fleet) {
		f.Sites = slices.DeleteFunc(f.Sites, func(s fleet.Site) bool { return a.states[s.Name] != "" })
	})
	for n := range a.states {
		a.leave(n)
	}
	clear(a.states)
}

// checkNothingOpen demands that no incident and no run is open, and that records are gone with their retention.
func (a *ageing) checkNothingOpen() {
	a.t.Helper()
	a.until("the end of each clock incident", func() bool {
		for _, s := range a.sites { // a message that waited while the clock moved seems to be of a wrong clock, until the next one
			s.hello()
		}
		return !a.has("clock")
	})
	a.until("only incidents that somebody owns", func() bool { return len(a.openKeys()) == 0 })
	a.until("the end of every run", func() bool {
		open, err := a.core.Query.Runs(a.t.Context(), ledger.RunFilter{Open: true})
		return err == nil && len(open) == 0
	})
	runs, err := a.core.Query.Runs(a.t.Context(), ledger.RunFilter{Limit: 10_000})
	if err != nil || len(runs) > 100 { // 17 nights of two sites, and the Core's own
		a.t.Errorf("%d runs are kept, %v", len(runs), err)
	}
	all, err := a.core.Query.Incidents(a.t.Context(), true)
	if err != nil || len(all) > 100 {
		a.t.Errorf("%d incidents are kept, %v", len(all), err)
	}
	if n := len(a.logs()); n > 40 {
		a.t.Errorf("%d logs are kept", n)
	}
}
