package core_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// clone is a copy of the site's server, which starts beside it.
func (s *wireSite) clone() *wireSite {
	s.w.t.Helper()
	c := &wireSite{w: s.w, seed: s.seed, key: s.key, pin: s.pin, token: s.token, grant: s.grant, repo: s.repo, chain: s.chain, waiting: map[uint64]chan *wire.URLs{},
		lost: make(chan time.Time, 8), generation: s.generation, next: s.next, instance: make([]byte, 16), holds: s.holds}
	rand.Read(c.instance)
	if err := c.connect(s.at, s.grant.JWT, s.seed); err != nil {
		s.w.t.Fatal(err)
	}
	return c
}

// TestClonedSite: two machines with one identity are found out at once, and
// nothing is claimed of the site until that is settled.
func TestClonedSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	run := func() {
		t.Helper()
		_, events := osaka.converge(osaka.stateOf("package", 1))
		osaka.deliver(events)
	}
	state := func(want string) {
		t.Helper()
		w.until("osaka to be "+want, func() bool { return w.channel("osaka", "package").State == want })
	}
	run()
	osaka.hello()
	state("current")
	if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	stopped := func(s *wireSite) {
		t.Helper()
		list, err := w.core.Halts.List(t.Context(), false)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		now := time.Now().UnixMilli()
		s.say(wire.VerbStopped, 0, &wire.Stopped{Instance: s.instance, Orders: []wire.Stop{{Order: list[0].Order, Heard: now, At: now}}})
	}
	proven := func() bool {
		t.Helper()
		list, err := w.core.Halts.List(t.Context(), false)
		if err != nil || len(list) != 1 || len(list[0].Sites) != 1 {
			t.Fatal(list, err)
		}
		return !list[0].Sites[0].Stopped.IsZero()
	}
	stopped(osaka)
	w.until("the proof of the stop", proven)

	// A restarted agent is no clone.
	osaka.connected()
	again := osaka.clone()
	osaka.client.Close()
	again.hello()
	osaka = again
	osaka.hello()
	if w.has("cloned") {
		t.Error("a restarted agent counts as a clone")
	}

	clone := osaka.clone()
	clone.hello() // the older connection is closed
	select {
	case <-osaka.lost:
	case <-time.After(patience):
		t.Fatal("the older connection stays")
	}
	osaka.back()
	osaka.hello()
	text := w.untilIncident("cloned")
	for _, s := range []*wireSite{osaka, clone} {
		if !strings.Contains(text, hexOf(s.instance)) {
			t.Errorf("machine %x is missing in %q", s.instance, text)
		}
	}
	state("contested")
	connected := func() bool {
		t.Helper()
		s, err := w.core.Query.Status(t.Context())
		return err == nil && s.Connected == 1
	}
	leave := func(s *wireSite) {
		osaka.say(wire.VerbBeat, 0, &wire.Beat{Instance: s.instance, At: time.Now().UnixMilli(), Leaving: true})
		osaka.deliver([]wire.Event{problem(t, "control", "", true)}) // it is handled after the other one
	}
	leave(clone)
	if !connected() {
		t.Error("one of two machines leaves, and the site counts as gone")
	}
	stopped(clone)
	stopped(osaka)
	osaka.hello() // it is handled after them
	if proven() {
		t.Error("a stop is proven at a contested site")
	}
	if list, err := w.core.Halts.List(t.Context(), false); err != nil || list[0].Sites[0].Contested != text {
		t.Errorf("the halt of a contested site: %+v, %v", list, err)
	}
	run() // it ends verified, says the site
	if list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", Channel: "package", Limit: 1}); err != nil || len(list) != 1 || list[0].State != runs.Failed || !strings.Contains(list[0].Cause, "two machines") {
		t.Errorf("a run of a contested site: %+v, %v", list, err)
	}
	var sent []core.Event
	order := func() ([]core.Order, error) {
		return w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "osaka"}, Full: true})
	}
	err := w.core.Orders.Follow(t.Context(), fleet.Scope{Site: "osaka"}, order, func([]core.Order) error { return nil }, func(ev core.Event) error {
		sent = append(sent, ev)
		return nil
	})
	var contest *core.ContestedError
	if !errors.As(err, &contest) || len(sent) != 1 || sent[0].Kind != core.NotStarted || !strings.Contains(contest.Remedy(), "site confirm osaka") {
		t.Errorf("a check of a contested site: %v, %+v", err, sent)
	}
	if ch := w.channel("osaka", "package"); ch.State != "contested" || ch.Waiting != nil || len(ch.Reasons) == 0 || ch.Reasons[0].What != "contested" {
		t.Errorf("%+v", ch)
	}
	if places, err := w.core.Query.Where(t.Context(), "package", "a.txt"); err != nil || places[1].State != "contested" || places[1].Cause != text || places[1].Current || !places[1].Verified.IsZero() {
		t.Errorf("%+v, %v", places, err)
	}
	if s, err := w.core.Query.Status(t.Context()); err != nil || s.Current != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	w.restart() // it is still known then
	state("contested")

	clone.client.Close()
	osaka.back()
	if err := w.core.Enrolment.Confirm(t.Context(), "osaka", "the copy is deleted"); err != nil {
		t.Fatal(err)
	}
	if w.channel("osaka", "package").State == "current" {
		t.Error("the site need not prove anew what it holds")
	}
	osaka.hello()
	leave(clone) // the copy's last message comes after the operator's word
	if w.has("cloned") || !connected() {
		t.Error("the last message of a machine that has stopped counts against the one that stays")
	}
	run()
	state("current")
	stopped(osaka)
	w.until("the proof of the stop", proven)

	// Enrolled again, it is one machine, too.
	clone = osaka.clone()
	clone.hello()
	osaka.back()
	osaka.hello()
	state("contested")
	osaka = w.join("osaka")
	osaka.hello()
	w.until("the end of the incident", func() bool { return !w.has("cloned") && w.channel("osaka", "package").State != "contested" })
}

