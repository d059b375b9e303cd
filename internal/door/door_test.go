package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/durable"
)

// TestHosts checks that only requests for the server's own names are answered, over HTTP/1.1 and HTTP/2, and that the
// connection is at least TLS 1.2.
func TestHosts(t *testing.T) {
	addr := serve(t, Options{Hosts: []string{"core.example.com", "127.0.0.1", "::1"}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto)
	}))
	_, port, _ := net.SplitHostPort(addr)
	ask := func(c *http.Client, host string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	one := client(t)
	one.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	one.Transport.(*http.Transport).TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	for proto, c := range map[string]*http.Client{"HTTP/1.1": one, "HTTP/2.0": client(t)} {
		for _, host := range []string{"core.example.com", "CORE.example.com:" + port, "core.example.com:1", "127.0.0.1:" + port, "[::1]:" + port, "[::1]"} {
			if code, text := ask(c, host); code != http.StatusOK || text != proto {
				t.Errorf("%s, host %q: %d %s", proto, host, code, text)
			}
		}
		for _, host := range []string{"evil.example.com", "core.example.com.", "core.example.com.evil.example", "localhost", "xcore.example.com", "169.254.169.254"} {
			if code, text := ask(c, host); code != http.StatusMisdirectedRequest || !strings.Contains(text, "listen.console.url") {
				t.Errorf("%s, host %q: %d %s", proto, host, code, text)
			}
		}
	}
	_, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

// TestPortInUse checks the error of a port that another program has.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(Options{Addr: l.Addr().String(), Certificate: func() (*tls.Certificate, error) { return &tls.Certificate{}, nil }})
	var used *PortError
	if !errors.As(err, &used) || !strings.Contains(used.Remedy(), "listen.console") {
		t.Fatal(err)
	}
}

// TestBounds checks that connections beyond the bounds are closed at once, and that one that ends makes room.
func TestBounds(t *testing.T) {
	addr := serve(t, Options{maxAll: 3, maxEach: 3}, http.NotFoundHandler())
	open := func() (*tls.Conn, error) {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: &tls.Config{InsecureSkipVerify: true}}
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return nil, err
		}
		return c.(*tls.Conn), nil
	}
	var all []*tls.Conn
	for range 3 {
		c, err := open()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if c, err := open(); err == nil {
		_ = c.Close()
		t.Fatal("a fourth connection is accepted")
	}
	for _, c := range all {
		_ = c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := open(); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Error("the places of connections that have ended are not free")
}

// TestOrigins checks which addresses count as one.
func TestOrigins(t *testing.T) {
	of := func(ip string) string { return originOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}).String() }
	for a, same := range map[string]bool{"2001:db8::2": true, "2001:db8:0:1::1": false, "192.0.2.1": false} {
		if (of(a) == of("2001:db8::1")) != same {
			t.Errorf("%s: %s", a, of(a))
		}
	}
	if of("192.0.2.1") == of("192.0.2.2") || of("::ffff:192.0.2.1") != of("192.0.2.1") {
		t.Error("IPv4 addresses are told apart wrongly")
	}
}

// TestRenewedFiles checks that a renewed certificate is taken up without a restart, and that files that do not fit, or
// are missing, are reported and leave the old one in force.
func TestRenewedFiles(t *testing.T) {
	now := time.Now()
	cert, key := files(t, 1, now.Add(time.Hour))
	var reports []error
	f := NewFiles(FilesOptions{Certificate: cert, Key: key, Now: func() time.Time { return now }, Report: func(err error) { reports = append(reports, err) }})
	serial := func(want int64) {
		t.Helper()
		now = now.Add(lookEvery)
		pair, err := f.Certificate()
		if err != nil || pair.Leaf.SerialNumber.Int64() != want {
			t.Fatalf("%v, %v, want serial number %d", pair, err, want)
		}
	}
	serial(1)
	c, k := issue(t, 20, now.Add(time.Hour))
	replace(t, cert, append(c, '\n'))
	serial(1) // the key does not fit yet
	if len(reports) != 1 || reports[0] == nil {
		t.Fatalf("reports %v", reports)
	}
	replace(t, key, k)
	serial(20)
	if len(reports) != 2 || reports[1] != nil {
		t.Fatalf("reports %v", reports)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	serial(20)
	replace(t, cert, c)
	serial(20)
	if len(reports) != 4 || reports[2] == nil || reports[3] != nil {
		t.Fatalf("reports %v", reports)
	}
	serial(20)
	if len(reports) != 4 {
		t.Error("unchanged files are reported")
	}
}

// TestBadFiles checks the errors of files that cannot be used, and that each has a remedy.
func TestBadFiles(t *testing.T) {
	now := time.Now()
	cert, key := files(t, 1, now.Add(time.Hour))
	other, otherKey := files(t, 2, now.Add(-time.Hour))
	exposed := filepath.Join(t.TempDir(), "exposed.pem")
	_, k := issue(t, 3, now.Add(time.Hour))
	replace(t, exposed, k)
	if err := os.Chmod(exposed, 0o644); err != nil { // on Windows, durable has tests of its own
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	replace(t, empty, nil)
	for name, x := range map[string]struct{ cert, key, want string }{
		"missing":  {cert + ".gone", key, "name files"},
		"no key":   {cert, key + ".gone", "name files"},
		"expired":  {other, otherKey, "expired on"},
		"mismatch": {cert, otherKey, "private key does not match"},
		"empty":    {empty, key, "PEM"},
		"swapped":  {key, cert, "PEM"},
		"exposed":  {cert, exposed, durable.ErrExposed.Error()},
		"folder":   {filepath.Dir(cert), key, "regular"},
	} {
		if name == "exposed" && os.PathSeparator == '\\' {
			continue
		}
		_, err := LoadFiles(x.cert, x.key, now)
		var told *CertificateError
		if !errors.As(err, &told) || told.Remedy() == "" || !strings.Contains(err.Error()+told.Remedy(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if _, err := Listen(Options{Addr: "127.0.0.1:0", Certificate: NewFiles(FilesOptions{Certificate: x.cert, Key: x.key, Now: time.Now}).Certificate}); err == nil {
			t.Errorf("%s: the port is open", name)
		}
	}
	if _, err := LoadFiles(cert, key, now); err != nil {
		t.Error(err)
	}
}

// TestMade checks that a made certificate stays until a third of its life is left.
func TestMade(t *testing.T) {
	now, made := time.Now(), int64(0)
	m := NewMade(MadeOptions{Now: func() time.Time { return now }, Make: func() ([]byte, []byte, error) {
		made++
		c, k := issue(t, made, now.Add(90*24*time.Hour))
		return c, k, nil
	}})
	for range 4 {
		for range 2 {
			if _, err := m.Certificate(); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(40 * 24 * time.Hour)
	}
	if made != 2 {
		t.Errorf("made %d times in 120 days, want 2", made)
	}
	m.o.Make = func() ([]byte, []byte, error) { return nil, nil, errors.New("no authority") }
	now = now.Add(40 * 24 * time.Hour)
	if pair, err := m.Certificate(); err != nil || pair.Leaf.SerialNumber.Int64() != made {
		t.Errorf("the old certificate does not stay: %v, %v", pair, err)
	}
	if _, err := NewMade(m.o).Certificate(); err == nil {
		t.Error("no certificate, and no error")
	}
}
