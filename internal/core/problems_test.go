package core_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// problem is an event of a site that has one, or no longer.
func problem(t *testing.T, kind, channel string, over bool) wire.Event {
	t.Helper()
	body, err := wire.Encode(&wire.Problem{Kind: kind, Text: kind + " of " + channel, Since: 1, Resolved: over})
	if err != nil {
		t.Fatal(err)
	}
	return wire.Event{Channel: channel, At: time.Now().UnixMilli(), Kind: wire.ProblemEvent, Body: body}
}

// settled waits until all that a site's reports have ended is written: what ends
// incidents goes in order.
func (s *wireSite) settled() {
	s.w.t.Helper()
	s.deliver([]wire.Event{problem(s.w.t, "control", "", false)})
	s.w.until("the marker", func() bool { return s.w.open("site-control") })
	s.deliver([]wire.Event{problem(s.w.t, "control", "", true)})
	s.w.untilOver("site-control")
}

// openKeys lists the open incidents, by key.
func (w *world) openKeys() (keys []string) {
	w.t.Helper()
	list, err := w.core.Query.Incidents(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range list {
		keys = append(keys, i.Key)
	}
	slices.Sort(keys)
	return keys
}

// differing are the totals of a check that found one path to differ.
var differing = runs.Totals{Counts: runs.Counts{Differs: 1}}

// TestProblemsStayOpen: what a site says to be over ends that, and nothing else:
// not the same of another channel, nor what has come again since.
func TestProblemsStayOpen(t *testing.T) {
	w := newWorld(t, nil)
	s := w.join("berlin")
	say := func(want []string, events ...wire.Event) {
		t.Helper()
		s.deliver(events)
		s.settled()
		if got := w.openKeys(); !slices.Equal(got, want) {
			t.Errorf("open are %q, want %q", got, want)
		}
	}
	const opens, ends = false, true
	say([]string{"site-repository/driver", "site-repository/package"}, problem(t, "repository", "package", opens), problem(t, "repository", "driver", opens))
	say([]string{"site-repository/driver"}, problem(t, "repository", "package", ends))
	say([]string{"site-repository/driver"}, problem(t, "repository", "driver", ends), problem(t, "repository", "driver", opens))
	say([]string{"site-repository/driver"}, problem(t, "store", "package", opens), problem(t, "store", "package", ends))
	say(nil, problem(t, "repository", "driver", opens), problem(t, "repository", "driver", ends))
}

// TestForgottenProblems: a site whose memory was made anew says of nothing before
// that it is over. Nor does one that is revoked, or is configured no longer.
func TestForgottenProblems(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka, tokyo, berlin := w.join("osaka"), w.join("tokyo"), w.join("berlin")
	w.publish("package")
	wait := func(want ...string) {
		t.Helper()
		w.until(fmt.Sprintf("the incidents %q", want), func() bool { return slices.Equal(w.openKeys(), want) })
	}
	osaka.deliver([]wire.Event{problem(t, "store", "package", false), problem(t, "disk", "", false), problem(t, "repository", "package", false)})
	wait("site-disk", "site-repository/package", "site-store/package")
	osaka.generation, osaka.next = make([]byte, 16), 1
	osaka.deliver([]wire.Event{problem(t, "spool", "", false), problem(t, "repository", "package", false)})
	wait("site-repository/package", "site-spool")

	d := tokyo.stateOf("package", 1)
	tokyo.deliver(append(tokyo.events(ledger.RunID{1}, d, []wire.File{{Outcome: runs.FileDiffers}}, &wire.Finished{Verdict: "different", Totals: differing}, nil), problem(t, "store", "package", false)))
	tokyo.deliver(tokyo.events(ledger.RunID{2}, d, nil, &wire.Finished{Verdict: "verified"}, nil)) // and attests nothing
	_, err := tokyo.ask("other")
	if err != nil {
		t.Fatal(err)
	}
	berlin.deliver([]wire.Event{problem(t, "repository", "driver", false)})
	wait("ask", "attestation/package", "discrepancy/package", "site-repository/driver", "site-repository/package", "site-spool", "site-store/package")
	osaka.client.Close() // to come back would be an incident of its own
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "gone"); err != nil {
		t.Fatal(err)
	}
	wait("ask", "attestation/package", "discrepancy/package", "site-repository/driver", "site-store/package")
	w.settings.Fleet = testFleet(w.source, w.dir)
	w.settings.Fleet.Sites = w.settings.Fleet.Sites[:2] // without tokyo
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	wait("ask", "site-repository/driver") // the first by itself, when nobody has tried it for a day
	w.settings.Fleet = testFleet(w.source, w.dir)
	f := w.apart()
	f.Sites[0].Placements = f.Sites[0].Placements[1:] // berlin without drivers
	w.restart()
	wait("ask")
}

