package bus

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Event is something that happened to a client's connection.
type Event struct {
	Kind EventKind
	URL  string // of the server, without credentials; empty where none is known
	Err  error  // nil for Connected
}

// EventKind is what happened.
type EventKind int

// Kinds of events.
const (
	Connected EventKind = iota // also after every reconnect: say again what should be so
	Lost                       // the connection ended; the client goes on trying
	Failed                     // an attempt to connect failed; the client goes on trying
	Unwelcome                  // the server does not take this identity: revoked, expired, unknown; the client goes on trying
	Denied                     // a subject was refused
	Limited                    // the server lets this identity subscribe to nothing: its signing key has no scope
	Slow                       // the handler was too slow, and messages were dropped
	Closed                     // by Close
)

func (k EventKind) String() string {
	return [...]string{"connected", "lost", "failed", "unwelcome", "denied", "limited", "slow", "closed"}[min(k, Closed)]
}

// Errors that callers tell apart.
var (
	ErrAway    = errors.New("not connected")                                      // there is no connection now
	ErrLimited = errors.New("the server lets this identity subscribe to nothing") // what Dial says of Limited, where it hears it first
)

// ClientOptions say to whom to connect, and as whom: to our own server by URLs, Pins, JWT and Seed; to the one in this
// process by Server, JWT and Seed; to a NATS cluster of one's own by URLs and CredsFile.
type ClientOptions struct {
	// URLs are tls://host:port and wss://host:port. To our own server they are tried in this order, beginning with the
	// last that worked; of one's own cluster all are of one scheme.
	URLs []string
	// Pins are the fingerprints of certificate authorities in which the server's chain may end: one, or two while the
	// authority is being replaced. System roots count for nothing then.
	Pins []Pin
	// JWT is asked at every connect, so that a renewed one is used.
	JWT func() (string, error)
	// Seed is the identity's secret; it signs the server's nonce.
	Seed []byte
	// Server connects within this process.
	Server *Server
	// CredsFile holds JWT and seed for one's own cluster; it is read at every connect. The server's certificate is
	// checked against Roots (nil: the system's).
	CredsFile string
	Roots     *x509.CertPool
	// TLSFirst is for a cluster of one's own that does TLS before its greeting, as sites need it. No matter for wss://.
	TLSFirst bool

	Name string // for the server's log
	// Env finds HTTPS_PROXY, ALL_PROXY and NO_PROXY, also in lower case. Nil: no proxy.
	Env func(string) string
	// Background makes Dial return at once and go on trying, whatever fails.
	Background bool
	// OnEvent is called one at a time. It must not call Close. Nil: nobody wants to know.
	OnEvent func(Event)
	// Pending bounds what waits for a subscription's handler, in bytes; 0: 16 MiB.
	Pending    int
	Timeout    time.Duration    // of an attempt at one URL; 0: 20 s
	MaxBackoff time.Duration    // between attempts; 0: 60 s
	Now        func() time.Time // for certificates; nil: the machine's clock
}

// Client is a connection that comes back by itself. It is safe for concurrent use.
type Client struct {
	stop    context.CancelFunc // ends attempts to connect
	pending int
	wait    time.Duration
	closed  chan struct{}
	dialer  *dialer

	telling sync.Mutex // one event at a time

	mu      sync.Mutex
	nc      *nats.Conn // nil until Dial has it
	over    bool
	running sync.WaitGroup // handlers
}

