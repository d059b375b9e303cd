package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/rights"
)

// ServerOptions say what is served.
type ServerOptions struct {
	Routes []Route
	// Now is the time by which writes to clients are bounded.
	Now func() time.Time
	// Tokens checks the tokens of clients that send one. Nil: none is good.
	Tokens TokenChecker
	// Sessions knows the people who have signed in over TCP, and has the pages below /signin. Nil: only tokens count there.
	Sessions Sessions
	// Repeats gives repeated requests the first answer. Nil: idempotency keys have no effect.
	Repeats Repeats
	// Pages serves the requests that are not of the contract, over TCP. Nil: they are refused.
	Pages http.Handler

	bodyWithin, writeWithin time.Duration // 0: the constants; tests choose others
	// Explain turns an error into what the client is told. It must hold no
	// secret. Nil: code failed and the error's own text.
	Explain func(error) *Error
}

// Call is one question, and the way to stream an answer to it.
type Call struct {
	Principal rights.Principal

	now    func() time.Time
	r      *http.Request
	w      http.ResponseWriter
	writes time.Duration // bounds each write
	body   []byte        // whole; empty: none
	mu     sync.Mutex
	stream bool        // a line was sent
	events bool        // an event was sent
	valid  func() bool // whether the principal still has its rights; nil: for as long as the connection
}

// errTokenEnded ends a stream whose token or session has ended.
var errTokenEnded = &Error{Code: "denied", Message: "the API token or the session has ended", Fix: "sign in again, or ask an administrator of the Core for a new token"}

// Read decodes the call's body, strictly: what the server does not know is an
// error, since ignoring it could do more than was asked for.
func (c *Call) Read(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		return &Error{Code: "usage", Message: fmt.Sprintf("read the request: %v", err), Fix: "use the nightferry command of the same version as the running Core"}
	}
	return nil
}

// Send streams one line, which is at the client when it returns. It may be
// called from several goroutines, until the handler returns.
func (c *Call) Send(v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.valid != nil && !c.valid() {
		return errTokenEnded
	}
	if !c.stream {
		c.stream = true
		c.w.Header().Set("Content-Type", mediaLines)
	}
	return c.writeLine(line{Line: v})
}

// SendEvent streams one server-sent event.
func (c *Call) SendEvent(l *EventLine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.valid != nil && !c.valid() {
		return errTokenEnded
	}
	if !c.events {
		c.events = true
		c.w.Header().Set("Content-Type", mediaEvents)
		c.w.Header().Set("Cache-Control", "no-store")
	}
	switch {
	case l.Event != nil:
		return c.writeText(fmt.Sprintf("id: %s\nevent: %s\ndata: ", l.ID, l.Event.Kind), l.Event, "\n\n")
	case l.Missed != nil:
		return c.writeText("event: missed\ndata: ", l.Missed, "\n\n")
	}
	return c.writeBytes([]byte(": alive\n\n"))
}

func (c *Call) writeLine(l any) error { return c.writeText("", l, "\n") }

// writeText writes v as JSON, which has no line breaks, between two texts.
func (c *Call) writeText(before string, v any, after string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	return c.writeBytes(slices.Concat([]byte(before), b, []byte(after)))
}

func (c *Call) writeBytes(b []byte) error {
	rc := http.NewResponseController(c.w)
	if err := rc.SetWriteDeadline(c.now().Add(c.writes)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := c.w.Write(b); err != nil {
		return err
	}
	if err := rc.Flush(); err != nil {
		return err
	}
	// Over HTTP/2 a deadline ends a stream also while nothing is written.
	if err := rc.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// Bounds of a connection, so that a client that stops reading or writing frees what
// it holds.
const (
	writeWithin  = 30 * time.Second // for each write to a client
	headerWithin = 10 * time.Second
	bodyWithin   = 10 * time.Second // for the whole body of a request
	idleWithin   = 2 * time.Minute
	maxHeader    = 16 << 10 // bytes
)

// readBody reads the body of a request, before its handler runs. Later reads would need a
// deadline of their own: one for the whole request would end streams.
func (c *Call) readBody(within time.Duration) error {
	if c.r.Body == http.NoBody {
		return nil
	}
	rc := http.NewResponseController(c.w)
	if err := rc.SetReadDeadline(c.now().Add(within)); err != nil {
		return fmt.Errorf("bound the request: %w", err)
	}
	var err error
	if c.body, err = io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, MaxBody)); err != nil {
		c.w.Header().Set("Connection", "close")
		return &Error{Code: "usage", Message: fmt.Sprintf("read the request: %v", err), Fix: fmt.Sprintf("send a body of at most %d bytes within %s", MaxBody, within)}
	}
	return rc.SetReadDeadline(time.Time{})
}

// line is how a stream travels: a stream that does not close with end or error
// was cut off, and the client must not take it for whole.
type line struct {
	Line  any    `json:"line,omitempty"`
	Error *Error `json:"error,omitempty"`
	End   bool   `json:"end,omitempty"`
}

type callerKey struct{}

