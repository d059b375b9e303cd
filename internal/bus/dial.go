package bus

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// ErrPin means that the server's certificate does not come from the pinned authority.
var ErrPin = errors.New("the server's certificate is not from the Core's own authority (it may be another server, or a proxy that opens TLS)")

// dialer opens connections for the library, which requests one at a time. It falls back from TLS to WebSocket, checks
// the pin and uses proxies, none of which the library can do. It sends nothing before that.
type dialer struct {
	o    *ClientOptions
	urls []*url.URL
	// life ends with the client; the library's interface passes no context.
	life context.Context

	mu     sync.Mutex // also protects urls
	last   int        // index of the URL that worked last
	failed error      // why the last attempt failed
}

func (d *dialer) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

func (d *dialer) recordError(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	return err
}

// lastServer returns the server that was reached last.
func (d *dialer) lastServer() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.urls) == 0 {
		return ""
	}
	return d.urls[d.last].Redacted()
}

func (d *dialer) checkOptions() error {
	if len(d.o.Pins) == 0 {
		return errors.New("no fingerprint of the Core's certificate authority is given")
	}
	return d.setURLs(d.o.URLs)
}

// setURLs replaces the URLs. The next attempt starts with the URL that worked last, if it is still in the list.
func (d *dialer) setURLs(list []string) error {
	if len(list) == 0 {
		return errors.New("no address is given")
	}
	var urls []*url.URL
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil || u.User != nil || u.Hostname() == "" || (u.Scheme != "tls" && u.Scheme != "wss") {
			return errors.New("an address is not of the form tls://host:port or wss://host:port") // the address may contain a password
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"tls": "4222", "wss": "443"}[u.Scheme])
		}
		urls = append(urls, u)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	last := 0
	if len(d.urls) > 0 {
		last = max(0, slices.IndexFunc(urls, func(u *url.URL) bool { return *u == *d.urls[d.last] }))
	}
	d.urls, d.last = urls, last
	return nil
}

// Dial tries every URL once. The library's arguments are placeholders.
func (d *dialer) Dial(string, string) (net.Conn, error) {
	d.mu.Lock()
	first, urls := d.last, d.urls
	d.mu.Unlock()
	var errs []error
	for i := range urls {
		at := (first + i) % len(urls)
		conn, err := d.openConn(urls[at])
		if err == nil {
			d.mu.Lock()
			d.last = max(0, slices.Index(d.urls, urls[at])) // urls may have been replaced meanwhile
			d.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", urls[at].Redacted(), err))
	}
	return nil, d.recordError(errors.Join(errs...))
}

// SkipTLSHandshake reports to the library that TLS is already established.
func (d *dialer) SkipTLSHandshake() bool { return true }

func (d *dialer) openConn(u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.life, d.o.Timeout)
	defer cancel()
	raw, err := dialVia(ctx, u.Host, d.o.Env)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.pinnedTLS(u.Hostname()))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if u.Scheme != "wss" {
		return conn, nil
	}
	ws, err := upgradeWebSocket(ctx, conn, u)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return ws, nil
}

// pinnedTLS returns a TLS configuration that checks that the server's chain ends in a pinned authority, matches the host
// and is valid.
func (d *dialer) pinnedTLS(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The standard check needs the authority's certificate, but a site knows only its fingerprint. VerifyConnection
		// replaces the check and runs before any application data is sent.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return d.verifyChain(host, cs.PeerCertificates) },
	}
}

func (d *dialer) verifyChain(host string, chain []*x509.Certificate) error {
	v := x509.VerifyOptions{DNSName: host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	if d.o.Now != nil {
		v.CurrentTime = d.o.Now()
	}
	found := false
	for _, c := range chain[min(1, len(chain)):] {
		if c.IsCA && slices.Contains(d.o.Pins, Pin(sha256.Sum256(c.Raw))) {
			v.Roots.AddCert(c)
			found = true
		} else {
			v.Intermediates.AddCert(c)
		}
	}
	if !found {
		return ErrPin
	}
	if _, err := chain[0].Verify(v); err != nil {
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return ErrPin // the chain contains the authority's certificate, but it did not sign this one
		}
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}

// configureForeign configures the library for a foreign cluster. There TLS follows the server's greeting, so the library handles
// TLS and the dialer only connects.
func (d *dialer) configureForeign(n *nats.Options) error {
	if err := d.setURLs(d.o.URLs); err != nil {
		return err
	}
	for _, u := range d.urls {
		if u.Scheme != d.urls[0].Scheme {
			return errors.New("addresses of a cluster are all tls:// or all wss://")
		}
		n.Servers = append(n.Servers, u.String())
	}
	n.Secure, n.TLSHandshakeFirst = true, d.o.TLSFirst && d.urls[0].Scheme == "tls"
	n.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: d.o.Roots, Time: d.o.Now}
	n.CustomDialer = plainDialer{d}
	d.urls = nil // only the library knows which one is used
	return nil
}

// plainDialer connects and leaves TLS to the library.
type plainDialer struct{ d *dialer }

func (p plainDialer) Dial(_, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.d.life, p.d.o.Timeout)
	defer cancel()
	conn, err := dialVia(ctx, address, p.d.o.Env)
	return conn, p.d.recordError(err)
}

func firstEnv(get func(string) string, names ...string) string {
	for _, n := range names {
		for _, n := range []string{n, strings.ToLower(n)} {
			if v := get(n); v != "" {
				return v
			}
		}
	}
	return ""
}
