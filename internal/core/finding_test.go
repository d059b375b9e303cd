package core_test

import (
	"os"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/query"
)

// TestFindingOverrulesRelease proves that a file that a check found missing or
// different is not shown as current and verified until it is repaired, also
// after a restart of the Core.
func TestFindingOverrulesRelease(t *testing.T) {
	t.Parallel()
	w := scrubbed(t, time.Hour, 0)
	w.write("a/gone.bin", random(1, 3000))
	w.write("a/other.bin", random(2, 3000))
	w.write("a/fine.bin", random(3, 3000))
	w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	place := func(name string) query.Place {
		t.Helper()
		list, err := w.core.Query.Where(t.Context(), "package", name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Site == "osaka" {
				return p
			}
		}
		t.Fatal("osaka is not listed")
		return query.Place{}
	}
	verify := func(repair bool) {
		t.Helper()
		before := len(w.runs("osaka", "verify"))
		if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "osaka"}, Full: true, Repair: repair}); err != nil {
			t.Fatal(err)
		}
		w.until("the check", func() bool { return len(w.runs("osaka", "verify")) > before })
	}
	if p := place("a/gone.bin"); p.State != "current" || !p.Current || p.Verified.IsZero() {
		t.Fatalf("before any damage: %+v", p)
	}
	if err := os.Remove(w.at("osaka", "a/gone.bin")); err != nil {
		t.Fatal(err)
	}
	w.flip("osaka", "a/other.bin")
	verify(false)
	for range 2 {
		if p := place("a/gone.bin"); p.State != "missing" || p.Current || p.Present || !p.Verified.IsZero() || p.Found.IsZero() || p.Run == "" {
			t.Errorf("what was found missing: %+v", p)
		}
		if p := place("a/other.bin"); p.State != "differs" || p.Current || !p.Verified.IsZero() {
			t.Errorf("what was found to differ: %+v", p)
		}
		if p := place("a/fine.bin"); p.State != "current" || p.Verified.IsZero() {
			t.Errorf("what was found right: %+v", p)
		}
		if s, err := w.core.Query.Status(t.Context()); err != nil || s.Current != 0 {
			t.Errorf("a site with a missing file counts as current: %d, %v", s.Current, err)
		}
		w.restart()
	}
	w.until("osaka to be back", func() bool { return w.seen("osaka") })
	verify(true)
	for _, name := range []string{"a/gone.bin", "a/other.bin"} {
		w.until(name+" to be proven", func() bool { p := place(name); return p.State == "current" && !p.Verified.IsZero() })
	}
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "test"); err != nil {
		t.Fatal(err)
	}
	if p := place("a/fine.bin"); p.State != "unproven" || p.Current {
		t.Errorf("of a site that is not enrolled: %+v", p)
	}
	if s := w.channel("osaka", "package"); s.State == "current" {
		t.Error("a revoked site counts as current")
	}
}

// seen reports whether a site counts as connected.
func (w *world) seen(site string) bool {
	w.t.Helper()
	s, err := w.core.Query.Sites(w.t.Context(), fleet.Scope{Site: site})
	if err != nil {
		w.t.Fatal(err)
	}
	return s[0].Connected
}

// TestConnectedEndsWithTheAgent: an agent that stops in order is not shown as
// connected until its silence is noticed.
func TestConnectedEndsWithTheAgent(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Beat = time.Minute })
	stop := w.runAgent("osaka", true)
	w.until("osaka to be connected", func() bool { return w.seen("osaka") })
	stop()
	w.until("osaka to have left", func() bool { return !w.seen("osaka") })
	w.runAgent("osaka", false)
	w.until("osaka to be back", func() bool { return w.seen("osaka") })
}
