package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds an answer, and a line of a stream, in bytes.
const maxAnswer = 64 << 20

// ClientOptions of NewClient.
type ClientOptions struct {
	Dir   string // the Core's data folder; empty: Remote
	Token string // API token; empty: the rights of the account
	// Remote is https://host[:port] of a Core on another machine.
	Remote string
	Roots  *x509.CertPool // authorities of Remote's certificate; nil: those of the system
	// Explain replaces each error of a call, for example to add a remedy. Nil:
	// errors stay as they are.
	Explain func(error) error
}

// Client sends calls to the Core whose data folder it was given.
type Client struct {
	o      ClientOptions
	within time.Duration
	http   *http.Client
}

// NewClient returns a client. It does not connect yet.
func NewClient(o ClientOptions) *Client {
	if o.Explain == nil {
		o.Explain = func(err error) error { return err }
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, o.Dir) }}
	if o.Dir == "" {
		t = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots}, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: connectWithin}).DialContext, TLSHandshakeTimeout: connectWithin,
			HTTP2: &http.HTTP2Config{SendPingTimeout: connectWithin, PingTimeout: connectWithin}, // a stream ends with its line
		}
	}
	// A redirect is not followed: it could take the token elsewhere.
	return &Client{o, answerWithin, &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// connectWithin bounds how long a connection to a Core on another machine takes.
const connectWithin = 15 * time.Second

// answerWithin bounds how long Call waits for a whole answer.
const answerWithin = 30 * time.Second

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call asks and decodes the answer into out, unless that is nil. in is the
// request's body; nil: none. An error is an *Error where the Core said so,
// ErrDown where there is none, and ErrSilent where it takes more than 30 seconds.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if err := c.callJSON(ctx, method, path, query, in, out); err != nil {
		return c.o.Explain(err)
	}
	return nil
}

// again is how often a POST is sent again after its connection broke.
const again = 2

func (c *Client) callJSON(ctx context.Context, method, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.within, fmt.Errorf("%w within %s", ErrSilent, c.within))
	defer cancel()
	key := ""
	if method == http.MethodPost {
		key = rand.Text()
	}
	var b []byte
	var err error
	for n := 0; ; n++ {
		if b, err = readWhole(c.doRequest(ctx, method, path, query, in, key)); err == nil {
			break
		}
		var broken *brokenError
		if !errors.As(err, &broken) {
			return err
		}
		if key == "" || n == again || ctx.Err() != nil {
			return c.connectionError(ctx, broken.Err)
		}
		select { // with the same key, the request has its effect once
		case <-ctx.Done():
		case <-time.After(time.Duration(n+1) * 100 * time.Millisecond):
		}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return c.connectionError(ctx, err)
	}
	return nil
}

// brokenError is a connection that ended after the request may have been sent.
type brokenError struct{ Err error }

func (e *brokenError) Error() string { return e.Err.Error() }

// readWhole reads an answer, unless there is none.
func readWhole(body io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return nil, &brokenError{err}
	}
	return b, nil
}

// Stream asks and calls fn with each line of the answer, until fn returns an
// error, which it returns. It returns nil only for an answer that came to its
// end.
func (c *Client) Stream(ctx context.Context, method, path string, query url.Values, in any, fn func(json.RawMessage) error) error {
	if err := c.streamLines(ctx, method, path, query, in, fn); err != nil {
		return c.o.Explain(err)
	}
	return nil
}

func (c *Client) streamLines(ctx context.Context, method, path string, query url.Values, in any, fn func(json.RawMessage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := c.doRequest(ctx, method, path, query, in, "")
	if err != nil {
		return err
	}
	defer body.Close()
	s := bufio.NewScanner(body)
	s.Buffer(nil, maxAnswer)
	for s.Scan() {
		if bytes.Equal(s.Bytes(), []byte("null")) {
			return nil // the answer of a handler that had nothing to stream
		}
		var l struct {
			Line  json.RawMessage
			Error *Error
			End   bool
		}
		switch err := json.Unmarshal(s.Bytes(), &l); {
		case err != nil:
			return c.connectionError(ctx, err)
		case l.Error != nil:
			return l.Error
		case l.End:
			return nil
		}
		if err := fn(l.Line); err != nil {
			return err
		}
	}
	return c.connectionError(ctx, errors.Join(s.Err(), io.ErrUnexpectedEOF))
}

func (c *Client) doRequest(ctx context.Context, method, path string, query url.Values, in any, key string) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	u := &url.URL{Scheme: "http", Host: "core"}
	if c.o.Dir == "" {
		var err error
		if u, err = url.Parse(c.o.Remote); err != nil {
			return nil, fmt.Errorf("ask the Core: %w", err)
		}
	}
	u.Path, u.RawQuery = path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("ask the Core: %w", err)
	}
	if c.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.Token)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text would be a URL that nobody typed
		}
		var dialing *net.OpError
		if errors.Is(err, ErrDown) || errors.As(err, &dialing) && dialing.Op == "dial" || ctx.Err() != nil || key == "" {
			return nil, c.connectionError(ctx, err)
		}
		return nil, &brokenError{err}
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusAccepted {
		return res.Body, nil
	}
	defer res.Body.Close()
	told := &Error{}
	if b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil || json.Unmarshal(b, told) != nil || told.Message == "" {
		return nil, fmt.Errorf("ask the Core: it answers %s", res.Status)
	}
	return nil, told
}

func (c *Client) connectionError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.o.Dir == "" {
		return remoteError(c.o.Remote, err)
	}
	return fmt.Errorf("talk to the Core in %q: %w", c.o.Dir, err)
}

// remoteError explains a failure to reach a Core on another machine.
func remoteError(core string, err error) error {
	e := &Error{Code: "unreachable", Message: fmt.Sprintf("reach the Core at %s: %v", core, err), Fix: "check NIGHTFERRY_CORE, the firewall and the proxy (HTTPS_PROXY, NO_PROXY), and that the Core runs"}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		e.Code, e.Fix = "untrusted", "if the Core's authority made its certificate, name that authority's certificate in NIGHTFERRY_CORE_CA: on the Core's machine, nightferry console certificate -o FILE writes it"
	case errors.As(err, &name):
		e.Code, e.Fix = "untrusted", "name the Core as its certificate does, or change listen.console.url in its configuration"
	case errors.As(err, &invalid):
		e.Code, e.Fix = "untrusted", "renew the Core's certificate, and compare this machine's clock"
	}
	return e
}
