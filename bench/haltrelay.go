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

// contentRelay is a proxy for the store that counts bytes sent to agents. It distinguishes their connections from the
// Core's by the object name in the first request of each.
type contentRelay struct {
	addr     string
	bytes    atomic.Int64 // to agents, except halt orders
	last     atomic.Int64 // Unix nanoseconds of the last byte to agents
	orders   atomic.Int64 // bytes of halt orders, which agents poll
	bound    atomic.Int64 // Unix nanoseconds after which bytes to agents count as late; 0: never
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
		_ = tcp.SetWriteBuffer(32 << 10) // small, so that few counted bytes wait in this machine's buffers
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

// plain and plainReader hide the methods by which io.Copy would bypass the counting.
type plain struct{ io.Writer }

type plainReader struct{ io.Reader }

// passed counts bytes written to an agent.
type passed struct {
	io.Writer
	r    *contentRelay
	asks *asking
}

// asking inspects an agent's requests for those that read halt orders.
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
	orders := p.asks.orders.Load() // read first: after the last byte, the agent may send another request
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
