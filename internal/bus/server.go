package bus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	startTimeout = 10 * time.Second
	// handshake suits sites behind slow lines; the default of 2 s disconnects them.
	handshake = 30 * time.Second
	// writeDeadline lets the largest message reach a site over 256 kbit/s.
	writeDeadline = 60 * time.Second
	// maxPending bounds the server's buffer for one client that does not read, in bytes: eight of
	// the largest messages.
	maxPending = 8 * MaxPayload
	// pingEvery keeps idle connections alive in firewalls; it costs under 2 bytes/s.
	pingEvery = 90 * time.Second
)

// ServerOptions configure the embedded server.
type ServerOptions struct {
	Name          string // of this server, for people
	Addr          string // host:port for TLS; port 0 takes a free one; empty: only WebSocket
	WebSocketAddr string // host:port for WebSocket over TLS; empty: no WebSocket
	// Certificate returns the server's certificate. It is called at every handshake, so renewal
	// needs no restart.
	Certificate    func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Authority      *Authority
	MaxConnections int // with those that show no credential yet; 0: 16384, or three quarters of the process's descriptors if that is less
	// Log receives the server's log lines, without control characters and secrets. Many goroutines may call it
	// at once. Nil: lines are dropped.
	Log func(Level, string)
	// Refused receives, besides Log, each line of that level and the content of the credential shown. Its
	// issuer signed the credential, but anyone may be the issuer. Nil: no readable credential was shown.
	Refused func(text string, shown *Grant)
}

// Level is the severity of a line of the server's log.
type Level int

// Levels of the server's log.
const (
	Info    Level = iota
	Warning       // a client was slow or disconnected
	Error         // the server could not do something
	Refused       // a client tried something forbidden: identity, permission
)

// Server is the embedded NATS server.
type Server struct {
	ns        *server.Server
	account   string
	operator  string
	resolver  *server.MemAccResolver
	mu        sync.Mutex // one update at a time
	tls, wss  string
	closeOnce sync.Once
	guard     guard
}

// Start starts the server and returns when it accepts connections.
func Start(o ServerOptions) (*Server, error) {
	if o.Authority == nil || o.Certificate == nil {
		return nil, errors.New("start the bus: an authority and a certificate are needed")
	}
	operator, err := o.Authority.operatorClaims()
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	account, err := o.Authority.accountJWT()
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	s := &Server{account: o.Authority.account, operator: operator.SigningKeys[0], resolver: &server.MemAccResolver{}}
	if err := s.resolver.Store(s.account, account); err != nil {
		return nil, fmt.Errorf("start the bus: keep the account: %w", err)
	}
	opts, err := o.natsOptions(operator, s.resolver)
	if err != nil {
		return nil, err
	}
	if s.ns, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	if o.Log != nil {
		s.ns.SetLoggerV2(logger{o.Log, o.Refused, s.ns}, false, false, false)
	}
	s.ns.Start()
	s.guard.start(s.ns, opts.MaxConn)
	if !s.ns.ReadyForConnections(startTimeout) {
		s.Close()
		return nil, fmt.Errorf("start the bus on %q and %q: is the address in use, or not this machine's?", o.Addr, o.WebSocketAddr)
	}
	if o.Addr != "" {
		s.tls = s.ns.Addr().String()
	}
	if o.WebSocketAddr != "" {
		// Its PortsInfo would wait for a listener that Addr may have left out.
		s.wss = strings.TrimPrefix(s.ns.WebsocketURL(), "wss://")
	}
	return s, nil
}

// Addr returns the address of the TLS listener; empty if there is none.
func (s *Server) Addr() string { return s.tls }

// WebSocketAddr returns the address of the WebSocket listener; empty if there is none.
func (s *Server) WebSocketAddr() string { return s.wss }

// Connections returns the number of connected clients, including the Core's own.
func (s *Server) Connections() int { return s.ns.NumClients() }