// Serve answers on l until ctx ends, and closes it. Calls under way see their
// context end; those that do not end within some seconds are cut off.
func Serve(ctx context.Context, l net.Listener, o ServerOptions) error {
	// What one waits for ends with ctx at once, what one is doing may finish.
	s := &http.Server{
		Handler:           knownCallers(o.identify(o.handler())),
		ReadHeaderTimeout: headerWithin,
		IdleTimeout:       idleWithin,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			g, ok := c.(guest)
			if !ok || g.refused != nil {
				return ctx // without a caller nothing is answered
			}
			return context.WithValue(ctx, callerKey{}, g.caller)
		},
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(guarded{l}) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the local socket: %w", err)
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

// handler answers the calls of identified clients.
func (o *ServerOptions) handler() http.Handler {
	explain := o.Explain
	if explain == nil {
		explain = func(err error) *Error { return &Error{Code: "failed", Message: err.Error()} }
	}
	mux := http.NewServeMux()
	for _, r := range o.Routes {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) {
			id, _ := req.Context().Value(identityKey{}).(Identity) // the middleware has seen to it
			c := &Call{Principal: id.Principal, now: o.Now, r: req, w: w, writes: cmp.Or(o.writeWithin, writeWithin), valid: id.Valid}
			o.serveCall(c, &r, explain)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		writeJSON(w, http.StatusNotFound, &Error{Code: "failed", Message: "the running Core does not know " + req.Method + " " + req.URL.Path,
			Fix: "it is of another version than this command: restart it with the same one"})
	})
	return mux
}

func (o *ServerOptions) serveCall(c *Call, r *Route, explain func(error) *Error) {
	err := c.readBody(cmp.Or(o.bodyWithin, bodyWithin))
	var out *answered
	switch {
	case err != nil:
		out = c.failed(r, err, explain)
	case o.Repeats != nil && len(c.r.Header["Idempotency-Key"]) > 0 && r.Need.isMet(c.Principal):
		out = o.answerOnce(c, r, explain)
	default:
		out = c.answer(c.r.Context(), r, explain)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events {
		return // a client of events reconnects, whatever has ended them
	}
	if c.stream {
		_ = c.writeLine(line{Error: out.err, End: out.err == nil}) // a client that has gone hears nothing
		return
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(c.now().Add(writeWithin)) // without one, the write only takes longer to fail
	c.writeAnswer(out)
}

// answered is an answer that is not written yet.
type answered struct {
	Status   int    `json:"status"`
	Location string `json:"location,omitempty"`
	Body     []byte `json:"body"`
	err      *Error // nil: it succeeded
}

// answer handles a call.
func (c *Call) answer(ctx context.Context, r *Route, explain func(error) *Error) *answered {
	v, err := r.Handle(ctx, c)
	if err != nil {
		return c.failed(r, err, explain)
	}
	out := &answered{}
	status := http.StatusOK
	if job, ok := v.(*Job); ok && c.r.Method == http.MethodPost {
		status, out.Location = http.StatusAccepted, job.location()
	}
	out.Status, out.Body = encode(status, v)
	return out
}

// failed returns the answer of an error. A principal without the rights of the route gets its refusal and not the fault of
// its request.
func (c *Call) failed(r *Route, err error, explain func(error) *Error) *answered {
	var e *Error
	if errors.As(err, &e) && e.Code == "usage" && !r.Need.isMet(c.Principal) {
		e, err = nil, r.Refuse(c.r.Context(), c.Principal)
	}
	if e == nil && !errors.As(err, &e) {
		e = explain(err)
	}
	code, b := encode(httpStatus(e.Code), e)
	return &answered{Status: code, Body: b, err: e}
}

// writeAnswer writes the answer, and to a GET its ETag. A client that already has that answer gets
// none again.
func (c *Call) writeAnswer(a *answered) {
	if c.r.Method == http.MethodGet && a.Status == http.StatusOK {
		tag := fmt.Sprintf("\"%x\"", sha256.Sum256(a.Body))
		c.w.Header().Set("ETag", tag)
		c.w.Header().Set("Cache-Control", "no-cache")
		if hasTag(c.r.Header.Values("If-None-Match"), tag) {
			c.w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if a.Location != "" {
		c.w.Header().Set("Location", a.Location)
	}
	writeBytes(c.w, a.Status, a.Body)
}

// hasTag reports whether the values of If-None-Match name a tag.
func hasTag(values []string, tag string) bool {
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == tag || part == "*" {
			return true
		}
	}
	return false
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	code, b := encode(code, v)
	writeBytes(w, code, b)
}

func encode(code int, v any) (int, []byte) {
	b, err := json.Marshal(v)
	if err != nil {
		code = http.StatusInternalServerError
		b, _ = json.Marshal(&Error{Code: "failed", Message: "encode the answer: " + err.Error()})
	}
	return code, append(b, '\n')
}

func writeBytes(w http.ResponseWriter, code int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

// knownCallers lets only callers in whom the system has named and whom peer allows.
// The refusal is an answer: a connection closed in their face would look like a
// Core that has died.
func knownCallers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, ok := req.Context().Value(callerKey{}).(Caller); !ok {
			w.Header().Set("Connection", "close")
			writeJSON(w, http.StatusForbidden, &Error{Code: "denied", Message: "the Core's local socket refuses this account", Fix: "use the account that the Core runs as, or root"})
			return
		}
		next.ServeHTTP(w, req)
	})
}

// guest is a connection whose other end is known.
type guest struct {
	net.Conn
	caller  Caller
	refused error
}

// guarded asks the system who connects. The socket's mode keeps others out as
// well, but only from a moment after the socket exists.
type guarded struct{ net.Listener }

func (g guarded) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	caller, err := peerAccount(c, allowsPeer)
	return guest{c, caller, err}, nil
}
