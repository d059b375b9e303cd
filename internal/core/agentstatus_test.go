package core_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/halt"
)

// TestStatusOnTheSite: nightferry-agent status shows the connection, a halt order of the Core, the wanted release
// beside the held one, and that the site is revoked. nightferry-agent check names that cause, too.
func TestStatusOnTheSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	stop := w.runAgent("osaka", true)
	w.untilCurrent(1, "osaka")
	state := filepath.Join(w.dir, "agents", "osaka")
	read := func() agent.Status {
		t.Helper()
		s, err := agent.ReadStatus(t.Context(), state, time.Now)
		if err != nil || len(s.Channels) == 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		return s
	}
	s := read()
	if c := s.Channels[0]; !s.Running || !s.Core.Connected || s.Core.Since.IsZero() || s.Core.Heard.IsZero() || s.Refusal != nil || len(s.Halts) != 0 ||
		c.Held == nil || c.Held.Number != 1 || c.Wanted == nil || c.Wanted.Number != 1 || s.Stated.IsZero() {
		t.Errorf("%+v, %+v", s, c)
	}

	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "bad package"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("the order to be shown", func() bool {
		list := read().Halts
		return len(list) == 1 && list[0].ID == done.Orders[0] && list[0].Reason == "bad package"
	})
	w.write("a.txt", "two")
	w.publish("package")
	w.until("the wanted release to be shown", func() bool {
		c := read().Channels[0]
		return c.Wanted.Number == 2 && c.Held.Number == 1
	})
	stop()
	if s := read(); s.Running || s.Core.Connected || len(s.Halts) != 1 {
		t.Errorf("without an agent: %+v", s)
	}
	w.runAgent("osaka", false)
	w.until("the connection", func() bool { return read().Core.Connected })
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "scrapped"); err != nil {
		t.Fatal(err)
	}
	w.until("the refusal to be shown", func() bool { return read().Refusal != nil })
	for _, f := range agent.Check(t.Context(), agent.CheckOptions{StateDir: state, Now: time.Now}) {
		if f.What != "Core" {
			continue
		}
		var e *agent.UnwelcomeError
		if !errors.As(f.Err, &e) || !strings.Contains(f.Err.Error(), "it was revoked there") || strings.Contains(f.Err.Error(), "nats") || !strings.Contains(e.Remedy(), "nightferry site token osaka") {
			t.Errorf("%v", f.Err)
		}
	}
}
