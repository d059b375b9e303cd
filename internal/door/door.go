// Package door is a TLS listener for HTTP: its certificate, the host names by which clients may ask for it, and the bounds
// that keep clients from exhausting the process. It knows nothing about what is served.
package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options of Listen and Serve.
type Options struct {
	Addr  string   // host:port
	Hosts []string // host names and addresses by which clients may ask; lower case
	// Certificate returns the certificate in force. It is called for each handshake.
	Certificate func() (*tls.Certificate, error)
	// Server is the server's base, for its error log; Serve sets the rest. Nil: a new one.
	Server *http.Server

	maxAll, maxEach int // 0: the constants; tests choose others
}

// Bounds of a connection.
const (
	headerWithin = 10 * time.Second // also for the handshake
	idleWithin   = 2 * time.Minute
	writeWithin  = 30 * time.Second // for a connection that takes nothing
	pingAfter    = time.Minute
	maxHeader    = 32 << 10 // bytes
	maxStreams   = 100      // requests under way on a connection
	maxAll       = 1024     // connections
	maxEach      = 256      // connections from one address
)

// PortError means that the address cannot be listened on.
type PortError struct {
	Addr string
	Err  error
}

func (e *PortError) Error() string {
	return fmt.Sprintf("listen for the console on %s: %v", e.Addr, e.Err)
}
func (e *PortError) Unwrap() error { return e.Err }

// Remedy names the setting.
func (e *PortError) Remedy() string {
	return "end the other program on that port, or change listen.console in the configuration, or set it to off; ports below 1024 need a right of their own (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
}

// Listen opens the port. It fails if no certificate can be used.
func Listen(o Options) (net.Listener, error) {
	if _, err := o.Certificate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, &PortError{o.Addr, err}
	}
	if o.maxAll == 0 {
		o.maxAll, o.maxEach = maxAll, maxEach
	}
	return newBounded(l, o.maxAll, o.maxEach), nil
}

// Serve answers on l until ctx ends, and closes it. The context of requests ends with ctx; those that do not end within
// some seconds are cut off.
func Serve(ctx context.Context, l net.Listener, h http.Handler, o Options) error {
	s := o.Server
	if s == nil {
		s = &http.Server{}
	}
	s.Handler = checkHost(o.Hosts, h)
	s.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.Certificate() },
	}
	s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes = headerWithin, idleWithin, maxHeader
	s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: writeWithin, SendPingTimeout: pingAfter}
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the console: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	if err != nil {
		err = s.Close()
	}
	if e := <-done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// checkHost refuses a request for a host that is not this server's: a page of another site, whose name an attacker has
// pointed to this address, would otherwise be of one origin with it.
func checkHost(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(hosts, hostOf(r.Host)) {
			w.Header().Set("Connection", "close")
			http.Error(w, "this is not a name of this Core: use the address in listen.console.url of its configuration", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf returns the host of a Host header, without its port.
func hostOf(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	}
	return strings.ToLower(host)
}
