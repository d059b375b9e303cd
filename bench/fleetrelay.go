package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// relay is a proxy for the Core's control port that counts the bytes of its connections, including TLS.
type relay struct {
	addr     string
	up, down atomic.Int64 // to the Core, from it
	listener net.Listener
	stopped  context.CancelFunc
	done     sync.WaitGroup
}

// startRelay relays to the address until close is called.
func startRelay(ctx context.Context, to string) (*relay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the counting relay: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &relay{addr: l.Addr().String(), listener: l, stopped: cancel}
	r.done.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.done.Go(func() { r.carry(ctx, near, to) })
		}
	})
	return r, nil
}

func (r *relay) carry(ctx context.Context, near net.Conn, to string) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return // the agent sees a broken connection, as it would without the relay
	}
	defer far.Close()
	cut := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer cut()
	var both sync.WaitGroup
	for _, way := range []struct {
		from, to net.Conn
		n        *atomic.Int64
	}{{near, far, &r.up}, {far, near, &r.down}} {
		both.Go(func() {
			// When one direction ends, close both: neither side uses half-closed connections.
			defer near.Close()
			defer far.Close()
			_, _ = io.Copy(tally{way.to, way.n}, way.from)
		})
	}
	both.Wait()
}

// tally counts the bytes written through it.
type tally struct {
	io.Writer
	n *atomic.Int64
}

func (t tally) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.n.Add(int64(n))
	return n, err
}

func (r *relay) reset() {
	r.up.Store(0)
	r.down.Store(0)
}

func (r *relay) close() error {
	r.stopped()
	err := r.listener.Close()
	r.done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
