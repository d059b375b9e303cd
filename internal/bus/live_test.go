package bus

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// cut expects the server to disconnect the client and to refuse it from then on. It logs the time: a busy machine delays it.
func cut(t *testing.T, since time.Time, s *site) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case e := <-s.events:
			switch e.Kind {
			case Connected, Limited:
				continue // the first connection; Limited: its signing key was removed just before it was disconnected
			case Lost, Unwelcome:
			default:
				t.Fatalf("%v %v", e.Kind, e.Err)
			}
			t.Logf("disconnected after %v", time.Since(since))
			for range 4 { // it keeps trying and is refused
				s.next(Unwelcome)
			}
			if err := s.Publish("nf.up.alpha.rome.beat", nil); !errors.Is(err, ErrAway) {
				t.Errorf("publish by one who was thrown out: %v", err)
			}
			return
		case <-limit:
			t.Fatal("it stays connected")
		}
	}
}

func TestRevokedWhileConnected(t *testing.T) {
	w := newWorld(t)
	rome, paris, oslo := w.site("alpha", "rome"), w.site("alpha", "paris"), w.site("beta", "oslo")
	since := time.Now()
	w.revoked = append(w.revoked, rome.public)
	w.update()
	cut(t, since, rome)
	paris.calm()

	// Replacing a domain's key starts by adding the new one beside the old, which disconnects no site.
	old := w.domains["alpha"][0]
	w.domains["alpha"] = [][]byte{w.domainSeed(), old}
	w.update()
	berlin := w.site("alpha", "berlin")
	paris.calm()
	since = time.Now()
	w.domains["alpha"] = w.domains["alpha"][:1]
	w.update()
	cut(t, since, paris)
	berlin.calm()

	since = time.Now()
	delete(w.domains, "alpha")
	w.update()
	cut(t, since, berlin)
	oslo.calm()
	w.core.calm()

	other := newWorld(t)
	if err := w.server.Update(other.authority()); err == nil {
		t.Error("another account's authority was taken")
	}
}

// TestJWTEnds lets a JWT expire during use. The client reconnects once it gets a new one.
func TestJWTEnds(t *testing.T) {
	w := newWorld(t)
	o, public := w.siteOptions("alpha", "rome")
	lives := []time.Duration{2 * time.Second, -time.Minute, time.Hour}
	o.JWT = func() (string, error) {
		life := lives[0]
		if len(lives) > 1 {
			lives = lives[1:]
		}
		if life < 0 {
			return w.authority().User("alpha", "rome", public, time.Second, time.Now().Add(life))
		}
		return w.authority().User("alpha", "rome", public, life, time.Now())
	}
	s := w.dial(o)
	s.next(Connected)
	if e := s.next(Unwelcome); e.Err == nil {
		t.Error("no reason is told")
	}
	s.next(Unwelcome) // the one for the expired JWT
	s.next(Connected)
}

func TestComesBack(t *testing.T) {
	w := newWorld(t)
	o, _ := w.siteOptions("alpha", "rome")
	o.URLs = append(o.URLs, "wss://"+w.server.WebSocketAddr())
	rome := w.dial(o)
	heard := rome.hear("nf.down.alpha.rome.>")
	rome.next(Connected)
	addr, ws := w.server.Addr(), w.server.WebSocketAddr()
	w.core.Close()
	w.server.Close()
	rome.next(Lost)
	if err := rome.Publish("nf.up.alpha.rome.beat", []byte("x")); !errors.Is(err, ErrAway) {
		t.Errorf("publish while away: %v", err)
	}
	if err := rome.Flush(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("flush while away: %v", err)
	}
	// The Core restarts with another TLS port, so only the WebSocket address still works.
	w.start("127.0.0.1:0", ws)
	if w.server.Addr() == addr {
		t.Fatalf("the same port %s", addr)
	}
	if e := rome.next(Connected); e.URL != "wss://"+ws {
		t.Errorf("connected by %s", e.URL)
	}
	if err := rome.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.core = w.dial(w.coreOptions())
	big := string(bytes.Repeat([]byte("x"), MaxPayload))
	w.core.say("nf.down.alpha.rome.state", big)
	if got := receive(t, "the state", heard); got != "nf.down.alpha.rome.state "+big {
		t.Errorf("%d bytes came", len(got))
	}
	up := w.core.hear("nf.up.>")
	rome.say("nf.up.alpha.rome.report", big)
	if got := receive(t, "the report", up); got != "nf.up.alpha.rome.report "+big {
		t.Errorf("%d bytes came", len(got))
	}
	if err := rome.Publish("nf.up.alpha.rome.report", []byte(big+"x")); err == nil {
		t.Error("one byte too much was sent")
	}
}

func TestBackground(t *testing.T) {
	w := newWorld(t)
	o, _ := w.siteOptions("alpha", "rome")
	o.URLs, o.Background = []string{"tls://127.0.0.1:1"}, true
	s, err := w.try(o)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.next(Failed); e.Err == nil {
		t.Error("no reason is told")
	}
	s.Close()
	s.next(Closed)
}

func TestSlowHandler(t *testing.T) {
	w := newWorld(t)
	o, _ := w.siteOptions("alpha", "rome")
	o.Pending = 1000
	s := w.dial(o)
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	if err := s.Subscribe("nf.down.alpha.rome.>", func(string, []byte) { entered <- struct{}{}; <-release }); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		w.core.say("nf.down.alpha.rome.state", string(make([]byte, 600)))
	}
	s.next(Slow)
	receive(t, "the handler", entered)
	done := make(chan struct{})
	go func() { s.Close(); close(done) }()
	s.next(Closed)
	select {
	case <-done:
		t.Error("Close did not wait for the handler")
	default:
	}
	close(release)
	receive(t, "Close", done)
}

// TestOneKeyTwoForms checks that a user's key signs and verifies in the standard library's form.
func TestOneKeyTwoForms(t *testing.T) {
	raw := [32]byte{1, 2, 3}
	seed, public, err := IdentityOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	key, err := Ed25519Of(seed)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := Ed25519Public(public)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(key.Seed(), raw[:]) || !ed25519.Verify(pub, []byte("m"), ed25519.Sign(key, []byte("m"))) {
		t.Error("the two forms are two keys")
	}
	a, err := NewDomainSeed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ed25519Of(a); err == nil {
		t.Error("an account's seed was taken for a user's")
	}
}

// TestStartWarnsOfNothing checks that a start logs no warnings, because operators could not act on them.
func TestStartWarnsOfNothing(t *testing.T) {
	w := newWorld(t)
	said := make(chan string, 100)
	s, err := Start(ServerOptions{Name: "test", Addr: "127.0.0.1:0", WebSocketAddr: "127.0.0.1:0", Authority: w.authority(),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.cert, nil },
		Log:         func(l Level, text string) { said <- fmt.Sprint(l, " ", text) }})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	close(said)
	lines := 0
	for line := range said {
		if lines++; !strings.HasPrefix(line, "0 ") {
			t.Errorf("it says %s", line)
		}
	}
	if lines == 0 {
		t.Error("it says nothing at all: then this proves nothing")
	}
}
