package bucket

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

// LentOptions describe a store that is read through presigned URLs, see
// Presigner.
type LentOptions struct {
	Options
	// Host is scheme://host[:port] of the only host that requests are sent to,
	// regardless of the URLs.
	Host string
	// Lend returns a URL for the object. If expired is not empty, it is the URL
	// that the store has just refused. An error of Lend ends the Get; an *Error
	// is returned unchanged.
	Lend func(ctx context.Context, key, expired string) (string, error)
	// Env looks up HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY and AWS_CA_BUNDLE; nil: in this process's
	// environment.
	Env func(string) string
	// Receive bounds the receive buffers of connections; nil: the system does.
	Receive *Receive
}

// OpenLent opens a store that can only Get. It follows no redirects.
func OpenLent(o LentOptions) (Store, error) {
	host, err := hostOf(o.Host)
	if err != nil || o.Lend == nil {
		return nil, &Error{Op: "open", Key: redactURL(o.Host), Kind: KindOther, Err: errUnknownStore, Hint: "give scheme://host[:port]"}
	}
	client := o.HTTPClient
	if client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		tuneTransport(t)
		if o.Env == nil {
			o.Env = os.Getenv
		}
		t.Proxy = Proxies(o.Env)
		if err := TrustBundle(t, o.Env); err != nil {
			return nil, &Error{Op: "open", Key: host, Kind: KindOther, Err: err, Hint: "mend or remove the variable"}
		}
		if o.Receive != nil {
			t.DialContext = o.Receive.boundDial(t.DialContext)
			t.ReadBufferSize = 4 << 10 // only small reads are buffered; large reads of content bypass the buffer
		}
		t.DialTLSContext = dialTLS(t.DialContext, t.TLSClientConfig)
		stall := o.Stall
		if stall <= 0 {
			stall = time.Minute
		}
		client = &http.Client{Transport: &stallTransport{next: t, after: stall, answered: &atomic.Bool{}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return &lent{host: host, lend: o.Lend, client: client, agent: o.UserAgent, retry: newRetryOptions(o.Options)}, nil
}

// hostOf returns scheme://host:port of a URL, in one form.
func hostOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", errUnknownStore
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port, nil
}

type lent struct {
	host   string
	lend   func(context.Context, string, string) (string, error)
	client *http.Client
	agent  string
	retry  retryOptions
}

var (
	errUnsatisfiable = errors.New("range not satisfiable")
	errReadOnly      = errors.New("this store can only be read")
	errForeign       = errors.New("the URL that was lent is for another host than the enrolled store: refused")
)

func (l *lent) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error) {
	return getFrom(ctx, l, l.retry, key, off, n)
}

// get implements getter.
func (l *lent) get(ctx context.Context, key, rng, etag string) (*s3.GetObjectOutput, error) {
	expired, renewed := "", false
	for try := 1; ; try++ {
		raw, err := l.lend(ctx, key, expired)
		if err != nil {
			return nil, err
		}
		expired = ""
		if host, err := hostOf(raw); err != nil || host != l.host {
			return nil, &Error{Op: "get", Key: key, Kind: KindDenied, Err: errForeign, Hint: "if the store has moved, enroll this site again"}
		}
		out, err := l.requestOnce(ctx, raw, key, rng, etag)
		if err == nil {
			return out, nil
		}
		var e *Error
		if !errors.As(err, &e) || ctx.Err() != nil {
			return nil, err
		}
		switch e.Kind {
		case KindDenied, KindExpired:
			if renewed {
				return nil, err
			}
			// S3 servers report an expired signature in many ways: only a fresh
			// one shows whether it was the cause.
			expired, renewed = raw, true
		case KindThrottled, KindUnreachable:
			if e.Final {
				return nil, e
			}
			if try >= l.retry.attempts {
				e.Err = fmt.Errorf("%w (after %d tries)", e.Err, try)
				return nil, e
			}
			l.retry.notifyRetry(e)
			if err := sleep(ctx, l.retry.retryDelay(try)); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

func (l *lent) requestOnce(ctx context.Context, raw, key, rng, etag string) (*s3.GetObjectOutput, error) {
	fail := func(e *Error) error { e.Op, e.Key = "get", key; return e }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, fail(&Error{Err: errors.New("the URL that was lent does not parse")})
	}
	for name, v := range map[string]string{"Range": rng, "If-Match": etag, "User-Agent": l.agent} {
		if v != "" {
			req.Header.Set(name, v)
		}
	}
	resp, err := l.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the outer error's text holds the URL
		}
		e := *classifyS3(ctx, err)
		if e.Kind == KindOther && ctx.Err() == nil {
			e.Kind = KindUnreachable // no response, for whatever reason
		}
		return nil, fail(&e)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return l.convertResponse(resp), nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, errUnsatisfiable
	}
	return nil, fail(readRefusal(resp))
}

