package main

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
	"time"

	"golang.org/x/time/rate"
)

// traffic counts the requests by kind, and the bytes of bodies each way, without headers.
type traffic struct {
	Requests map[string]int64
	Up, Down int64
	Failed   int64 // responses of 400 and above, except 404 and 412
}

// total returns the number of requests of the given kinds, or of all.
func (t traffic) total(kinds ...string) int64 {
	var n int64
	if len(kinds) == 0 {
		for _, c := range t.Requests {
			n += c
		}
	}
	for _, k := range kinds {
		n += t.Requests[k]
	}
	return n
}

// counter is a counting reverse proxy in front of the S3 server.
type counter struct {
	up, down, failed atomic.Int64
	mu               sync.Mutex
	requests         map[string]int64
	line             atomic.Pointer[line] // nil: none
}

// line is a long line to the server. It models neither congestion nor slow start.
type line struct {
	delay time.Duration // for each request to arrive
	rate  *rate.Limiter // bytes per second, shared by all connections downwards
}

// lay puts a line with 100 ms and 1 Gbit/s in front of the server, until take is called.
func (c *counter) lay() (take func()) {
	c.line.Store(&line{delay: 100 * time.Millisecond, rate: rate.NewLimiter(125_000_000, 256<<10)})
	return func() { c.line.Store(nil) }
}

func (c *counter) reset() {
	c.mu.Lock()
	c.requests = map[string]int64{}
	c.mu.Unlock()
	c.up.Store(0)
	c.down.Store(0)
	c.failed.Store(0)
}

func (c *counter) read() traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := traffic{Requests: map[string]int64{}, Up: c.up.Load(), Down: c.down.Load(), Failed: c.failed.Load()}
	for k, n := range c.requests {
		t.Requests[k] = n
	}
	return t
}

// kind returns the name of a request's kind as in a bill.
func kind(r *http.Request) string {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && (q.Has("list-type") || q.Has("prefix") || q.Has("versions") || q.Has("uploads")):
		return "LIST"
	case r.Method == http.MethodGet && key == "" && len(q) == 0:
		return "LIST" // of buckets, or of a bucket in protocol version 1
	default:
		return r.Method
	}
}

// serve runs the proxy for target until ctx ends. It returns its address and a function that waits for its end.
func (c *counter) serve(ctx context.Context, target string) (addr string, wait func() error, err error) {
	to, err := url.Parse(target)
	if err != nil {
		return "", nil, fmt.Errorf("start the counting proxy before %s: %w", target, err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // the signature covers it
		},
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 512, DisableCompression: true, ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10,
		},
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 256<<10) }}},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode >= 400 && r.StatusCode != http.StatusNotFound && r.StatusCode != http.StatusPreconditionFailed {
				c.failed.Add(1)
			}
			body := &counted{ReadCloser: r.Body, n: &c.down, ctx: ctx}
			if l := c.line.Load(); l != nil {
				body.limit = l.rate
			}
			r.Body = body
			return nil
		},
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("start the counting proxy: %w", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.requests[kind(r)]++
		c.mu.Unlock()
		if l := c.line.Load(); l != nil {
			select {
			case <-time.After(l.delay):
			case <-r.Context().Done():
			}
		}
		r.Body = &counted{ReadCloser: r.Body, n: &c.up}
		proxy.ServeHTTP(w, r)
	}), ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return l.Addr().String(), func() error {
		err := srv.Close()
		if e := <-done; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}

// counted adds the bytes read through it to n, at the shared rate if there is one.
type counted struct {
	io.ReadCloser
	n     *atomic.Int64
	limit *rate.Limiter
	ctx   context.Context // of the proxy: no other context reaches the code that reads the body
}

func (c *counted) Read(p []byte) (int, error) {
	if c.limit != nil {
		p = p[:min(len(p), c.limit.Burst())]
	}
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	if c.limit != nil && n > 0 {
		if e := c.limit.WaitN(c.ctx, n); e != nil {
			return n, e
		}
	}
	return n, err
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) } //nolint:staticcheck // one allocation of a slice header per request
