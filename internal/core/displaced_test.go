package core_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/query"
)

// TestDisplaced: a token for a site that has joined says so; the agent whose
// place its user takes is named by its site when it comes back, and nothing
// that it said counts as said by the other.
func TestDisplaced(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Beat = time.Minute }) // a site is there, though it says little
	w.write("a.txt", "one")
	w.publish("package")
	issue := func(site string) *core.IssuedToken {
		t.Helper()
		issued, err := w.core.Enrolment.Token(t.Context(), site, 0)
		if err != nil {
			t.Fatal(err)
		}
		return issued
	}
	osaka := func() query.SiteStatus {
		t.Helper()
		list, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	if issued := issue("osaka"); !issued.Joined.IsZero() || issued.Connected {
		t.Errorf("a site that has not joined: %+v", issued)
	}
	first := w.join("osaka")
	_, events := first.converge(first.stateOf("package", 1))
	first.deliver(events)
	was := osaka()
	if !was.Connected || was.Channels[0].State != "current" {
		t.Fatalf("before: %+v", was)
	}

	issued := issue("osaka")
	if !issued.Joined.Equal(was.Enrolled) || !issued.Connected || issued.Version != "test" || !osaka().Connected {
		t.Errorf("a token for it: %+v, it joined %s", issued, was.Enrolled)
	}
	first.connected()
	second, err := w.enrol(issued.Text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if now := osaka(); now.Connected || now.Channels[0].State != "unproven" || now.Channels[0].Holds != 1 {
		t.Errorf("another has joined, and said nothing yet: %+v", now)
	}
	first.mustBeCut()
	text := w.untilIncident(string(kinds.Denied))
	if !strings.HasPrefix(text, "site apac/osaka: another agent has joined in its place on 2") {
		t.Error(text)
	}
	w.mustConcern(kinds.Denied, "apac", "osaka")
	_, events = second.converge(second.stateOf("package", 1))
	second.deliver(events)
	if now := osaka(); !now.Connected || now.Channels[0].State != "current" {
		t.Errorf("the other has proven it: %+v", now)
	}

	w.mustBeUnwelcome(issued.Text)

	// Both agents have ended, and the site joins again: the incident of its denied messages ends.
	first.client.Close()
	second.client.Close()
	if _, err := w.enrol(issue("osaka").Text, nil); err != nil {
		t.Fatal(err)
	}
	w.untilOver(string(kinds.Denied))
}

// mustConcern demands that an open incident of that kind has that site as its
// only member.
func (w *world) mustConcern(kind kinds.Kind, domain, site string) {
	w.t.Helper()
	list, err := w.core.Query.Incidents(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i query.Incident) bool { return i.Kind == string(kind) })
	if i < 0 || len(list[i].Members) != 1 || list[i].Members[0].Domain != domain || list[i].Members[0].Site != site {
		w.t.Errorf("%s: %+v", kind, list)
	}
}
