package core

import (
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/query"
	"nightferry/internal/wire"
)

// TestProgressAfterReload: progress that is handled while a reload removes its
// site changes nothing.
func TestProgressAfterReload(t *testing.T) {
	c := newCore(Options{Now: time.Now})
	c.settings.Store(&Settings{Fleet: &fleet.Fleet{}})
	x := &site{progress: map[string]query.Progress{}}
	c.handleProgress(wire.Address{Domain: "corp", Site: "gone"}, x, &wire.Progress{Run: make([]byte, 16), Channel: "package"})
	if len(x.progress) > 0 {
		t.Error("a site that is not configured makes progress")
	}
}
