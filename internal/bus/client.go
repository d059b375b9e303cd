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
	URL  string // of the server, without credentials; empty if unknown
	Err  error  // nil for Connected
}

// EventKind is the kind of an Event.
type EventKind int

// Kinds of events.
const (
	Connected EventKind = iota // also after every reconnect: the handler must resend its state
	Lost                       // the connection ended; the client keeps trying
	Failed                     // an attempt to connect failed; the client keeps trying
	Unwelcome                  // the server rejects this identity: revoked, expired, unknown; the client keeps trying
	Denied                     // a subject was refused
	Limited                    // the server lets this identity subscribe to nothing: its signing key has no scope
	Slow                       // the handler was too slow, and messages were dropped
	Closed                     // by Close
)

func (k EventKind) String() string {
	return [...]string{"connected", "lost", "failed", "unwelcome", "denied", "limited", "slow", "closed"}[min(k, Closed)]
}

// Errors that callers distinguish.
var (
	ErrAway      = errors.New("not connected")                                      // there is no connection now
	ErrLimited   = errors.New("the server lets this identity subscribe to nothing") // the error of Dial if the connection is Limited from the start
	ErrUnwelcome = errors.New("the server refuses this identity")                   // the error of Dial if the identity is Unwelcome
)

// ClientOptions name the server and the identity. Our own server needs URLs, Pins, JWT and Seed. The server in this
// process needs Server, JWT and Seed. A foreign NATS cluster needs URLs and CredsFile.
type ClientOptions struct {
	// URLs are tls://host:port and wss://host:port. For our own server, the client tries them in this order,
	// starting with the last that worked. The URLs of a foreign cluster must share one scheme.
	URLs []string
	// Pins are the fingerprints of certificate authorities in which the server's chain may end: one, or two while
	// the authority is being replaced. With Pins, system roots are ignored.
	Pins []Pin
	// JWT is called at every connect, so that a renewed JWT is used.
	JWT func() (string, error)
	// Seed is the identity's secret; it signs the server's nonce.
	Seed []byte
	// Server connects within this process.
	Server *Server
	// CredsFile holds JWT and seed for a foreign cluster; it is read at every connect. The server's certificate
	// is checked against Roots (nil: the system's).
	CredsFile string
	Roots     *x509.CertPool
	// TLSFirst is for a foreign cluster that does TLS before its greeting, as sites need it. It has
	// no effect on wss://.
	TLSFirst bool

	Name string // for the server's log
	// Env finds HTTPS_PROXY, ALL_PROXY and NO_PROXY, also in lower case. Nil: no proxy.
	Env func(string) string
	// Background makes Dial return at once and keep trying after any failure.
	Background bool
	// OnEvent is called with one event at a time. It must not call Close. Nil: events are dropped.
	OnEvent func(Event)
	// Pending bounds the messages queued for a subscription's handler, in bytes; 0: 16 MiB.
	Pending    int
	Timeout    time.Duration    // of an attempt at one URL; 0: 20 s
	MaxBackoff time.Duration    // between attempts; 0: 60 s
	Now        func() time.Time // for certificates; nil: the machine's clock
}

// Client is a connection that reconnects by itself. It is safe for concurrent use.
type Client struct {
	stop    context.CancelFunc // ends attempts to connect
	pending int
	wait    time.Duration
	closed  chan struct{}
	dialer  *dialer

	telling sync.Mutex // one event at a time

	mu      sync.Mutex
	nc      *nats.Conn // nil until Dial sets it
	over    bool
	running sync.WaitGroup // handlers
}

