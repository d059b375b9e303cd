package bucket

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// stallTransport fails a request on which no byte has moved for a while. A deadline for the whole request would abort
// large bodies on slow lines. A deadline on the socket would expire while a rate limit delays the reader. So a timer
// runs only while the network is active: not within reads of our own body, nor between reads of the response.
type stallTransport struct {
	next     http.RoundTripper
	after    time.Duration
	answered *atomic.Bool // set by the first response
}

// stallError reports itself as a timeout, so that the request is tried again.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string   { return "no byte moved for " + e.after.String() }
func (e *stallError) Timeout() bool   { return true }
func (e *stallError) Temporary() bool { return true }

func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	stalled := &stallError{t.after}
	w := &watch{after: t.after}
	w.timer = time.AfterFunc(t.after, func() { cancel(stalled) })

	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sentBody{req.Body, w}
		if get := req.GetBody; get != nil {
			req.GetBody = func() (io.ReadCloser, error) {
				b, err := get()
				if err != nil {
					return nil, err
				}
				return &sentBody{b, w}, nil
			}
		}
	}
	resp, err := t.next.RoundTrip(req)
	w.markAnswered()
	if err != nil {
		if context.Cause(ctx) == stalled {
			err = stalled
		}
		cancel(nil)
		return nil, err
	}
	t.answered.Store(true)
	if isWebPage(resp) {
		err := errors.Join(errWebPage, resp.Body.Close())
		cancel(nil)
		return nil, err
	}
	resp.Body = &gotBody{resp.Body, w, func() bool { return context.Cause(ctx) == stalled }, func() { cancel(nil) }, stalled}
	return resp, nil
}

// errWebPage means that a server answered with a web page where an S3 server would have answered with an object.
var errWebPage = errors.New("the answer is a web page, not an S3 server's")

// isWebPage recognizes the sign-in page of a network, and the error page of a proxy, that comes with the status of a success.
// Objects of a repository have another type, and S3 servers send an ID of the request or an ETag with each answer.
func isWebPage(resp *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return resp.StatusCode/100 == 2 && kind == "text/html" && resp.Header.Get("X-Amz-Request-Id") == ""
}

// CloseIdleConnections is the method that http.Client calls to pass its own
// call on.
func (t *stallTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// watch is the timer of one request.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
	done  bool // the response has started: the rest of the request's body is ignored
}

func (w *watch) setSending(pause bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	if pause {
		w.timer.Stop()
	} else {
		w.timer.Reset(w.after)
	}
}

func (w *watch) markAnswered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}

type sentBody struct {
	io.ReadCloser
	w *watch
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.w.setSending(true)
	defer b.w.setSending(false)
	return b.ReadCloser.Read(p)
}

type gotBody struct {
	io.ReadCloser
	w       *watch
	stalled func() bool
	cancel  func()
	err     error
}

func (b *gotBody) Read(p []byte) (int, error) {
	b.w.timer.Reset(b.w.after)
	n, err := b.ReadCloser.Read(p)
	b.w.timer.Stop()
	if err != nil && err != io.EOF && b.stalled() {
		err = b.err
	}
	return n, err
}

func (b *gotBody) Close() error {
	b.w.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}
