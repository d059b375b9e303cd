package mail

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay is a small mail server that offers some login methods and accepts
// some.
type relay struct {
	addr, ca       string
	offers         string
	accepts        []string
	mu             sync.Mutex
	greeted, tried []string
	mails          int
}

func newRelay(t *testing.T, offers string, accepts ...string) *relay {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{offers: offers, accepts: accepts, ca: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return r
}

func (r *relay) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewScanner(conn)
	answer := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	answer("220 relay")
	data := false
	for in.Scan() {
		line := in.Text()
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case data:
			if line == "." {
				data = false
				r.mu.Lock()
				r.mails++
				r.mu.Unlock()
				answer("250 queued")
			}
		case verb == "EHLO":
			r.mu.Lock()
			r.greeted = append(r.greeted, rest)
			r.mu.Unlock()
			answer("250-relay\r\n250 AUTH %s", r.offers)
		case verb == "AUTH":
			method, _, _ := strings.Cut(rest, " ")
			r.mu.Lock()
			r.tried = append(r.tried, method)
			r.mu.Unlock()
			if method == "LOGIN" {
				for _, q := range []string{"Username:", "Password:"} {
					answer("334 %s", base64.StdEncoding.EncodeToString([]byte(q)))
					in.Scan()
				}
			}
			if slices.Contains(r.accepts, method) {
				answer("235 welcome")
			} else {
				answer("535 5.7.8 not by %s", method)
			}
		case verb == "DATA":
			data = true
			answer("354 go on")
		case verb == "QUIT":
			answer("221 bye")
			return
		default:
			answer("250 ok")
		}
	}
}

// TestLoginOrder: NTLM is tried after LOGIN, a refused method is followed by
// the next, and a wrong password is tried at most three times.
func TestLoginOrder(t *testing.T) {
	for _, tt := range []struct {
		offers  string
		accepts []string
		tried   string
		want    string // in the error
	}{
		{"NTLM LOGIN", []string{"LOGIN"}, "LOGIN", ""},
		{"GSSAPI NTLM LOGIN PLAIN", []string{"LOGIN"}, "PLAIN LOGIN", ""},
		{"SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5 NTLM", nil, "SCRAM-SHA-256 PLAIN LOGIN", "login by PLAIN"},
		{"GSSAPI", nil, "", "offers the login methods GSSAPI"},
		{"LOGIN", nil, "LOGIN", "535"},
	} {
		r := newRelay(t, tt.offers, tt.accepts...)
		err := Send(t.Context(), Server{Addr: r.addr, TLS: Implicit, From: "nf@example.com", CAFile: r.ca}, Login{"ops", "s3cret-word"}, Message{ID: "1", To: "ops@example.com", Date: time.Now()})
		if got := strings.Join(r.tried, " "); got != tt.tried {
			t.Errorf("%s: tried %q, want %q", tt.offers, got, tt.tried)
		}
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret")) || (err == nil) != (r.mails == 1) {
			t.Errorf("%s: %v, %d mails", tt.offers, err, r.mails)
		}
	}
}

// TestGreeting: the EHLO name has a domain, and the configuration decides it.
func TestGreeting(t *testing.T) {
	for _, tt := range []struct{ helo, from, host, want string }{
		{"", "nf@example.com", "core1", "example.com"},
		{"", "nf@example.com", "core1.corp.example", "core1.corp.example"},
		{"", "nf@localhost", "core1", "core1"},
		{"", "nf@example.com", "", "example.com"},
		{"mx.example.org", "nf@example.com", "core1", "mx.example.org"},
	} {
		if got := greetingName(Server{Helo: tt.helo, From: tt.from}, tt.host); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	r := newRelay(t, "PLAIN", "PLAIN")
	if err := Send(t.Context(), Server{Addr: r.addr, TLS: Implicit, From: "nf@example.com", Helo: "mx.example.org", CAFile: r.ca}, Login{"ops", "x"}, Message{ID: "1", To: "ops@example.com", Date: time.Now()}); err != nil || !slices.Contains(r.greeted, "mx.example.org") {
		t.Errorf("%v, greeted %q", err, r.greeted)
	}
}
