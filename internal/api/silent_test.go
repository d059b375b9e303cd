package api

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// TestSilentCore: a Core that takes a call and hangs does not hold the caller.
func TestSilentCore(t *testing.T) {
	dir, err := os.MkdirTemp("", "nf") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	hang := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, ServerOptions{Now: time.Now, Routes: []Route{{Method: "GET", Path: "/v1/status", Handle: func(context.Context, *Call) (any, error) { <-hang; return nil, nil }}}})
	}()
	c := NewClient(ClientOptions{Dir: dir})
	c.within = 200 * time.Millisecond
	if err := c.Call(t.Context(), "GET", "/v1/status", nil, nil, nil); !errors.Is(err, ErrSilent) {
		t.Errorf("a Core that hangs: %v", err)
	}
	c.Close()
	close(hang)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
