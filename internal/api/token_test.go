package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/rights"
)

// oneToken is a checker that knows one token.
type oneToken struct{ saved chan bool }

func (o oneToken) Check(text string) (rights.Principal, bool) {
	if text != "nft_good" {
		return rights.Principal{}, false
	}
	return rights.Principal{Name: "token kay", Role: rights.Viewer}, true
}

func (o oneToken) SaveUses(context.Context) error {
	o.saved <- true
	return nil
}

// TestTokensOverTheSocket checks that a token gives its own rights, and that one that is not good gives none: the
// answer is 401, on every path, and has nothing of the Core.
func TestTokensOverTheSocket(t *testing.T) {
	dir := shortDir(t)
	known := oneToken{make(chan bool, 10)}
	w := newWorld()
	serve(t, dir, ServerOptions{Now: time.Now, Tokens: known, Routes: Routes(w.backend())})
	ask := func(method, path, authorization string) (*answer, string) {
		t.Helper()
		res := request(t, dir, method+" "+path+" HTTP/1.1\r\nHost: core\r\n"+authorization+"Content-Length: 2\r\n\r\n{}")
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	want := ""
	for _, bad := range []string{"Bearer nft_bad", "Bearer", "Bearer ", "Basic nft_good", "nft_good", "", "Bearer  nft_good", "Bearer nft_good\r\nAuthorization: Bearer nft_good"} {
		for _, call := range []string{"GET /v1/sites", "GET /v1/openapi.json", "GET /v1/unknown", "POST /v1/halt", "GET /", "DELETE /v1/sites"} {
			method, path, _ := strings.Cut(call, " ")
			res, text := ask(method, path, "Authorization: "+bad+"\r\n")
			if want == "" {
				want = text
			}
			if res.StatusCode != http.StatusUnauthorized || text != want || !res.Close {
				t.Errorf("%s with %q: %d %s", call, bad, res.StatusCode, text)
			}
		}
	}
	if len(w.deeds) > 0 || len(known.saved) > 0 {
		t.Errorf("without a good token: %q, %d uses", w.deeds, len(known.saved))
	}
	if res, text := ask("GET", "/v1/sites", "Authorization: bearer nft_good\r\n"); res.StatusCode != http.StatusOK || !strings.Contains(text, "oslo") {
		t.Errorf("a viewer's read: %d %s", res.StatusCode, text)
	}
	<-known.saved
	if _, text := ask("POST", "/v1/reload", "Authorization: Bearer nft_good\r\n"); !strings.Contains(text, "token kay") || len(w.deeds) > 0 {
		t.Errorf("a viewer's reload: %s, %q", text, w.deeds)
	}
	c := NewClient(ClientOptions{Dir: dir, Token: "nft_other"})
	defer c.Close()
	var told *Error
	if _, err := c.Status(t.Context()); !errors.As(err, &told) || told.Code != "denied" || strings.Contains(err.Error(), "nft_") {
		t.Errorf("the client: %v", err)
	}
}

// TestStreamEndsWithItsToken checks that a stream does not outlive the token of its client.
func TestStreamEndsWithItsToken(t *testing.T) {
	dir := shortDir(t)
	known := &endingToken{}
	l := NewEventLog(time.Now)
	b := newWorld().backend()
	b.Events = l
	serve(t, dir, ServerOptions{Now: time.Now, Tokens: known, Routes: Routes(b)})
	c := NewClient(ClientOptions{Dir: dir, Token: "nft_good"})
	defer c.Close()
	l.Add(started(1))
	seen := 0
	err := c.Events(t.Context(), EventsQuery{After: l.boot + "-0"}, func(*EventLine) error {
		seen++
		known.ended.Store(true)
		l.Add(started(2))
		return nil
	})
	if seen != 1 || err == nil {
		t.Errorf("%d events, %v", seen, err)
	}
}

// endingToken is a checker for which every token is good until it ends.
type endingToken struct{ ended atomic.Bool }

func (e *endingToken) Check(string) (rights.Principal, bool) {
	return rights.Principal{Name: "token kay", Role: rights.Viewer}, !e.ended.Load()
}

func (*endingToken) SaveUses(context.Context) error { return nil }
