package s3test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/testbed"
)

// Kind of an S3 request, as it is billed.
const (
	KindGet    = "GET"
	KindHead   = "HEAD"
	KindPut    = "PUT"
	KindDelete = "DELETE"
	KindList   = "LIST"
	KindOther  = "OTHER"
)

// WireCounts are the counts of the traffic.
type WireCounts struct {
	Kinds    map[string]int64 // requests by kind, without zero entries
	Up, Down int64            // bytes of bodies, retries included
	Failed   int64            // responses with status 400 and above
}

// Requests returns the number of requests of all kinds.
func (c WireCounts) Requests() int64 {
	var n int64
	for _, v := range c.Kinds {
		n += v
	}
	return n
}

func (c WireCounts) String() string {
	return fmt.Sprintf("%v, %d bytes up, %d down, %d failed", c.Kinds, c.Up, c.Down, c.Failed)
}

// Wire is a reverse proxy in front of a server that counts the real requests of all clients.
type Wire struct {
	Endpoint string
	srv      *http.Server
	idle     func() // closes idle connections to the server, which would delay its stop
	mu       sync.Mutex
	kinds    map[string]int64
	up, down atomic.Int64
	failed   atomic.Int64
}

// Fault is a layer in front of the server that may answer instead of the server or break the connection.
type Fault func(next http.Handler) http.Handler

// StartWire starts a proxy for endpoint on a loopback port. Requests are counted and then pass the faults in order.
func StartWire(endpoint string, faults ...Fault) (*Wire, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("start a counting proxy: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a counting proxy: %w", err)
	}
	w := &Wire{Endpoint: "http://" + l.Addr().String(), kinds: map[string]int64{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ExpectContinueTimeout: time.Second,
		ReadBufferSize: 128 << 10, WriteBufferSize: 128 << 10}
	var h http.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the signature covers it
		},
		Transport:     transport,
		BufferPool:    &buffers{},
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	for i := len(faults) - 1; i >= 0; i-- {
		h = faults[i](h)
	}
	w.srv = &http.Server{Handler: w.count(h), ReadHeaderTimeout: time.Minute, ConnContext: shallow}
	w.idle = transport.CloseIdleConnections
	go func() { _ = w.srv.Serve(l) }()
	return w, nil
}

// shallow limits the write buffer, so that counted bytes do not stay in this machine's buffers. On loopback these grow
// to megabytes for a client that reads slowly.
func shallow(ctx context.Context, c net.Conn) context.Context {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(32 << 10) // a larger one only counts less exactly
	}
	return ctx
}

// Through returns the bucket of b as seen through a Wire, for one test.
func Through(t testing.TB, b Bucket, faults ...Fault) (Bucket, *Wire) {
	t.Helper()
	w, err := StartWire(b.Endpoint, faults...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	b.Endpoint = w.Endpoint
	return b, w
}

// CountHTTP is Through without faults.
func CountHTTP(t testing.TB, b Bucket) (Bucket, *Wire) { return Through(t, b) }

// Close stops the proxy at once.
func (w *Wire) Close() error {
	err := w.srv.Close()
	w.idle()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Counts returns the counts so far.
func (w *Wire) Counts() WireCounts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := WireCounts{Kinds: map[string]int64{}, Up: w.up.Load(), Down: w.down.Load(), Failed: w.failed.Load()}
	for k, v := range w.kinds {
		c.Kinds[k] = v
	}
	return c
}

// Reset sets the counts to zero and returns the previous ones.
func (w *Wire) Reset() WireCounts {
	c := w.Counts()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds = map[string]int64{}
	w.up.Store(0)
	w.down.Store(0)
	w.failed.Store(0)
	return c
}

func (w *Wire) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		kind := RequestKind(r)
		w.mu.Lock()
		w.kinds[kind]++
		w.mu.Unlock()
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = testbed.CountBody(r.Body, &w.up)
		}
		next.ServeHTTP(&countedWriter{ResponseWriter: rw, w: w}, r)
	})
}

// RequestKind returns the billed kind of a request to a path-style S3 endpoint.
func RequestKind(r *http.Request) string {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodHead:
		return KindHead
	case http.MethodPut:
		return KindPut
	case http.MethodDelete:
		return KindDelete
	case http.MethodGet:
		if q.Has("list-type") || q.Has("uploads") || q.Has("versions") || !strings.Contains(strings.Trim(r.URL.Path, "/"), "/") {
			return KindList
		}
		return KindGet
	case http.MethodPost:
		if q.Has("delete") {
			return KindDelete
		}
		return KindPut // the parts and the end of a multipart upload are billed as PUTs
	}
	return KindOther
}

type countedWriter struct {
	http.ResponseWriter
	w *Wire
}

func (c *countedWriter) WriteHeader(status int) {
	if status >= 400 {
		c.w.failed.Add(1)
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.w.down.Add(int64(n))
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 128<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

var _ io.Closer = (*Wire)(nil)
