//go:build unix

package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, ServerOptions{Now: time.Now})
	info, err := os.Lstat(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", info.Mode())
	}
}

// What a killed Core leaves is replaced, and tells a client that none runs.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := NewClient(ClientOptions{Dir: dir}).Call(t.Context(), http.MethodGet, "/", nil, nil, nil); !errors.Is(err, ErrDown) {
		t.Errorf("got %v, want ErrDown", err)
	}
	again, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestLongPathIsExplained(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 100))); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v", err)
	}
}

// TestLargeHeader checks that a header is bounded. A named pipe has no room for unread bytes, so a client
// on Windows cannot end its request and read the answer; there net/http closes the pipe.
func TestLargeHeader(t *testing.T) {
	dir := shortDir(t)
	serve(t, dir, ServerOptions{Now: time.Now, Routes: []Route{{Method: "GET", Path: "/v1/x", Handle: func(context.Context, *Call) (any, error) { return nil, nil }}}})
	res := request(t, dir, "GET /v1/x HTTP/1.1\r\nHost: core\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("large header: %d", res.StatusCode)
	}
}