// TestPutBack: a site that holds less than it has attested to proves nothing.
func TestPutBack(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	before := osaka.holds["package"]
	w.write("a.txt", "two")
	w.publish("package")
	_, events = osaka.converge(osaka.stateOf("package", 2))
	osaka.deliver(events)
	osaka.hello()
	if s := w.channel("osaka", "package").State; s != "current" {
		t.Fatal(s)
	}
	osaka.holds["package"] = before // a snapshot was restored
	osaka.hello()
	if ch := w.channel("osaka", "package"); ch.State == "current" || !ch.Verified.IsZero() {
		t.Errorf("%+v", ch)
	}
	sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
	if err != nil || sites[0].Contested != "" {
		t.Errorf("%+v, %v", sites, err)
	}
}

// TestClonesByTurns: a machine and its copy run by turns, so that no two processes send at once. The
// copy was acknowledged more than it has sent, so it numbers its events anew. When the first machine
// continues its own record, there are two.
func TestClonesByTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	run := func() {
		t.Helper()
		_, events := osaka.converge(osaka.stateOf("package", 1))
		osaka.deliver(events)
	}
	run()
	first, next := osaka.generation, osaka.next
	osaka.generation, osaka.next = make([]byte, 16), 1
	rand.Read(osaka.generation)
	run()
	run()
	if w.has("cloned") {
		t.Error("a machine that was put back to an earlier state counts as two")
	}
	osaka.generation, osaka.next = first, next
	run()
	if text := w.untilIncident("cloned"); !strings.Contains(text, "by turns") {
		t.Error(text)
	}
	w.until("osaka to be contested", func() bool { return w.channel("osaka", "package").State == "contested" })
	if err := w.core.Enrolment.Confirm(t.Context(), "osaka", "the copy is deleted"); err != nil {
		t.Fatal(err)
	}
	run()
	w.until("osaka to be current", func() bool { return w.channel("osaka", "package").State == "current" && !w.has("cloned") })
}
