package core_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPublicMoves: sites learn new addresses of the Core, former names stay in
// the certificate, and the Core knows which sites know the former ones only.
func TestPublicMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	osaka.stateOf("package", 1)
	s := w.settings
	for _, u := range []string{"tls://core-old.example:4222", "tls://" + w.core.Addr()} {
		s.URLs = []string{u}
		if err := w.core.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	w.settings = s
	check := func() {
		t.Helper()
		conn, err := tls.Dial("tcp", w.core.Addr(), &tls.Config{InsecureSkipVerify: true}) // the name is checked below
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for _, name := range []string{"core-old.example", "127.0.0.1"} {
			if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	}
	check()
	w.restart()
	check()
	osaka.back()
	w.until("osaka to learn the new address", func() bool { // older states may be on the way
		st, _ := osaka.hello()
		return len(st.Core) == 1 && st.Core[0] == s.URLs[0]
	})
	if got := w.core.Unmoved(10 * time.Millisecond); strings.Join(got, " ") != "osaka" {
		t.Errorf("only %q would be cut off", got)
	}

	stop := w.runAgent("tokyo", true)
	w.untilCurrent(1, "tokyo")
	s.URLs = []string{"tls://" + strings.Replace(w.core.Addr(), "127.0.0.1", "localhost", 1)}
	if err := w.core.Reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.until("tokyo to keep the new address", func() bool {
		b, err := os.ReadFile(filepath.Join(w.dir, "agents", "tokyo", "site.json"))
		return err == nil && strings.Contains(string(b), s.URLs[0]) && strings.Contains(string(b), w.settings.URLs[0])
	})
	w.until("the Core to know that", func() bool { return strings.Join(w.core.Unmoved(time.Second), " ") == "osaka" })
	stop()
	w.runAgent("tokyo", false)
	w.until("tokyo to come by the new address", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(w.log.String(), "connected to the Core at "+s.URLs[0])
	})
}