// convertResponse converts a response to the SDK's form.
func (l *lent) convertResponse(resp *http.Response) *s3.GetObjectOutput {
	out := &s3.GetObjectOutput{Body: resp.Body}
	if resp.ContentLength >= 0 {
		out.ContentLength = aws.Int64(resp.ContentLength)
	}
	if v := resp.Header.Get("ETag"); v != "" {
		out.ETag = aws.String(v)
	}
	if v := resp.Header.Get("Content-Range"); v != "" {
		out.ContentRange = aws.String(v)
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		out.LastModified = &t
	}
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		out.ResultMetadata.Set(dateKey{}, t)
	}
	return out
}

type dateKey struct{}

func lentDate(m middleware.Metadata) time.Time {
	t, _ := m.Get(dateKey{}).(time.Time)
	return t
}

// readRefusal reads the reason why the store refuses an object.
func readRefusal(resp *http.Response) *Error {
	var said struct{ Code, Message string }
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && xml.Unmarshal(b, &said) != nil {
		said.Code, said.Message = "", "" // not the store's words
	}
	e := &Error{}
	text := said.Message
	if c, ok := codes[said.Code]; ok {
		e.Kind, e.Hint = c.kind, c.hint
		if c.text != "" {
			text = c.text
		}
	} else {
		e.Kind, e.Hint = statusKind(resp.StatusCode)
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		e.Hint = signInHint(resp.Header.Values("Proxy-Authenticate"))
	}
	if e.Kind == KindDenied || e.Kind == KindExpired {
		e.Hint = "the URLs that the Core lends are not accepted by the store: compare their clocks, and check the Core's credentials"
	}
	if resp.StatusCode/100 == 3 {
		e.Kind, e.Hint = KindOther, "redirects are not followed: check the store's region and endpoint at the Core"
	}
	if text == "" {
		text = strings.ToLower(http.StatusText(resp.StatusCode))
	}
	where := fmt.Sprintf("%d %s", resp.StatusCode, said.Code)
	if id := resp.Header.Get("X-Amz-Request-Id"); id != "" {
		where += ", request " + id
	}
	e.Err = fmt.Errorf("%s (%s)", scrubSecrets(text), scrubSecrets(strings.TrimSpace(where)))
	return e
}

func readOnly(op, key string) error {
	return &Error{Op: op, Key: quoteKey(key), Kind: KindDenied, Err: errReadOnly}
}

func (l *lent) Put(_ context.Context, key string, _ Body, _ Cond) (Info, error) {
	return Info{}, readOnly("put", key)
}

func (l *lent) Delete(_ context.Context, key string) error { return readOnly("delete", key) }

func (l *lent) List(_ context.Context, prefix string, _ func(Info) error) error {
	return readOnly("list", prefix)
}

// Reconnect makes the next request use a new connection.
func (l *lent) Reconnect() { l.client.CloseIdleConnections() }

// Close closes idle connections.
func (l *lent) Close() error {
	l.client.CloseIdleConnections()
	return nil
}
