package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/idempotency"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

func newRepeats(t *testing.T) *idempotency.Service {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return idempotency.New(idempotency.Options{Store: &l.KeyedRequests, Now: time.Now, Secret: func() []byte { return nil }})
}

// operators are two tokens of operators, and one of a viewer.
type operators struct{}

func (operators) Check(text string) (rights.Principal, bool) {
	p := rights.Principal{Name: "token " + text, Role: rights.Operator}
	if text == "viewer" {
		p.Role = rights.Viewer
	}
	return p, true
}

func (operators) SaveUses(context.Context) error { return nil }

// TestRepeatedRequests repeats requests of each kind over TCP: one effect, the first answer, and a refusal for the key of another
// request.
func TestRepeatedRequests(t *testing.T) {
	w := newWorld()
	url, c := remote(t, ServerOptions{Routes: Routes(w.backend()), Tokens: operators{}, Repeats: newRepeats(t), Explain: deniedError})
	ask := func(who, key, path, body string) (int, string, string) {
		t.Helper()
		res, text := send(t, c, http.MethodPost, url+path, body, http.Header{"Authorization": {"Bearer " + who}, "Idempotency-Key": {key}})
		return res.StatusCode, text, res.Header.Get("Idempotent-Replayed")
	}
	const halt = `{"scope":"site","value":"rome","reason":"x"}`
	status, first, replayed := ask("kay", "k", "/v1/halt", halt)
	if status != http.StatusOK || replayed != "" || len(w.deeds) != 1 {
		t.Fatalf("%d %s %q, %q", status, first, replayed, w.deeds)
	}
	if status, text, replayed := ask("kay", "k", "/v1/halt", halt); status != http.StatusOK || text != first || replayed != "true" || len(w.deeds) != 1 {
		t.Errorf("repeated: %d %s %q, %q", status, text, replayed, w.deeds)
	}
	for name, x := range map[string][3]string{"another body": {"kay", "/v1/halt", halt + " "}, "another route": {"kay", "/v1/resume", halt}, "another person": {"eve", "/v1/halt", halt}} {
		if status, text, _ := ask(x[0], "k", x[1], x[2]); status != http.StatusUnprocessableEntity || !strings.Contains(text, "another request") || len(w.deeds) != 1 {
			t.Errorf("%s: %d %s, %q", name, status, text, w.deeds)
		}
	}
	if status, text, _ := ask("viewer", "k", "/v1/halt", halt); status != http.StatusForbidden {
		t.Errorf("a viewer: %d %s", status, text)
	}
	for _, x := range [][3]string{{"", "/v1/halt", halt}, {strings.Repeat("k", 300), "/v1/halt", halt}, {"p", "/v1/publish", "{}"}} {
		if status, text, _ := ask("kay", x[0], x[1], x[2]); status != http.StatusBadRequest && status != http.StatusForbidden || len(w.deeds) != 1 {
			t.Errorf("key %q: %d %s", x[0], status, text)
		}
	}
	// A faulty request leaves its key free.
	if status, text, _ := ask("kay", "k2", "/v1/halt", "{"); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, text)
	}
	if status, text, _ := ask("kay", "k2", "/v1/halt", halt); status != http.StatusOK || len(w.deeds) != 2 {
		t.Errorf("the same key, after a fault: %d %s %q", status, text, w.deeds)
	}
}

// TestClientRepeats checks that the client sends a POST again after its connection broke, with the same key, and that the
// request has one effect.
func TestClientRepeats(t *testing.T) {
	dir := shortDir(t)
	var effects, connections atomic.Int32
	serve(t, dir, ServerOptions{Now: time.Now, Repeats: newRepeats(t), Routes: []Route{{Method: http.MethodPost, Path: "/v1/x", Media: mediaJSON, Handle: func(context.Context, *Call) (any, error) {
		return fmt.Sprintf("effect %d", effects.Add(1)), nil
	}}}})
	c := NewClient(ClientOptions{Dir: dir})
	defer c.Close()
	// The first connection breaks after the Core has answered.
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(ctx, dir)
		if err != nil || connections.Add(1) > 1 {
			return conn, err
		}
		return &deaf{Conn: conn}, nil
	}}
	var out string
	if err := c.Call(t.Context(), http.MethodPost, "/v1/x", nil, nil, &out); err != nil || out != "effect 1" || effects.Load() != 1 || connections.Load() != 2 {
		t.Errorf("%q %v: %d effects, %d connections", out, err, effects.Load(), connections.Load())
	}
}

// deaf is a connection that ends when the answer comes.
type deaf struct{ net.Conn }

func (d *deaf) Read([]byte) (int, error) {
	if _, err := bufio.NewReader(d.Conn).ReadByte(); err != nil {
		return 0, err
	}
	return 0, net.ErrClosed
}

// deniedError explains a refusal as the program does.
func deniedError(err error) *Error {
	if errors.As(err, new(*rights.DeniedError)) {
		return &Error{Code: "denied", Message: err.Error()}
	}
	return &Error{Code: "failed", Message: err.Error()}
}

// faults are requests of a route that no principal gets an answer to.
func faults(r *Route) map[string]string {
	out := map[string]string{"?unknown=1": "{}", "?unknown=%zz&unknown=1": "{"}
	if r.Body != nil {
		out["?"] = `{"unknown":1}`
		out["?x"] = strings.Repeat(" ", MaxBody+1)
	}
	return out
}

// TestRightsComeFirst sends each route faulty requests, as each role over all sites and over one domain: a principal that
// cannot use the route gets 403, and no hint about parameters.
func TestRightsComeFirst(t *testing.T) {
	w, s := newWorld(), &whoever{}
	o := ServerOptions{Routes: Routes(w.backend()), Tokens: s, Explain: deniedError}
	url, c := remote(t, o)
	check := func(r *Route, p rights.Principal, useful bool) {
		s.p = p
		want := http.StatusForbidden
		if useful {
			want = http.StatusBadRequest
		}
		for query, body := range faults(r) {
			if r.Method == http.MethodGet {
				body = ""
			}
			before := len(w.audits)
			s.p.Name = fmt.Sprint(p.Name, len(query)) // a refusal of its own in the audit
			res, text := send(t, c, r.Method, url+strings.ReplaceAll(r.Path, "{id}", "a0")+query, body, http.Header{"Authorization": {"Bearer x"}})
			if res.StatusCode != want || want == http.StatusForbidden && (strings.Contains(text, "unknown") || len(w.audits) == before) {
				t.Errorf("%s %s%s as %s: %d %s; want %d; audited %q", r.Method, r.Path, query, s.p.Name, res.StatusCode, text, want, w.audits[before:])
			}
		}
	}
	for i := range o.Routes {
		r := &o.Routes[i]
		if strings.HasSuffix(r.Path, "/link") {
			continue // its right is that of the local socket
		}
		for _, role := range append(rights.Roles(), 0) {
			for _, scope := range []rights.Scope{{}, {Domain: "alpha"}} {
				p := rights.Principal{Name: fmt.Sprintf("%s over %q for %s", role, scope.Domain, r.Path), Role: role, Scope: scope}
				useful := false // for any subject
				for _, target := range targets {
					useful = useful || try(t, r, p, target) != "refused"
				}
				check(r, p, useful)
			}
		}
	}
	if len(w.deeds) > 0 {
		t.Errorf("done by faulty requests: %q", w.deeds)
	}
}

// whoever is a checker that takes each token for one principal.
type whoever struct{ p rights.Principal }

func (w *whoever) Check(string) (rights.Principal, bool) { return w.p, true }
func (w *whoever) SaveUses(context.Context) error        { return nil }
