package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/rights"
)

// remote serves options over TLS and HTTP/2, and returns its address and a client that follows no redirect.
func remote(t *testing.T, o ServerOptions) (string, *http.Client) {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	s := httptest.NewUnstartedServer(Remote(o))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := s.Client()
	c.Timeout = time.Minute
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s.URL, c
}

// send makes a request, and returns the answer with its body.
func send(t *testing.T, c *http.Client, method, url, body string, header http.Header) (*answer, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{*res}, string(b)
}

// oneSession is a sign-in that knows one cookie.
type oneSession struct{ ended bool }

func (o *oneSession) Identify(req *http.Request) (rights.Principal, func() bool, bool) {
	c, err := req.Cookie("__Host-nightferry")
	good := err == nil && c.Value == "good" && !o.ended
	return rights.Principal{Name: "user kay", Role: rights.Viewer}, func() bool { return !o.ended }, good
}

func (*oneSession) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	fmt.Fprint(w, "the sign-in page")
}

// forged are headers by which a client might claim to be somebody.
func forged() []http.Header {
	return []http.Header{
		nil, {"Authorization": {""}}, {"Authorization": {"Bearer nft_bad"}}, {"Authorization": {"Basic cm9vdDo="}}, {"Authorization": {"Bearer nft_good", "Bearer nft_good"}},
		{"Cookie": {"__Host-nightferry=bad"}}, {"Cookie": {"nightferry=good; session=good; __host-nightferry=good"}},
		{"X-Forwarded-User": {"root"}, "X-Remote-User": {"root"}, "Remote-User": {"root"}, "X-Forwarded-For": {"127.0.0.1"}, "Forwarded": {"for=127.0.0.1"}},
		{"Authorization": {"Bearer nft_bad"}, "Cookie": {"__Host-nightferry=good"}},
	}
}

// TestRemoteKnowsNobody tries every route over TCP, with each header by which a client might claim to be somebody: the
// answer is 401, and nothing is done.
func TestRemoteKnowsNobody(t *testing.T) {
	w := newWorld()
	o := ServerOptions{Routes: Routes(w.backend()), Tokens: oneToken{make(chan bool, 10)}}
	for name, sessions := range map[string]Sessions{"tokens only": nil, "sessions": &oneSession{}} {
		o.Sessions = sessions
		url, c := remote(t, o)
		for i := range o.Routes {
			r := &o.Routes[i]
			_, body := parts(r.Method+" "+r.Path, "oslo")
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			for _, header := range forged() {
				res, got := send(t, c, r.Method, url+strings.ReplaceAll(r.Path, "{id}", "a0"), string(text), header)
				if res.StatusCode != http.StatusUnauthorized || strings.Contains(got, "oslo") || res.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s: %s %s with %v: %d %s", name, r.Method, r.Path, header, res.StatusCode, got)
				}
			}
		}
		for _, path := range []string{"/v1", "/v1/", "/v1/unknown", "/v1/../v1/sites", "//v1/sites", "/%76%31/sites"} {
			if res, got := send(t, c, http.MethodPost, url+path, "{}", nil); res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s: %d %s", name, path, res.StatusCode, got)
			}
		}
	}
	if len(w.deeds) > 0 {
		t.Errorf("done by nobody: %q", w.deeds)
	}
}

// TestRemotePages checks which clients get which page: a person without a session is sent to the sign-in page, with the way back.
func TestRemotePages(t *testing.T) {
	s := &oneSession{}
	var who rights.Principal
	url, c := remote(t, ServerOptions{Routes: Routes(newWorld().backend()), Tokens: oneToken{make(chan bool, 10)}, Sessions: s, Pages: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		who = rights.Of(req.Context())
		b, err := io.ReadAll(req.Body)
		fmt.Fprintf(w, "page %s %s %v", req.URL.Path, b, err)
	})})
	good := http.Header{"Cookie": {"__Host-nightferry=good"}}
	res, _ := send(t, c, "GET", url+"/sites/oslo?since=1&x=%2F", "", nil)
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/signin?to=%2Fsites%2Foslo%3Fsince%3D1%26x%3D%252F" {
		t.Errorf("without a session: %d %q", res.StatusCode, res.Header.Get("Location"))
	}
	if res, _ := send(t, c, "POST", url+"/halt", "x=1", nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a form without a session: %d", res.StatusCode)
	}
	if res, got := send(t, c, "GET", url+"/signin?to=/", "", nil); res.StatusCode != http.StatusOK || got != "the sign-in page" {
		t.Errorf("sign-in: %d %s", res.StatusCode, got)
	}
	if _, got := send(t, c, "GET", url+"/signin/../sites", "", nil); got == "the sign-in page" {
		t.Error("a path out of /signin is taken for it")
	}
	res, got := send(t, c, "POST", url+"/halt", "x=1", good)
	if res.StatusCode != http.StatusOK || got != "page /halt x=1 <nil>" || who.Name != "user kay" || who.Role != rights.Viewer {
		t.Errorf("a page: %d %q as %+v", res.StatusCode, got, who)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", res.Header)
	}
	if res, got := send(t, c, "GET", url+"/v1/sites", "", good); res.StatusCode != http.StatusOK || !strings.Contains(got, "oslo") {
		t.Errorf("a call of a session: %d %s", res.StatusCode, got)
	}
	if res, _ := send(t, c, "POST", url+"/halt", strings.Repeat("x", maxForm+1), good); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a form that is too large: %d", res.StatusCode)
	}
	s.ended = true
	if res, _ := send(t, c, "GET", url+"/v1/sites", "", good); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("after its end: %d", res.StatusCode)
	}
}

