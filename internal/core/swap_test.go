package core_test

import (
	"crypto/rand"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/wire"
)

// TestSwappedMachine: a confirmation of a halt proves nothing about a process that has used the identity since, also after
// the Core was restarted.
func TestSwappedMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	osaka := w.join("osaka")
	osaka.hello()
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	site := func() core.HaltSite {
		t.Helper()
		list, err := w.core.Halts.List(t.Context(), false)
		if err != nil || len(list) != 1 || len(list[0].Sites) != 1 {
			t.Fatal(list, err)
		}
		return list[0].Sites[0]
	}
	confirm := func(s *wireSite, instance []byte, at time.Time) {
		t.Helper()
		s.say(wire.VerbStopped, 0, &wire.Stopped{Instance: instance, Orders: []wire.Stop{{Order: done.Orders[0], Heard: at.UnixMilli(), At: at.UnixMilli()}}})
	}
	confirm(osaka, osaka.instance, time.Now())
	w.until("the proof of the stop", func() bool { return !site().Stopped.IsZero() })
	before := site()

	osaka.client.Close()
	clone := osaka.clone()
	clone.hello()
	swapped := func(when string) {
		t.Helper()
		if s := site(); !s.Stopped.IsZero() || s.NewSince.IsZero() || !s.Confirmed.Equal(before.Confirmed) {
			t.Errorf("%s: %+v", when, s)
		}
	}
	swapped("another process has connected")
	w.restart()
	swapped("the Core was restarted")
	clone.back()
	clone.hello()
	swapped("it has connected again")
	confirm(clone, osaka.instance, time.Now()) // of the former one, which was on its way
	clone.hello()
	swapped("the former process sent it once more")
	confirm(clone, clone.instance, time.Now().Add(-time.Hour)) // its clock is behind
	w.until("its own confirmation", func() bool { return !site().Stopped.IsZero() })
	list, err := w.core.Halts.List(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if s := site(); !s.NewSince.IsZero() || s.Stopped.Before(list[0].At) || s.Confirmed.Equal(before.Confirmed) {
		t.Errorf("%+v", s)
	}

	// A restart on the same machine passes the stop on.
	stop := site()
	again := clone.clone()
	clone.client.Close()
	rand.Read(again.instance)
	again.hello()
	confirm(again, again.instance, stop.Stopped)
	w.until("the confirmation of the new process", func() bool { return !site().Stopped.IsZero() })
}
