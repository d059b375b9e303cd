package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/durable"
)

// serve starts a door in a short-named folder and returns a client of it.
func serve(t *testing.T, dir string, o ServerOptions) *Client {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, o) }()
	c := NewClient(ClientOptions{Dir: dir})
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c
}

type question struct{ Name string }

func TestCallsAndErrors(t *testing.T) {
	refusal := errors.New("the store is away")
	c := serve(t, t.TempDir(), ServerOptions{Now: time.Now,
		Explain: func(err error) *Error {
			return &Error{Code: "unreachable", Message: err.Error(), Fix: "look at the network", Paths: []string{"a", "b"}}
		},
		Routes: []Route{
			{Method: "GET", Path: "/v1/who", Handle: func(_ context.Context, c *Call) (any, error) { return c.Principal.Name, nil }},
			{Method: "POST", Path: "/v1/echo/{id}", Handle: func(_ context.Context, c *Call) (any, error) {
				var q question
				if err := c.Read(&q); err != nil {
					return nil, err
				}
				return []any{c.r.PathValue("id"), c.r.FormValue("x"), q.Name}, nil
			}},
			{Method: "GET", Path: "/v1/fails", Handle: func(context.Context, *Call) (any, error) { return nil, refusal }},
		},
	})
	var who string
	if err := c.Call(t.Context(), http.MethodGet, "/v1/who", nil, nil, &who); err != nil || who == "unknown" || who == "" {
		t.Errorf("the server takes us for %q: %v", who, err)
	}
	var got []any
	if err := c.Call(t.Context(), http.MethodPost, "/v1/echo/a b", url.Values{"x": {"1&2"}}, question{"ü"}, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]any{"a b", "1&2", "ü"}, got); d != "" {
		t.Error(d)
	}
	var told *Error
	err := c.Call(t.Context(), http.MethodGet, "/v1/fails", nil, nil, nil)
	if !errors.As(err, &told) || !cmp.Equal(told, &Error{"unreachable", "the store is away", "look at the network", []string{"a", "b"}}) {
		t.Errorf("got %#v", err)
	}
	for name, ask := range map[string]func() error{
		"unknown field": func() error {
			return c.Call(t.Context(), http.MethodPost, "/v1/echo/1", nil, map[string]string{"Nme": "typo"}, nil)
		},
		"too large": func() error {
			return c.Call(t.Context(), http.MethodPost, "/v1/echo/1", nil, question{strings.Repeat("x", MaxBody)}, nil)
		},
		"unknown route": func() error { return c.Call(t.Context(), http.MethodGet, "/v2/who", nil, nil, nil) },
	} {
		if err := ask(); !errors.As(err, &told) || told.Fix == "" {
			t.Errorf("%s: got %v, want an error with a remedy", name, err)
		}
	}
}

// A stream that was cut off must not look like a whole one.
func TestStreams(t *testing.T) {
	c := serve(t, t.TempDir(), ServerOptions{Now: time.Now, Routes: []Route{
		{Method: "GET", Path: "/v1/lines", Handle: func(ctx context.Context, c *Call) (any, error) {
			for i := range 3 {
				if err := c.Send(map[string]int{"n": i}); err != nil {
					return nil, err
				}
			}
			switch c.r.FormValue("then") {
			case "fail":
				return nil, errors.New("half way")
			case "die":
				panic(http.ErrAbortHandler)
			case "wait":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		}},
		{Method: "GET", Path: "/v1/none", Handle: func(context.Context, *Call) (any, error) { return nil, nil }},
	}})
	ask := func(then string, fn func(n int) error) (int, error) {
		lines := 0
		err := c.Stream(t.Context(), http.MethodGet, "/v1/lines", url.Values{"then": {then}}, nil, func(raw json.RawMessage) error {
			var l struct{ N int }
			if err := json.Unmarshal(raw, &l); err != nil || l.N != lines {
				return fmt.Errorf("line %q: %v", raw, err)
			}
			lines++
			return fn(l.N)
		})
		return lines, err
	}
	all := func(int) error { return nil }
	if n, err := ask("", all); n != 3 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
	var told *Error
	if n, err := ask("fail", all); n != 3 || !errors.As(err, &told) || told.Message != "half way" {
		t.Errorf("%d lines, %v", n, err)
	}
	if n, err := ask("die", all); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that was cut off: %d lines, %v", n, err)
	}
	enough := errors.New("enough")
	if n, err := ask("wait", func(n int) error {
		if n == 2 {
			return enough
		}
		return nil
	}); n != 3 || !errors.Is(err, enough) {
		t.Errorf("%d lines, %v", n, err)
	}
	if err := c.Stream(t.Context(), http.MethodGet, "/v1/none", nil, nil, func(json.RawMessage) error { return enough }); err != nil {
		t.Error(err)
	}
}

func TestOneCoreListens(t *testing.T) {
	dir := t.TempDir()
	away := NewClient(ClientOptions{Dir: dir})
	if err := away.Call(t.Context(), http.MethodGet, "/", nil, nil, nil); !errors.Is(err, ErrDown) {
		t.Errorf("no Core: %v, want ErrDown", err)
	}
	serve(t, dir, ServerOptions{Now: time.Now})
	if _, err := Listen(dir); !errors.Is(err, durable.ErrBusy) {
		t.Errorf("a second Core: %v, want ErrBusy", err)
	}
}
