package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// shortDir returns a folder whose path fits a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// request writes a request as it is, and returns the answer.
func request(t *testing.T, dir, text string) *answer {
	t.Helper()
	c, err := dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, c)
}

// answer is an answer that is closed when the test ends.
type answer struct{ http.Response }

func readAnswer(t *testing.T, c net.Conn) *answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return &answer{*res}
}

// TestBodyInTime checks that a client that sends half of a body does not hold its call.
func TestBodyInTime(t *testing.T) {
	dir := shortDir(t)
	reached := false
	serve(t, dir, ServerOptions{Now: time.Now, bodyWithin: 50 * time.Millisecond, Routes: []Route{{Method: "POST", Path: "/v1/x", Handle: func(context.Context, *Call) (any, error) {
		reached = true
		return nil, nil
	}}}})
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		res := request(t, dir, "POST /v1/x HTTP/1.1\r\nHost: core\r\n"+length+"\r\n\r\n")
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "within") || !res.Close {
			t.Errorf("%s: %d, close %t, %s %v", length, res.StatusCode, res.Close, b, err)
		}
	}
	if reached {
		t.Error("half of a body reached the handler")
	}
}

// TestReadDeadlineEnds checks that the bound of a body does not end the stream that answers it.
func TestReadDeadlineEnds(t *testing.T) {
	dir := shortDir(t)
	serve(t, dir, ServerOptions{Now: time.Now, bodyWithin: 50 * time.Millisecond, Routes: []Route{{Method: "POST", Path: "/v1/x", Handle: func(ctx context.Context, c *Call) (any, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond): // longer than the bound
			return "whole", c.Send("line")
		}
	}}}})
	res := request(t, dir, "POST /v1/x HTTP/1.1\r\nHost: core\r\nContent-Length: 2\r\n\r\n{}")
	if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), `"end":true`) {
		t.Errorf("%s %v", b, err)
	}
}

// TestUnchangedAnswers checks that a client that has an answer is not sent it again.
func TestUnchangedAnswers(t *testing.T) {
	dir := shortDir(t)
	n := 0
	serve(t, dir, ServerOptions{Now: time.Now, Routes: []Route{
		{Method: "GET", Path: "/v1/x", Handle: func(context.Context, *Call) (any, error) { return []int{n}, nil }},
		{Method: "POST", Path: "/v1/x", Handle: func(context.Context, *Call) (any, error) { return []int{n}, nil }},
	}})
	ask := func(method, tag string) *answer {
		return request(t, dir, fmt.Sprintf("%s /v1/x HTTP/1.1\r\nHost: core\r\nContent-Length: 0\r\nIf-None-Match: %s\r\n\r\n", method, tag))
	}
	tag := ask("GET", `"other"`).Header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	for _, given := range []string{tag, `"other", ` + tag, "W/" + tag} {
		if res := ask("GET", given); res.StatusCode != http.StatusNotModified {
			t.Errorf("If-None-Match %s: %d", given, res.StatusCode)
		}
	}
	if res := ask("POST", tag); res.StatusCode != http.StatusOK {
		t.Errorf("POST: %d", res.StatusCode)
	}
	n++
	if res := ask("GET", tag); res.StatusCode != http.StatusOK {
		t.Errorf("another answer: %d", res.StatusCode)
	}
}

// TestPages checks that the pages of a list are the list, and that a key that is gone ends it.
func TestPages(t *testing.T) {
	all := []string{"c", "a", "b", "d", "e"}
	key := func(s *string) string { return *s }
	var got []string
	for page := pageOf(all, "", 2, key); len(page) > 0; page = pageOf(all, page[len(page)-1], 2, key) {
		if got = append(got, page...); len(page) > 2 || len(got) > len(all) {
			t.Fatalf("page %q after %q", page, got)
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("pages %q, want %q", got, all)
	}
	if page := pageOf(all, "gone", 2, key); page != nil {
		t.Errorf("after a key that is gone: %q", page)
	}
}