// TestDifferenceStaysOpen: a run that ends verified ends what was found before
// it, not what a later one finds, though both are told at once.
func TestDifferenceStaysOpen(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	s := w.join("osaka")
	w.publish("package")
	d := s.stateOf("package", 1)
	differs := func(n byte) []wire.Event {
		return s.events(ledger.RunID{n}, d, []wire.File{{Outcome: runs.FileDiffers, Cause: "bytes"}}, &wire.Finished{Verdict: "different", Totals: differing, Error: "1 path differs"}, nil)
	}
	say := func(want int, events ...[]wire.Event) {
		t.Helper()
		s.deliver(slices.Concat(events...))
		s.settled()
		if got := w.texts("discrepancy"); len(got) != want {
			t.Errorf("open are %q, want %d", got, want)
		}
	}
	_, good := s.converge(d)
	say(1, good, differs(1))
	_, good = s.converge(d)
	say(1, differs(2), good, differs(3))
	_, good = s.converge(d)
	say(0, differs(4), good)
	// The end of a batch whose beginning came before.
	again := differs(5)
	s.deliver(again)
	w.until("the difference", func() bool { return w.open("discrepancy") })
	_, good = s.converge(d)
	s.next -= uint64(len(again))
	say(0, again, good)
}

// TestEndSurvivesAKill: a problem whose end a Core has committed just before it
// was killed is over, whether its end was kept or the site sends it again.
func TestEndSurvivesAKill(t *testing.T) {
	w := newWorld(t, nil)
	s := w.join("berlin")
	s.deliver([]wire.Event{problem(t, "disk", "package", false)})
	w.untilIncident("site-disk")
	over := problem(t, "disk", "package", true)
	w.stop()
	f, err := core.OpenOffline(t.Context(), w.options.Data, w.options.Master, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Ledger.Commit(t.Context(), ledger.Batch{Domain: "corp", Site: "berlin", Generation: [16]byte(s.generation), First: s.next,
		Events: []ledger.Event{{Channel: over.Channel, Kind: uint8(over.Kind), At: time.Now(), Body: over.Body}}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	s.back()
	s.deliver([]wire.Event{over})
	s.settled()
	w.untilOver("site-disk")
}

// TestEndIsCommittedWithItsEvent: no step of the Core lies between the two.
func TestEndIsCommittedWithItsEvent(t *testing.T) {
	w := newWorld(t, nil)
	s := w.join("berlin")
	s.deliver([]wire.Event{problem(t, "disk", "package", false)})
	w.untilIncident("site-disk")
	s.deliver([]wire.Event{problem(t, "disk", "package", true)})
	s.settled() // acknowledged, so committed
	w.stop()
	f, err := core.OpenOffline(t.Context(), w.options.Data, w.options.Master, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		w.start()
	}()
	list, err := f.Ledger.Incidents.List(t.Context(), false)
	if err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestSecondFailureIsTold: two runs in a row that failed are an incident with
// cause and remedy, until one ends well.
func TestSecondFailureIsTold(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	s := w.join("osaka")
	w.publish("package")
	d := s.stateOf("package", 1)
	fail := func(n byte) {
		t.Helper()
		s.deliver(s.events(ledger.RunID{n}, d, nil, &wire.Finished{Verdict: "failed", Error: "open a.txt: read-only file system"}, nil))
		s.settled()
	}
	fail(1)
	if got := w.texts("run"); len(got) > 0 {
		t.Errorf("told after one failure: %q", got)
	}
	fail(2)
	if got := w.texts("run"); len(got) != 1 || !strings.Contains(got[0], "read-only file system") {
		t.Fatalf("%q", got)
	}
	list, err := w.core.Query.Incidents(t.Context(), false)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Remedy, "mount -o remount,rw") {
		t.Errorf("%+v, %v", list, err)
	}
	_, good := s.converge(d)
	s.deliver(good)
	s.settled()
	w.untilOver("run")
}

// TestIncidentsOfGoneChannels: a channel that is configured no more has no open
// incident, whether it went while the Core was down or by a reload.
func TestIncidentsOfGoneChannels(t *testing.T) {
	t.Parallel()
	for _, reload := range []bool{false, true} {
		w := newWorld(t, nil)
		if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
			t.Fatal("a missing source was published")
		}
		w.untilIncident("publish")
		f := w.apart()
		f.Channels = f.Channels[1:]
		f.Sites[0].Placements = f.Sites[0].Placements[1:]
		if !reload {
			w.restart()
		} else if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
		w.untilOver("publish")
	}
}

// TestLocalFaultIsNotTheStores: what cannot be kept on the Core's own disk is not
// told as a fault of the store, and is over once it works.
func TestLocalFaultIsNotTheStores(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	file := filepath.Join(w.options.Data, "state", repo.MemoryFile)
	if err := errors.Join(os.Rename(file, file+".aside"), os.MkdirAll(filepath.Join(file, "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if text := w.untilIncident("core"); !strings.HasPrefix(text, "state: ") {
		t.Errorf("%q", text)
	}
	if w.has("store") {
		t.Errorf("the store is blamed: %q", w.texts("store"))
	}
	if err := errors.Join(os.RemoveAll(file), os.Rename(file+".aside", file)); err != nil {
		t.Fatal(err)
	}
	w.untilOver("core")
}