// Update replaces the authority. It disconnects revoked users and users of removed domain keys before it returns;
// others are not affected. The new authority must have the same account and operator.
func (s *Server) Update(a *Authority) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	operator, err := a.operator.PublicKey()
	if err != nil {
		return fmt.Errorf("update the bus: read the operator's key: %w", err)
	}
	if a.account != s.account || operator != s.operator {
		return errors.New("update the bus: the account or operator is another: restart the Core")
	}
	token, err := a.accountJWT()
	if err != nil {
		return fmt.Errorf("update the bus: %w", err)
	}
	// The server compares scopes deeply with those that it decoded before, so the new ones are
	// encoded and decoded first.
	claims, err := jwt.DecodeAccountClaims(token)
	if err != nil {
		return fmt.Errorf("update the bus: %w", err)
	}
	acc, err := s.ns.LookupAccount(s.account)
	if err != nil {
		return fmt.Errorf("update the bus: look up the account: %w", err)
	}
	if err := s.resolver.Store(s.account, token); err != nil {
		return fmt.Errorf("update the bus: keep the account: %w", err)
	}
	s.ns.UpdateAccountClaims(acc, claims)
	return nil
}

// KeepNewest closes all connections of a user but the newest.
func (s *Server) KeepNewest(public string) error {
	list, err := s.ns.Connz(&server.ConnzOptions{Username: true, User: public, Sort: server.ByStart})
	if err != nil {
		return fmt.Errorf("list the connections of a user: %w", err)
	}
	for i := 0; i+1 < len(list.Conns); i++ {
		_ = s.ns.DisconnectClientByID(list.Conns[i].Cid) // an error: it has already ended
	}
	return nil
}

// Close ends all connections and waits until the server is down.
func (s *Server) Close() {
	s.closeOnce.Do(func() {
		s.guard.stop()
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	})
}

func (o ServerOptions) natsOptions(operator *jwt.OperatorClaims, resolver server.AccountResolver) (*server.Options, error) {
	var host string
	var port int
	var err error
	if o.Addr != "" || o.WebSocketAddr == "" {
		if host, port, err = splitAddress(o.Addr); err != nil {
			return nil, err
		}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: o.Certificate}
	opts := &server.Options{
		ServerName: o.Name, Host: host, Port: port, DontListen: o.Addr == "",
		NoSigs: true, NoLog: o.Log == nil,
		// No system account: its subjects do not even exist.
		NoSystemAccount: true, TrustedOperators: []*jwt.OperatorClaims{operator}, AccountResolver: resolver,
		// TLS first: the server sends nothing before the TLS handshake.
		TLS: true, TLSConfig: conf, TLSHandshakeFirst: true, TLSTimeout: handshake.Seconds(), AuthTimeout: handshake.Seconds(),
		// Headers could carry commands to the server, such as to trace a message to another's
		// subject.
		NoHeaderSupport: true,
		MaxConn:         o.MaxConnections, MaxPayload: MaxPayload, MaxPending: maxPending, MaxControlLine: server.MAX_CONTROL_LINE_SIZE,
		WriteDeadline: writeDeadline, PingInterval: pingEvery, MaxPingsOut: 2,
		// One slow site must not delay the Core's messages to the others.
		NoFastProducerStall: true,
	}
	if opts.MaxConn == 0 {
		opts.MaxConn = defaultConnections()
	}
	if o.WebSocketAddr != "" {
		if host, port, err = splitAddress(o.WebSocketAddr); err != nil {
			return nil, err
		}
		opts.Websocket = server.WebsocketOpts{
			Host: host, Port: port, TLSConfig: conf.Clone(), HandshakeTimeout: handshake, AuthTimeout: handshake.Seconds(),
		}
	}
	return opts, nil
}

func splitAddress(addr string) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("start the bus on %q: write it as host:port: %w", addr, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("start the bus on %q: the port is a number up to 65535", addr)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}
