package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ServerOptions say what is served.
type ServerOptions struct {
	Routes []Route
	// Now is the time by which writes to clients are bounded.
	Now func() time.Time
	// Explain turns an error into what the client is told. It must hold no
	// secret. Nil: code failed and the error's own text.
	Explain func(error) *Error
}

// Call is one question, and the way to stream an answer to it.
type Call struct {
	Caller Caller

	now    func() time.Time
	r      *http.Request
	w      http.ResponseWriter
	mu     sync.Mutex
	stream bool
}

// Read decodes the call's body, strictly: what the server does not know is an
// error, since ignoring it could do more than was asked for.
func (c *Call) Read(v any) error {
	d := json.NewDecoder(c.r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &Error{Code: "usage", Message: fmt.Sprintf("read the request: %v", err), Fix: "use the nightferry command of the same version as the running Core"}
	}
	return nil
}

// Send streams one line, which is at the client when it returns. It may be
// called from several goroutines, until the handler returns.
func (c *Call) Send(v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stream {
		c.stream = true
		c.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return c.writeLine(line{Line: v})
}

func (c *Call) writeLine(l any) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	rc := http.NewResponseController(c.w)
	if err := rc.SetWriteDeadline(c.now().Add(writeWithin)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := c.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return rc.Flush()
}

// writeWithin bounds each write to a client, so that one that stops reading
// frees what its answer holds.
const writeWithin = 30 * time.Second

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
	explain := o.Explain
	if explain == nil {
		explain = func(err error) *Error { return &Error{Code: "failed", Message: err.Error()} }
	}
	mux := http.NewServeMux()
	for _, r := range o.Routes {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) {
			caller, _ := req.Context().Value(callerKey{}).(Caller) // known has seen to it
			req.Body = http.MaxBytesReader(w, req.Body, MaxBody)
			serveCall(&Call{Caller: caller, now: o.Now, r: req, w: w}, r.Handle, explain)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		writeJSON(w, http.StatusNotFound, &Error{Code: "failed", Message: "the running Core does not know " + req.Method + " " + req.URL.Path,
			Fix: "it is of another version than this command: restart it with the same one"})
	})
	// What one waits for ends with ctx at once, what one is doing may finish.
	s := &http.Server{
		Handler:           knownCallers(mux),
		ReadHeaderTimeout: 10 * time.Second,
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

func serveCall(c *Call, handle func(context.Context, *Call) (any, error), explain func(error) *Error) {
	v, err := handle(c.r.Context(), c)
	c.mu.Lock()
	defer c.mu.Unlock()
	var told *Error
	if err != nil && !errors.As(err, &told) {
		told = explain(err)
	}
	if c.stream {
		_ = c.writeLine(line{Error: told, End: told == nil}) // a client that has gone hears nothing
		return
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(c.now().Add(writeWithin)) // without one, the write only takes longer to fail
	if told != nil {
		writeJSON(c.w, httpStatus(told.Code), told)
		return
	}
	writeJSON(c.w, http.StatusOK, v)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code = http.StatusInternalServerError
		b, _ = json.Marshal(&Error{Code: "failed", Message: "encode the answer: " + err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
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