// TestForeignOrigin checks that a page of another site can use no session, and that a call with a token needs no origin.
func TestForeignOrigin(t *testing.T) {
	w := newWorld()
	page := false
	url, c := remote(t, ServerOptions{Routes: Routes(w.backend()), Tokens: oneToken{make(chan bool, 100)}, Sessions: &oneSession{}, Pages: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { page = true })})
	for _, origin := range []http.Header{
		{"Origin": {"https://evil.example"}}, {"Origin": {"null"}}, {"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}},
		{"Origin": {url + ".evil.example"}}, {"Origin": {strings.Replace(url, "https:", "http:", 1) + "0"}},
	} {
		for _, path := range []string{"/v1/reload", "/halt", "/signin/link", "/signin/out"} {
			header := origin.Clone()
			header.Set("Cookie", "__Host-nightferry=good")
			if res, got := send(t, c, "POST", url+path, "{}", header); res.StatusCode != http.StatusForbidden || strings.Contains(got, "sign-in page") {
				t.Errorf("%s from %v: %d %s", path, origin, res.StatusCode, got)
			}
		}
		header := origin.Clone()
		header.Set("Authorization", "Bearer nft_good")
		if _, got := send(t, c, "POST", url+"/v1/reload", "", header); !strings.Contains(got, "token kay") {
			t.Errorf("a token's call from %v: %s", origin, got)
		}
	}
	if len(w.deeds) > 0 || page {
		t.Errorf("done for another site: %q, page %t", w.deeds, page)
	}
	if _, got := send(t, c, "POST", url+"/v1/reload", "", http.Header{"Origin": {url}, "Cookie": {"__Host-nightferry=good"}}); !strings.Contains(got, "user kay") {
		t.Errorf("from the Core's own page: %s", got)
	}
}

// TestQuietStreams checks that a stream over HTTP/2 outlives a pause that is longer than the bound of a write, and that
// it ends with the session.
func TestQuietStreams(t *testing.T) {
	more := make(chan bool)
	s := &oneSession{}
	url, c := remote(t, ServerOptions{writeWithin: 50 * time.Millisecond, Sessions: s, Routes: []Route{{Method: "GET", Path: "/v1/x", Handle: func(ctx context.Context, c *Call) (any, error) {
		for {
			if err := c.Send("line"); err != nil {
				return nil, err
			}
			if !<-more {
				return nil, nil
			}
		}
	}}}})
	start := func() *answer {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v1/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "__Host-nightferry=good")
		res, err := c.Do(req)
		if err != nil || res.ProtoMajor != 2 {
			t.Fatal(res, err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return &answer{*res}
	}
	res := start()
	<-time.After(200 * time.Millisecond) // longer than the bound
	more <- true
	more <- false
	if b, err := io.ReadAll(res.Body); err != nil || !bytes.HasSuffix(b, []byte("{\"end\":true}\n")) {
		t.Errorf("after a pause: %q %v", b, err)
	}
	res = start()
	s.ended = true
	more <- true
	if b, err := io.ReadAll(res.Body); err != nil || !bytes.Contains(b, []byte(errTokenEnded.Message)) {
		t.Errorf("after the session's end: %q %v", b, err)
	}
}

// TestSlowClients checks that a client over HTTP/2 that reads nothing, or sends half of a body, does not hold its call.
func TestSlowClients(t *testing.T) {
	ended := make(chan error, 1)
	url, c := remote(t, ServerOptions{writeWithin: 50 * time.Millisecond, bodyWithin: 50 * time.Millisecond, Tokens: oneToken{make(chan bool, 10)}, Routes: []Route{
		{Method: "GET", Path: "/v1/x", Handle: func(ctx context.Context, c *Call) (any, error) {
			for {
				if err := c.Send(strings.Repeat("x", 1<<20)); err != nil {
					ended <- err
					return nil, err
				}
			}
		}},
		{Method: "POST", Path: "/v1/x", Handle: func(context.Context, *Call) (any, error) { return "reached", nil }},
	}})
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer nft_good")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	select {
	case err := <-ended:
		t.Logf("the call ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("a client that reads nothing holds its call")
	}
	half, w := io.Pipe()
	defer func() { _ = w.Close() }()
	if req, err = http.NewRequestWithContext(t.Context(), "POST", url+"/v1/x", half); err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer nft_good")
	if res, err = c.Do(req); err == nil {
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("half of a body: %d %s %v", res.StatusCode, b, err)
		}
	}
}

// deadlines records when the writes of an answer end.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

// SetWriteDeadline is for http.ResponseController.
func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// TestPatient checks that each write of a page is bounded, and not all of its answer: a log of gigabytes takes longer than 30 seconds.
func TestPatient(t *testing.T) {
	now := time.Unix(1000, 0)
	o := ServerOptions{Now: func() time.Time { return now }}
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	o.servePage(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/logs/x/file", nil), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			now = now.Add(time.Minute)
			_, _ = w.Write([]byte("x"))
		}
	}))
	if want := []time.Time{time.Unix(1000+60+30, 0), time.Unix(1000+120+30, 0)}; !slices.Equal(w.set, want) || w.Body.String() != "xx" {
		t.Errorf("the writes of %q end at %v, want %v", w.Body, w.set, want)
	}
}
