package core_test

import (
	"slices"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
)

// TestAgentWithoutIdentity: an agent that was revoked, or whose site the configuration has moved to another domain or
// removed, may hold URLs that are still valid. No view of a halt states that nothing can move there.
func TestAgentWithoutIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	w.join("osaka")
	w.join("berlin")
	under := func(scope, value, site string) *core.HaltSite {
		t.Helper()
		if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: scope, Value: value, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		list, err := w.core.Halts.List(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			for i, s := range v.Sites {
				if v.Scope == scope && v.Value == value && s.Site == site {
					return &v.Sites[i]
				}
			}
		}
		return nil
	}
	proven := func(s *core.HaltSite, domain string) {
		t.Helper()
		if s == nil || s.Enrolled || s.FormerDomain != domain || s.MovesUntil.Before(time.Now().Add(6*24*time.Hour)) {
			t.Errorf("%+v: its agent may hold URLs for 7 days", s)
		}
	}
	if err := w.core.Enrolment.RevokeSite(t.Context(), "berlin", "test"); err != nil {
		t.Fatal(err)
	}
	proven(under(halt.Site, "berlin", "berlin"), "corp")
	if s := under(halt.Site, "tokyo", "tokyo"); s == nil || s.Enrolled || !s.MovesUntil.IsZero() {
		t.Errorf("%+v: it never had an agent", s)
	}

	f := w.apart()
	f.Sites[slices.IndexFunc(f.Sites, func(s fleet.Site) bool { return s.Name == "osaka" })].Domain = "corp"
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	moved := under(halt.Domain, "corp", "osaka")
	proven(moved, "apac")
	proven(under(halt.Domain, "apac", "osaka"), "apac") // the agent obeys this one
	w.ahead.Store(int64(time.Hour))
	if later := under(halt.Domain, "corp", "osaka"); later == nil || !later.MovesUntil.Equal(moved.MovesUntil) {
		t.Errorf("the last moment moves on: %+v, before %+v", later, moved)
	}
	w.restart()
	if later := under(halt.Domain, "corp", "osaka"); later == nil || !later.MovesUntil.Equal(moved.MovesUntil) {
		t.Errorf("the last moment moves on with a restart: %+v, before %+v", later, moved)
	}
	w.ahead.Store(int64(7*24*time.Hour + time.Hour))
	if s := under(halt.Domain, "corp", "osaka"); s == nil || !s.MovesUntil.IsZero() {
		t.Errorf("its URLs have ended: %+v", s)
	}
}
