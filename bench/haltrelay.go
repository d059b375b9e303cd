package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// contentRelay stands before the store and counts what goes from it to agents: it tells their connections from the Core's
// by the name that is in the first request of each.
type contentRelay struct {
	addr     string
	bytes    atomic.Int64 // to agents, but for what follows
	last     atomic.Int64 // Unix nanoseconds of the last of them
	orders   atomic.Int64 // bytes of the orders to stop, which an agent reads of itself
	bound    atomic.Int64 // Unix nanoseconds from which on what passes is late; 0: never
	mu       sync.Mutex
	late     map[string]int64 // bytes by object
	listener net.Listener
	stopped  context.CancelFunc
	done     sync.WaitGroup
}

func startContentRelay(ctx context.Context, to string) (*contentRelay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the relay before the store: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &contentRelay{addr: l.Addr().String(), listener: l, stopped: cancel}
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

func (r *contentRelay) carry(ctx context.Context, near net.Conn, to string) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	if tcp, ok := near.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(32 << 10) // what was counted should be on its way, not in this machine's buffers
	}
	cut := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer cut()
	first := make([]byte, 16<<10)
	n, err := near.Read(first)
	if err != nil {
		return
	}
	first = first[:n]
	var down io.Writer = plain{near}
	var asks *asking
	if bytes.Contains(first, []byte("nightferry-agent/")) {
		asks = &asking{Writer: far}
		asks.look(first)
		down = &passed{near, r, asks}
	}
	if _, err := far.Write(first); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		defer near.Close()
		defer far.Close()
		if asks != nil {
			_, _ = io.Copy(asks, plainReader{near})
			return
		}
		_, _ = io.Copy(far, near)
	})
	both.Go(func() {
		defer near.Close()
		defer far.Close()
		_, _ = io.CopyBuffer(down, plainReader{far}, make([]byte, 64<<10))
	})
	both.Wait()
}

// plain and plainReader hide what would let io.Copy go past the counting.
type plain struct{ io.Writer }

type plainReader struct{ io.Reader }

// passed counts what is written to an agent.
type passed struct {
	io.Writer
	r    *contentRelay
	asks *asking
}

// asking looks at an agent's requests: which are for the orders to stop.
type asking struct {
	io.Writer
	orders atomic.Bool
	object atomic.Value // string: the path of the last request
}

func (a *asking) Write(b []byte) (int, error) {
	a.look(b)
	return a.Writer.Write(b)
}

func (a *asking) look(b []byte) {
	if line, _, ok := bytes.Cut(b, []byte("?")); ok && bytes.HasPrefix(line, []byte("GET ")) {
		a.orders.Store(bytes.HasSuffix(line, []byte("/halt")))
		a.object.Store(string(line[4:]))
	}
}

func (p *passed) Write(b []byte) (int, error) {
	orders := p.asks.orders.Load() // who has read all may ask for something else at once
	name, _ := p.asks.object.Load().(string)
	n, err := p.Writer.Write(b)
	switch {
	case n > 0 && orders:
		p.r.orders.Add(int64(n))
	case n > 0:
		now := time.Now().UnixNano()
		p.r.bytes.Add(int64(n))
		p.r.last.Store(now)
		if bound := p.r.bound.Load(); bound > 0 && now > bound {
			p.r.mu.Lock()
			if p.r.late == nil {
				p.r.late = map[string]int64{}
			}
			p.r.late[name] += int64(n)
			p.r.mu.Unlock()
		}
	}
	return n, err
}

func (r *contentRelay) close() error {
	r.stopped()
	err := r.listener.Close()
	r.done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
