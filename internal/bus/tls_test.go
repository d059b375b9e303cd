package bus

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertificateInForce(t *testing.T) {
	w := newWorld(t)
	o, _ := w.siteOptions("alpha", "rome")
	for _, c := range []struct {
		name string
		from time.Time
		life time.Duration
		host string
		want string // expected in the error; empty: it connects
	}{
		{"expired", time.Now().Add(-48 * time.Hour), time.Hour, "127.0.0.1", "expired"},
		{"not yet", time.Now().Add(48 * time.Hour), time.Hour, "127.0.0.1", "not yet valid"},
		{"another's address", time.Now(), time.Hour, "127.0.0.2", "127.0.0.2"},
		{"a name for an address", time.Now(), time.Hour, coreHost, "127.0.0.1"},
		{"good", time.Now(), time.Hour, "127.0.0.1", ""}, // the same server, not restarted
	} {
		t.Run(c.name, func(t *testing.T) {
			w.certificate(c.from, c.life, c.host)
			for _, url := range []string{"tls://" + w.server.Addr(), "wss://" + w.server.WebSocketAddr()} {
				o.URLs = []string{url}
				s, err := w.try(o)
				if err == nil {
					s.Close()
				}
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v, want %q", url, err, c.want)
				}
			}
		})
	}
}

// TestNothingLeavesBeforeThePin connects to servers that are not the Core and checks that the client sends nothing
// after the handshake.
func TestNothingLeavesBeforeThePin(t *testing.T) {
	w := newWorld(t)
	other, err := NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := other.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	authority, _, err := w.ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf, _, _ := bytes.Cut(chain, []byte("-----END CERTIFICATE-----\n"))
	leaf = append(bytes.Clone(leaf), "-----END CERTIFICATE-----\n"...)
	for name, pem := range map[string][]byte{
		"its own authority":                chain,
		"the true authority shown with it": append(bytes.Clone(leaf), authority...),
		"both authorities":                 append(bytes.Clone(chain), authority...),
		"no authority":                     leaf,
	} {
		for _, scheme := range []string{"tls", "wss"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				pair, err := tls.X509KeyPair(pem, key)
				if err != nil {
					t.Fatal(err)
				}
				addr, told := eavesdropper(t, pair)
				o, _ := w.siteOptions("alpha", "rome")
				o.URLs = []string{scheme + "://" + addr}
				if _, err := w.try(o); !errors.Is(err, ErrPin) {
					t.Errorf("it answered %v", err)
				}
				if b := receive(t, "the end of the connection", told); len(b) > 0 {
					t.Errorf("it was told %q", b)
				}
			})
		}
	}
	t.Run("control", func(t *testing.T) { // the client does send data to the Core
		addr, told := eavesdropper(t, *w.cert)
		o, _ := w.siteOptions("alpha", "rome")
		o.URLs, o.Timeout = []string{"wss://" + addr}, time.Second
		if _, err := w.try(o); err == nil {
			t.Error("it answered as the Core")
		}
		if b := receive(t, "the end of the connection", told); !bytes.Contains(b, []byte("GET / HTTP/1.1")) {
			t.Errorf("it was told %q", b)
		}
	})
}

// eavesdropper is a TLS server that returns everything that one client sends.
func eavesdropper(t *testing.T, pair tls.Certificate) (string, <-chan []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	told := make(chan []byte, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{pair}})
		b, _ := io.ReadAll(conn) // data received before the client disconnected
		told <- b
	}()
	return l.Addr().String(), told
}

func TestCAIsKept(t *testing.T) {
	ca, err := NewCA("nightferry", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(cert, key)
	if err != nil || again.Fingerprint() != ca.Fingerprint() {
		t.Errorf("loaded %v: %v", again, err)
	}
	chain, serverKey, err := ca.Server([]string{"core", "::1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(chain, serverKey); err == nil {
		t.Error("a server's certificate was taken for an authority's")
	}
	_, otherKey, err := ca.Server([]string{"core"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(cert, otherKey); err == nil {
		t.Error("another's key was taken")
	}
}

// TestServerSaysNothingInClear checks that the server sends no greeting to a connection without TLS.
func TestServerSaysNothingInClear(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("tcp", w.server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONNECT {\"verbose\":false}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if bytes.Contains(b, []byte("INFO")) || bytes.Contains(b, []byte("PONG")) {
		t.Errorf("it said %q, %v", b, err)
	}
}

// TestRefusedConnectionIsTold checks that Dial returns a refused connection as the cause, although the library hides
// it.
func TestRefusedConnectionIsTold(t *testing.T) {
	w := newWorld(t)
	ours, _ := w.siteOptions("alpha", "rome")
	theirs := ClientOptions{CredsFile: filepath.Join(t.TempDir(), "creds")}
	if err := os.WriteFile(theirs.CredsFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]ClientOptions{"our bus": ours, "their cluster": theirs} {
		o.URLs, o.Background = []string{"tls://127.0.0.1:1"}, false // a closed port
		c, err := Dial(t.Context(), o)
		if err == nil {
			c.Close()
		}
		if refused := (*net.OpError)(nil); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
