package core_test

import (
	"net"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/halt"
)

// TestHaltBesideSilentPeers: 1500 peers connect to the WebSocket address and send nothing. Enrolled sites stay connected,
// new ones find a place, and a halt order is given, obeyed and confirmed.
func TestHaltBesideSilentPeers(t *testing.T) {
	w := newWorld(t, nil)
	w.runAgent("osaka", true)
	tokyo := w.join("tokyo")
	tokyo.hello()
	tokyo.connected()
	for range 1500 {
		conn, err := net.Dial("tcp", w.core.WebSocketAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	start := time.Now()
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("osaka to obey", w.obeys("osaka", done.Orders[0]))
	t.Logf("obeyed after %v", time.Since(start))
	tokyo.hello()
	w.join("berlin").hello() // a new site finds a place
	if len(tokyo.lost) > 0 {
		t.Error("a site has lost its connection")
	}
}
