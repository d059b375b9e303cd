package pains

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// from passes the nth request and all later ones to f instead of the server.
func from(nth int64, f http.HandlerFunc) s3test.Fault {
	return func(next http.Handler) http.Handler {
		var seen atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if seen.Add(1) >= nth {
				f(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// puts passes PUTs of objects whose URL contains part to f instead of the server.
func puts(part string, f http.HandlerFunc) s3test.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, part) {
				f(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func forbidden(w http.ResponseWriter, _ *http.Request) {
	s3test.S3Error(w, http.StatusForbidden, "AccessDenied", "Access Denied")
}

// silent never answers.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// emptied answers every request with 404, as a bucket does for missing objects.
func emptied(w http.ResponseWriter, _ *http.Request) {
	s3test.S3Error(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
}

// impatient opens a bucket with short timeouts, so that a server that never answers fails soon.
func impatient(t testing.TB, b s3test.Bucket) bucket.Store {
	t.Helper()
	o := b.Options()
	o.MaxAttempts, o.Stall = 2, 500*time.Millisecond // a busy machine answers within that
	return testbed.OpenStore(t, b.URL(""), o)
}

// observer is called before each change that a run makes to a folder.
type observer func(durable.Op) error

func (o observer) Before(op durable.Op) error { return o(op) }

// flips is a fault that flips one bit in the middle of the first response to each distinct request.
type flips struct {
	mu   sync.Mutex
	seen map[string]bool
	hits int
	hit  func(r *http.Request) bool // nil: all
}

func (f *flips) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + r.URL.Path + r.Header.Get("Range")
		f.mu.Lock()
		first := r.Method == http.MethodGet && !f.seen[key] && (f.hit == nil || f.hit(r))
		if first {
			f.seen[key] = true
		}
		f.mu.Unlock()
		if !first {
			next.ServeHTTP(w, r)
			return
		}
		b := &body{ResponseWriter: w}
		next.ServeHTTP(b, r)
		if len(b.bytes) > 0 && b.status < 300 {
			b.bytes[len(b.bytes)/2] ^= 0x10
			f.mu.Lock()
			f.hits++
			f.mu.Unlock()
		}
		w.WriteHeader(b.status)
		_, _ = w.Write(b.bytes)
	})
}

// body buffers a response until it is complete.
type body struct {
	http.ResponseWriter
	status int
	bytes  []byte
}

func (b *body) WriteHeader(status int) { b.status = status }

func (b *body) Write(p []byte) (int, error) {
	if b.status == 0 {
		b.status = http.StatusOK
	}
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}