// Dial connects. Without Background, it fails if the first attempt at all URLs fails, or when ctx
// ends.
func Dial(ctx context.Context, o ClientOptions) (*Client, error) {
	o.setDefaults()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{stop: stop, pending: o.Pending, wait: o.Timeout, closed: make(chan struct{})}
	opts, err := c.natsOptions(life, &o)
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
		if cause := c.dialer.lastError(); errors.Is(err, nats.ErrNoServers) && cause != nil {
			err = cause // the library hides that a connection was refused
		}
		if strings.Contains(err.Error(), nats.MAX_SUBSCRIPTIONS_ERR) { // while connecting, the library turns the error into text
			err = fmt.Errorf("%w: %w", ErrLimited, err)
		}
		if eventKind(err, Failed) == Unwelcome {
			err = fmt.Errorf("%w: %w", ErrUnwelcome, err)
		}
		return nil, fmt.Errorf("connect to the Core at %s: %w", strings.Join(o.URLs, ", "), errors.Join(ctx.Err(), err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = nc
	return c, nil
}

func (o *ClientOptions) setDefaults() {
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

// natsOptions returns the options of the NATS library.
func (c *Client) natsOptions(life context.Context, o *ClientOptions) (*nats.Options, error) {
	n := nats.GetDefaultOptions()
	n.Name = o.Name
	n.Timeout = o.Timeout
	n.AllowReconnect, n.MaxReconnect = true, -1
	n.RetryOnFailedConnect = o.Background
	// An identity that is refused today may be renewed tomorrow.
	n.IgnoreAuthErrorAbort = true
	n.IgnoreDiscoveredServers = true
	n.SkipHostLookup = true // the dialer, or its proxy, looks names up
	n.ReconnectBufSize = -1 // buffered messages would be stale when they arrive
	n.PingInterval, n.MaxPingsOut = pingEvery, 2
	d := &dialer{o: o, life: life}
	c.dialer = d
	c.handleEvents(&n, o, d)

	switch {
	case o.CredsFile != "":
		if err := d.configureForeign(&n); err != nil {
			return nil, err
		}
		return &n, nats.UserCredentials(o.CredsFile)(&n)
	case o.Server != nil:
		n.InProcessServer = o.Server.ns
	default:
		if err := d.checkOptions(); err != nil {
			return nil, err
		}
		// The dialer knows all addresses and returns connections after TLS: the library sees one
		// server.
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

// isNonce accepts only the nonces of NATS servers: a few characters of base64.
// The same key signs messages. Their signed form is binary, so no server can
// obtain a signature that is valid for a message.
func isNonce(b []byte) bool {
	return len(b) > 0 && len(b) <= 64 && !bytes.ContainsFunc(b, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_+/=", r)
	})
}

// handleEvents converts the library's callbacks to events.
func (c *Client) handleEvents(n *nats.Options, o *ClientOptions, d *dialer) {
	tell := func(kind EventKind, err error) {
		c.telling.Lock()
		defer c.telling.Unlock()
		o.OnEvent(Event{kind, d.lastServer(), err})
	}
	wait := backoffUpTo(o.MaxBackoff)
	n.CustomReconnectDelayCB = func(attempts int) time.Duration {
		// The library has no callback for an attempt that reached a server but got no useful reply.
		if nc := c.natsConn(); nc != nil && attempts > 1 {
			if err := nc.LastError(); err != nil && eventKind(err, Failed) == Failed {
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
	n.ReconnectErrCB = func(_ *nats.Conn, err error) { tell(eventKind(err, Failed), err) }
	n.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) {
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			tell(Slow, err)
		case errors.Is(err, nats.ErrPermissionViolation):
			tell(Denied, err)
		case errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
			tell(Limited, err)
		case eventKind(err, Failed) == Unwelcome:
			tell(Unwelcome, err) // now, or at an attempt to reconnect
		default:
			// The error that ends the connection is reported when it has ended.
		}
	}
	n.ClosedCB = func(*nats.Conn) {
		tell(Closed, nil)
		close(c.closed)
	}
}

// natsConn returns nil until Dial has the library's connection. In the background, the library may
// already be connecting.
func (c *Client) natsConn() *nats.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nc
}

// IsUnwelcome reports whether an error of Dial means that the server rejects the identity.
func IsUnwelcome(err error) bool { return eventKind(err, Failed) == Unwelcome }

// eventKind distinguishes a rejected identity from a failed connection.
func eventKind(err error, otherwise EventKind) EventKind {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, e) {
			return Unwelcome
		}
	}
	return otherwise
}

// backoffUpTo doubles from a second to the limit. Half of each wait is random, so that a fleet that lost its Core at one
// moment does not reconnect at one moment.
func backoffUpTo(limit time.Duration) func(int) time.Duration {
	return func(attempts int) time.Duration {
		d := min(limit, time.Second<<min(max(attempts-1, 0), 20))
		return d/2 + rand.N(d/2+1)
	}
}

// leastPayload is the size in bytes that any server must accept. A smaller limit is transient.
const leastPayload = 64 << 10

// Publish sends data of at most MaxPayload bytes, or the limit of a foreign cluster. While
// disconnected it fails with ErrAway and keeps nothing.
func (c *Client) Publish(subject string, data []byte) error {
	err := c.nc.Publish(subject, data)
	if errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed) {
		err = ErrAway
	}
	if errors.Is(err, nats.ErrMaxPayload) && c.nc.MaxPayload() < leastPayload {
		// A server whose account has just changed rejects all messages for a moment.
		_ = c.nc.ForceReconnect() // fails only when the client is closed
		err = ErrAway
	}
	if err != nil {
		return fmt.Errorf("publish %d bytes on %q: %w", len(data), subject, err)
	}
	return nil
}

// Subscribe calls the handler for one message at a time, also after reconnects. The handler may
// keep data.
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
		handler(m.Subject, m.Data) // never the reply subject: answers go to the sender named by the subject
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, c.pending)
	}
	if err != nil {
		return fmt.Errorf("subscribe to %q: %w", subject, err)
	}
	return nil
}

// Flush returns when the server has received all published messages, or when ctx ends. Without a deadline, the
// timeout of one attempt applies.
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

// SetURLs replaces the addresses of our own server. The next attempt to connect
// uses them; the current connection stays.
func (c *Client) SetURLs(urls []string) error { return c.dialer.setURLs(urls) }

// Close ends the connection. It waits for running handlers, so a handler must not call it.
func (c *Client) Close() {
	c.stop()
	c.nc.Close()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.running.Wait()
	<-c.closed
}
