package core

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// TestProgressAfterReload: progress that is handled while a reload removes its
// site changes nothing.
func TestProgressAfterReload(t *testing.T) {
	c := newCore(Options{Now: time.Now})
	c.settings.Store(&Settings{Fleet: &fleet.Fleet{}})
	x := &site{progress: map[string]progress{}}
	c.progressed(wire.Address{Domain: "corp", Site: "gone"}, x, &wire.Progress{Run: make([]byte, 16), Channel: "package"})
	if len(x.progress) > 0 {
		t.Error("a site that is not configured makes progress")
	}
}

// TestPoisonMessage: a message whose handling panics is an incident that names
// the site and the verb, and the messages after it are handled.
func TestPoisonMessage(t *testing.T) {
	said := make(chan string, 8)
	c := newCore(Options{Now: time.Now, OnEvent: func(e Event) { said <- e.Text }})
	a := wire.Address{Domain: "corp", Site: "berlin"}
	c.fleet.get(a).identity = &ledger.Identity{}
	// The Core has no settings: every message of the site dereferences nil.
	in := make(chan message, 2)
	in <- message{from: a, verb: wire.VerbProgress}
	in <- message{from: a, verb: wire.VerbReport}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.serve(ctx, in) }()
	for _, verb := range []string{"progress", "report"} {
		text := <-said
		for _, want := range []string{verb + " of site corp/berlin", "nil pointer", "core.(*Core).hear"} {
			if !strings.Contains(text, want) {
				t.Errorf("the event does not name %q: %s", want, text)
			}
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !c.alarms.has(Inside, "message", wire.Address{}) {
		t.Error("there is no incident")
	}
}
