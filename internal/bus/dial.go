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

// ErrPin says that the server's certificate does not come from the pinned authority.
var ErrPin = errors.New("the server's certificate is not from the Core's own authority (it may be another server, or a proxy that opens TLS)")

// dialer makes connections for the library, which asks for one at a time. The library cannot fall back from TLS to
// WebSocket, nor check a pin, nor talk to proxies: all that happens here, before it says a word.
type dialer struct {
	o    *ClientOptions
	urls []*url.URL
	// life ends with the client; the library's interface has no context.
	life context.Context

	mu     sync.Mutex // of urls, too
	last   int        // index of the URL that worked last
	failed error      // why the last attempt made no connection
}

func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

func (d *dialer) fail(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	return err
}

// at names the server that was reached last.
func (d *dialer) at() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.urls) == 0 {
		return ""
	}
	return d.urls[d.last].Redacted()
}

func (d *dialer) check() error {
	if len(d.o.Pins) == 0 {
		return errors.New("no fingerprint of the Core's certificate authority is given")
	}
	return d.parse(d.o.URLs)
}

// parse takes other URLs, and begins with the one that worked last, if that is
// among them.
func (d *dialer) parse(list []string) error {
	if len(list) == 0 {
		return errors.New("no address is given")
	}
	var urls []*url.URL
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil || u.User != nil || u.Hostname() == "" || (u.Scheme != "tls" && u.Scheme != "wss") {
			return errors.New("an address is not of the form tls://host:port or wss://host:port") // it may hold a password
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

// Dial tries every URL once. The library's own address is a placeholder.
func (d *dialer) Dial(string, string) (net.Conn, error) {
	d.mu.Lock()
	first, urls := d.last, d.urls
	d.mu.Unlock()
	var errs []error
	for i := range urls {
		at := (first + i) % len(urls)
		conn, err := d.open(urls[at])
		if err == nil {
			d.mu.Lock()
			d.last = max(0, slices.Index(d.urls, urls[at])) // they may be others by now
			d.mu.Unlock()
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", urls[at].Redacted(), err))
	}
	return nil, d.fail(errors.Join(errs...))
}

// SkipTLSHandshake tells the library that these connections are past it.
func (d *dialer) SkipTLSHandshake() bool { return true }

func (d *dialer) open(u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.life, d.o.Timeout)
	defer cancel()
	raw, err := dialVia(ctx, u.Host, d.o.Env)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.pinned(u.Hostname()))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if u.Scheme != "wss" {
		return conn, nil
	}
	ws, err := upgrade(ctx, conn, u)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return ws, nil
}

// pinned checks that the chain which the server shows ends in a pinned authority, is of this host, and in force.
func (d *dialer) pinned(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The usual check needs the authority's certificate, of which a site knows only the fingerprint: the check below
		// takes its place, and comes before a byte of ours is sent.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return d.verify(host, cs.PeerCertificates) },
	}
}

func (d *dialer) verify(host string, chain []*x509.Certificate) error {
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
			return ErrPin // the authority's certificate was shown, but it did not sign this one
		}
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}

// foreign sets the library up for a cluster that is not ours: there TLS comes after the server's greeting, so the
// library does it, and this only dials.
func (d *dialer) foreign(n *nats.Options) error {
	if err := d.parse(d.o.URLs); err != nil {
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
	d.urls = nil // which of them it is, only the library knows
	return nil
}

// plainDialer leaves TLS to the library.
type plainDialer struct{ d *dialer }

func (p plainDialer) Dial(_, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.d.life, p.d.o.Timeout)
	defer cancel()
	conn, err := dialVia(ctx, address, p.d.o.Env)
	return conn, p.d.fail(err)
}

func env(get func(string) string, names ...string) string {
	for _, n := range names {
		for _, n := range []string{n, strings.ToLower(n)} {
			if v := get(n); v != "" {
				return v
			}
		}
	}
	return ""
}
