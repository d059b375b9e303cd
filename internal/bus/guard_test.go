package bus

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"
)

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !cond(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestOneIdentityHasFewConnections: an identity that opens 100 connections, and opens lost ones anew, holds only a few.
func TestOneIdentityHasFewConnections(t *testing.T) {
	w := newWorld(t)
	paris := w.site("alpha", "paris")
	o, _ := w.siteOptions("alpha", "rome")
	o.MaxBackoff = time.Hour
	for range 100 {
		w.dial(o)
	}
	eventually(t, "100 connections of one identity are cut", func() bool { return w.server.Connections() <= 2+maxSame })
	paris.calm()
	w.core.calm()
}

// TestOneAddressHasFewSilentConnections: peers of one address that send nothing take a quarter of the places at most, so
// that sites can connect.
func TestOneAddressHasFewSilentConnections(t *testing.T) {
	w := newWorld(t)
	w.server.guard.stop()
	w.server.guard.start(w.server.ns, 40)
	paris := w.site("alpha", "paris")
	for range 100 {
		conn, err := net.Dial("tcp", w.server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	start := time.Now()
	eventually(t, "silent connections are cut", func() bool { return w.server.Connections() <= 2+10 })
	if took := time.Since(start); took >= handshake {
		t.Errorf("only the handshake's timeout cut them, after %v", took)
	}
	paris.calm()
	w.site("alpha", "rome").calm()
}

// TestRevokedWhateverTheClock: a revoked user is refused with a JWT whose issue time is a century ahead.
func TestRevokedWhateverTheClock(t *testing.T) {
	w := newWorld(t)
	o, public := w.siteOptions("alpha", "rome")
	token, err := o.JWT()
	if err != nil {
		t.Fatal(err)
	}
	late := issuedLater(t, w.authority(), token, 100*365*24*time.Hour)
	o.JWT = func() (string, error) { return late, nil }
	w.dial(o).calm() // the JWT itself is in order
	w.revoked = append(w.revoked, public)
	w.update()
	unwelcome(t, w, o)
}

// issuedLater returns the JWT with a later issue time, signed again by its issuer.
func issuedLater(t *testing.T, a *Authority, token string, by time.Duration) string {
	t.Helper()
	part := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(by).Unix()
	claims["iat"], claims["exp"] = at, at+3600
	if b, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	text := part[0] + "." + base64.RawURLEncoding.EncodeToString(b)
	sig, err := a.signers[claims["iss"].(string)].Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// TestLogHasRealAddress: a WebSocket client cannot choose the address in the log with X-Forwarded-For.
func TestLogHasRealAddress(t *testing.T) {
	var lines []string
	l := logger{to: func(_ Level, text string) { lines = append(lines, text) }}
	for _, claimed := range []string{"192.0.2.7/", "[2001:db8::7]/", ""} {
		l.Errorf("%s127.0.0.1:4711 - wid:7 - broken", claimed)
	}
	for _, line := range lines {
		if line != "127.0.0.1:4711 - wid:7 - broken" {
			t.Errorf("the log has %q", line)
		}
	}
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
}
