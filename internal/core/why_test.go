package core_test

import (
	"slices"
	"strings"
	"testing"

	"nightferry/internal/fleet"
	"nightferry/internal/query"
)

// TestWhy: each state that is not current has a reason with a remedy, the state
// names one thing, and a fleet's answer leaves out what is as it should be.
func TestWhy(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	stop := w.runAgent("osaka", true)
	w.untilCurrent(1, "osaka")
	why := func(scope fleet.Scope) []query.Reason {
		t.Helper()
		list, err := w.core.Query.Why(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := why(fleet.Scope{Site: "osaka"}); len(list) != 0 {
		t.Errorf("of a site that is current: %+v", list)
	}
	all := why(fleet.Scope{})
	for _, name := range []string{"tokyo", "berlin"} {
		if !slices.ContainsFunc(all, func(r query.Reason) bool {
			return r.Site == name && r.What == "not enrolled" && strings.Contains(r.Remedy, "site token "+name)
		}) {
			t.Errorf("%s is not enrolled, and the fleet says %+v", name, all)
		}
	}
	stop()
	w.until("osaka to have left", func() bool { return !w.seen("osaka") })
	w.write("a.txt", "two")
	w.publish("package")
	if ch := w.channel("osaka", "package"); ch.State != "away" || ch.Why != "no message" || !query.Problem(ch.State) {
		t.Errorf("a site that is away: %s, %q", ch.State, ch.Why)
	}
	list := why(fleet.Scope{Site: "osaka", Channel: "package"})
	if len(list) == 0 || list[0].What != "no message" || list[0].Since.IsZero() || !strings.Contains(list[0].Remedy, "start the agent") {
		t.Errorf("%+v", list)
	}
	if _, err := w.core.Query.Why(t.Context(), fleet.Scope{Site: "atlantis"}); err == nil {
		t.Error("a site that does not exist, and no error")
	}
}
