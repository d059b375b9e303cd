package core_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/query"
)

// TestUnreadableTargetIsUnproven: while a site cannot read its target, no view repeats an earlier run's proof. Each
// names the cause and the date of the last proof.
func TestUnreadableTargetIsUnproven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	state, err := w.enter("osaka", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.agent(state, nil)
	w.untilCurrent(1, "osaka")
	record := filepath.Join(w.folder("osaka", "package"), ".nightferry")
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(errors.Join(os.Rename(record, record+".kept"), os.WriteFile(record, nil, 0o644))) // reading it fails, as a bad disk does
	scope := fleet.Scope{Site: "osaka", Channel: "package"}
	_, err = w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: scope, Full: true})
	try(err)
	w.until("no claim in sites", func() bool {
		list, err := w.core.Query.Sites(t.Context(), scope)
		ch := list[0].Channels[0]
		return err == nil && ch.State == "unproven" && ch.Verified.IsZero() && ch.Why == "target unreadable" && strings.Contains(ch.Reasons[0].Cause, "; last proven 2")
	})
	places, err := w.core.Query.Where(t.Context(), "package", "a.txt")
	places = slices.DeleteFunc(places, func(p query.Place) bool { return p.Site != "osaka" })
	if err != nil || len(places) != 1 || places[0].State != "unproven" || places[0].Current || !places[0].Verified.IsZero() || !strings.Contains(places[0].Cause, "; last proven 2") {
		t.Errorf("where: %+v, %v", places, err)
	}
	if s, err := w.core.Query.Status(t.Context()); err != nil || s.Current != 0 {
		t.Errorf("status: %+v, %v", s, err)
	}
	if why, err := w.core.Query.Why(t.Context(), scope); err != nil || len(why) != 1 || why[0].Remedy == "" {
		t.Errorf("why: %+v, %v", why, err)
	}
	if open := w.openKeys(); !slices.Equal(open, []string{"target-unreadable/package"}) {
		t.Errorf("open are %q", open)
	}
	try(errors.Join(os.Remove(record), os.Rename(record+".kept", record)))
	w.untilCurrent(1, "osaka")
	w.until("the end of the incident", func() bool { return len(w.openKeys()) == 0 })
}
