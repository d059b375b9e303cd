//go:build linux

package chaos

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// line is a proxy between two processes that simulates a network: it can reset or stall connections, or flip bits.
type line struct {
	addr string // where to dial
	to   string
	l    net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	open  sync.Cond // signals a change of mode
	mode  mode
	links map[*net.TCPConn]*net.TCPConn // from the dialer's end to the server's
	flips [2]flip
	hits  int
}

type mode int

const (
	carries mode = iota
	cut          // connections are reset, and new ones too
	stalled      // nothing arrives, and nothing is lost
)

// Directions of a flip.
const (
	up = iota // from the dialer
	down
)

// flip is a pending bit flip at a certain byte.
type flip struct {
	armed bool
	after int // bytes from now, over all links
	bit   uint
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &line{addr: l.Addr().String(), to: to, l: l, links: map[*net.TCPConn]*net.TCPConn{}}
	x.open.L = &x.mu
	x.wg.Go(x.accept)
	t.Cleanup(func() {
		_ = l.Close()
		x.set(cut)
		x.wg.Wait()
	})
	return x
}

func (x *line) accept() {
	for {
		c, err := x.l.Accept()
		if err != nil {
			return
		}
		x.wg.Go(func() { x.carry(c.(*net.TCPConn)) })
	}
}

// carry connects one connection to the server.
func (x *line) carry(near *net.TCPConn) {
	defer func() { _ = near.Close() }()
	c, err := net.Dial("tcp", x.to)
	if err != nil {
		reset(near)
		return
	}
	far := c.(*net.TCPConn)
	defer func() { _ = far.Close() }()
	x.mu.Lock()
	lives := x.mode != cut
	if lives {
		x.links[near] = far
	}
	x.mu.Unlock()
	if !lives {
		reset(near)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { x.pump(far, near, up) })
	both.Go(func() { x.pump(near, far, down) })
	both.Wait()
	x.mu.Lock()
	delete(x.links, near)
	x.mu.Unlock()
}

func (x *line) pump(to, from *net.TCPConn, dir int) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			x.pass(b[:n], dir)
			if _, err := to.Write(b[:n]); err != nil {
				reset(from)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			reset(to)
			return
		}
	}
}

// pass applies the line's present faults to bytes.
func (x *line) pass(b []byte, dir int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.mode == stalled {
		x.open.Wait()
	}
	f := &x.flips[dir]
	switch {
	case !f.armed:
	case f.after < len(b):
		b[f.after] ^= 1 << f.bit
		*f = flip{}
		x.hits++
	default:
		f.after -= len(b)
	}
}

// set changes the mode of the line.
func (x *line) set(m mode) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mode = m
	x.open.Broadcast()
	if m != cut {
		return
	}
	for near, far := range x.links {
		reset(near)
		reset(far)
	}
}

// drop resets each connection with the probability share.
func (x *line) drop(r *rand.Rand, share float64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for near, far := range x.links {
		if r.Float64() < share {
			reset(near)
			reset(far)
		}
	}
}

// flip arms a bit flip in the following bytes.
func (x *line) flip(dir int, f flip) {
	f.armed = true
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flips[dir] = f
}

// calm disarms pending flips, and returns how many were executed.
func (x *line) calm() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flips = [2]flip{}
	return x.hits
}

// reset ends a connection so that the other end gets a connection reset.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
