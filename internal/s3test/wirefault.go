package s3test

import (
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"nightferry/internal/testbed"
)

// S3Error writes an S3 error response.
func S3Error(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "TESTBED0000")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>%s</Message><RequestId>TESTBED0000</RequestId></Error>", xml.Header, code, message)
}

// first passes the first n requests of a kind ("" for any; n < 0 for all) to f, and all others to the next layer.
func first(n int64, kind string, f func(next http.Handler, w http.ResponseWriter, r *http.Request)) Fault {
	return func(next http.Handler) http.Handler {
		var seen atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if (kind == "" || RequestKind(r) == kind) && (n < 0 || seen.Add(1) <= n) {
				f(next, w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Refuse answers the first n requests of a kind with an S3 error.
func Refuse(n int64, kind string, status int, code, message string) Fault {
	return first(n, kind, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) { S3Error(w, status, code, message) })
}

// SlowDown throttles the first n requests.
func SlowDown(n int64) Fault {
	return Refuse(n, "", http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
}

// LoseAnswer executes the first n requests of a kind, but resets the connection instead of sending the response.
func LoseAnswer(n int64, kind string) Fault {
	return first(n, kind, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(discard{http.Header{}}, r)
		reset(w)
	})
}

// CutBody resets the connection of the first n GETs after the given number of bytes of their bodies.
func CutBody(n, after int64) Fault {
	return first(n, KindGet, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: after}, r)
	})
}

// Hang holds the first n requests of a kind without a response until release is closed.
func Hang(n int64, kind string, release <-chan struct{}) Fault {
	return first(n, kind, func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		reset(w)
	})
}

// HangBody stops the bodies of the first n GETs after the given number of bytes, until release is closed.
func HangBody(n, after int64, release <-chan struct{}) Fault {
	return first(n, KindGet, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: after, wait: release, gone: r.Context().Done()}, r)
	})
}

// FlipBody flips one bit of the bodies of the first n GETs, at byte offset at of each body that is long enough.
func FlipBody(n, at int64) Fault {
	return first(n, KindGet, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&flipWriter{ResponseWriter: w, left: at}, r)
	})
}

// FlipUpload flips one bit of the bodies of the first n PUTs.
func FlipUpload(n, at int64) Fault {
	return first(n, KindPut, func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		r.Body = testbed.FlipBody(r.Body, at)
		next.ServeHTTP(w, r)
	})
}

// reset ends the connection with a TCP RST, so that the client sees an abort and not an end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

type cutWriter struct {
	http.ResponseWriter
	left int64
	wait <-chan struct{} // hang here first, if not nil
	gone <-chan struct{}
	cut  bool // the connection was hijacked
}

// FlushError prevents the reverse proxy's timer, which may wait for this Write to end, from flushing a response whose
// connection was hijacked.
func (c *cutWriter) FlushError() error {
	if c.cut {
		return http.ErrAbortHandler
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) <= c.left {
		c.left -= int64(len(p))
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	if c.wait != nil {
		select {
		case <-c.wait:
		case <-c.gone:
		}
	}
	c.cut = true
	reset(c.ResponseWriter)
	panic(http.ErrAbortHandler)
}

func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

type flipWriter struct {
	http.ResponseWriter
	left int64
}

func (f *flipWriter) Write(p []byte) (int, error) {
	testbed.FlipOnce(p, &f.left)
	return f.ResponseWriter.Write(p)
}

func (f *flipWriter) Unwrap() http.ResponseWriter { return f.ResponseWriter }