// Dial connects. Without Background, it fails when the first attempt at all URLs does, or when ctx ends.
func Dial(ctx context.Context, o ClientOptions) (*Client, error) {
	o.defaults()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{stop: stop, pending: o.Pending, wait: o.Timeout, closed: make(chan struct{})}
	opts, err := c.options(life, &o)
	if err != nil {
		stop()
		return nil, fmt.Errorf("connect to the Core: %w", err)
	}
	defer context.AfterFunc(ctx, func() {
		if !o.Background {
			stop()
		}
	})()
	nc, err := opts.Connect()
	if err != nil {
		stop()
		if cause := c.dialer.failure(); errors.Is(err, nats.ErrNoServers) && cause != nil {
			err = cause // the library keeps to itself that a connection was refused
		}
		if strings.Contains(err.Error(), nats.MAX_SUBSCRIPTIONS_ERR) { // while connecting, the library makes text of it
			err = fmt.Errorf("%w: %w", ErrLimited, err)
		}
		return nil, fmt.Errorf("connect to the Core at %s: %w", strings.Join(o.URLs, ", "), errors.Join(ctx.Err(), err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = nc
	return c, nil
}

func (o *ClientOptions) defaults() {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.Pending == 0 {
		o.Pending = 16 * MaxPayload
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = time.Minute
	}
}

// options are what the library needs to know.
func (c *Client) options(life context.Context, o *ClientOptions) (*nats.Options, error) {
	n := nats.GetDefaultOptions()
	n.Name = o.Name
	n.Timeout = o.Timeout
	n.AllowReconnect, n.MaxReconnect = true, -1
	n.RetryOnFailedConnect = o.Background
	// An identity that is refused today may be renewed tomorrow.
	n.IgnoreAuthErrorAbort = true
	n.IgnoreDiscoveredServers = true
	n.SkipHostLookup = true // the dialer, or its proxy, looks names up
	n.ReconnectBufSize = -1 // what is said meanwhile would be stale when it arrives
	n.PingInterval, n.MaxPingsOut = pingEvery, 2
	d := &dialer{o: o, life: life}
	c.dialer = d
	c.events(&n, o, d)

	switch {
	case o.CredsFile != "":
		if err := d.foreign(&n); err != nil {
			return nil, err
		}
		return &n, nats.UserCredentials(o.CredsFile)(&n)
	case o.Server != nil:
		n.InProcessServer = o.Server.ns
	default:
		if err := d.check(); err != nil {
			return nil, err
		}
		// The dialer knows all addresses, and hands over connections that are past TLS: to the library they are one server.
		n.Url, n.CustomDialer = "nats://core", d
	}
	if o.JWT == nil {
		return nil, errors.New("no JWT is given")
	}
	if _, err := Ed25519Of(o.Seed); err != nil {
		return nil, err
	}
	n.UserJWT = o.JWT
	n.SignatureCB = func(nonce []byte) ([]byte, error) {
		if !isNonce(nonce) {
			return nil, errors.New("sign the server's nonce: it is none: the server may want another text signed")
		}
		kp, err := nkeys.FromSeed(o.Seed)
		if err != nil {
			return nil, fmt.Errorf("sign the server's nonce: %w", err)
		}
		return kp.Sign(nonce)
	}
	return &n, nil
}

// isNonce accepts what a NATS server sends, a few characters of base64. The same
// key signs messages: their signed form is binary, so that no server gets a
// signature that is good for one.
func isNonce(b []byte) bool {
	return len(b) > 0 && len(b) <= 64 && !bytes.ContainsFunc(b, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_+/=", r)
	})
}

// events makes events of the library's callbacks.
func (c *Client) events(n *nats.Options, o *ClientOptions, d *dialer) {
	tell := func(kind EventKind, err error) {
		c.telling.Lock()
		defer c.telling.Unlock()
		o.OnEvent(Event{kind, d.at(), err})
	}
	wait := backoff(o.MaxBackoff)
	n.CustomReconnectDelayCB = func(attempts int) time.Duration {
		// An attempt that reached a server which then said nothing of use has no callback of its own.
		if nc := c.conn(); nc != nil && attempts > 1 {
			if err := nc.LastError(); err != nil && verdict(err, Failed) == Failed {
				tell(Failed, err)
			}
		}
		return wait(attempts)
	}
	up := func(*nats.Conn) { tell(Connected, nil) }
	n.ConnectedCB, n.ReconnectedCB = up, up
	n.DisconnectedErrCB = func(nc *nats.Conn, err error) {
		if err == nil {
			if err = nc.LastError(); err == nil {
				err = errors.New("the connection was closed")
			}
		}
		tell(Lost, err)
	}
	n.ReconnectErrCB = func(_ *nats.Conn, err error) { tell(verdict(err, Failed), err) }
	n.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) {
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			tell(Slow, err)
		case errors.Is(err, nats.ErrPermissionViolation):
			tell(Denied, err)
		case errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
			tell(Limited, err)
		case verdict(err, Failed) == Unwelcome:
			tell(Unwelcome, err) // now, or at an attempt to come back
		default:
			// What ends the connection is told when it has ended.
		}
	}
	n.ClosedCB = func(*nats.Conn) {
		tell(Closed, nil)
		close(c.closed)
	}
}

// conn is nil while Dial has not got the library's connection yet, which in the background already tries.
func (c *Client) conn() *nats.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nc
}

// verdict tells an identity that is not wanted from a connection that failed.
func verdict(err error, otherwise EventKind) EventKind {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, e) {
			return Unwelcome
		}
	}
	return otherwise
}

// backoff doubles from a second to the limit. Half of each wait is random, so that a fleet that lost its Core in one
// moment does not come back in one.
func backoff(limit time.Duration) func(int) time.Duration {
	return func(attempts int) time.Duration {
		d := min(limit, time.Second<<min(max(attempts-1, 0), 20))
		return d/2 + rand.N(d/2+1)
	}
}

// leastPayload is what any server must take in bytes: one that says less is not itself.
const leastPayload = 64 << 10

// Publish sends data of at most MaxPayload bytes, or what a foreign cluster allows. While the connection is away it fails with ErrAway and keeps nothing.
func (c *Client) Publish(subject string, data []byte) error {
	err := c.nc.Publish(subject, data)
	if errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed) {
		err = ErrAway
	}
	if errors.Is(err, nats.ErrMaxPayload) && c.nc.MaxPayload() < leastPayload {
		// A server whose account was just changed lets nothing through for a moment.
		_ = c.nc.ForceReconnect() // fails only when the client is closed
		err = ErrAway
	}
	if err != nil {
		return fmt.Errorf("publish %d bytes on %q: %w", len(data), subject, err)
	}
	return nil
}

// Subscribe calls the handler for one message after the other, also after reconnects. Data is the handler's to keep.
func (c *Client) Subscribe(subject string, handler func(subject string, data []byte)) error {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		c.mu.Lock()
		if c.over {
			c.mu.Unlock()
			return
		}
		c.running.Add(1)
		c.mu.Unlock()
		defer c.running.Done()
		handler(m.Subject, m.Data) // never the reply subject: answers go to who the subject says it was
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, c.pending)
	}
	if err != nil {
		return fmt.Errorf("subscribe to %q: %w", subject, err)
	}
	return nil
}

// Flush returns when the server has seen all that was published, or when ctx ends; without a deadline it takes the
// attempt's timeout.
func (c *Client) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	if !c.nc.IsConnected() {
		return fmt.Errorf("flush: %w", ErrAway)
	}
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// SetURLs replaces the addresses of our own server; the next attempt to connect
// uses them. The connection stays.
func (c *Client) SetURLs(urls []string) error { return c.dialer.parse(urls) }

// Close ends the connection. It waits for running handlers, and so must not be called from one.
func (c *Client) Close() {
	c.stop()
	c.nc.Close()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.running.Wait()
	<-c.closed
}
