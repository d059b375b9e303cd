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

// line stands between two processes as a network does: it carries bytes, and can be cut, stalled, or flip bits.
type line struct {
	addr string // where to dial
	to   string
	l    net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	open  sync.Cond // mode has changed
	mode  mode
	links map[*net.TCPConn]*net.TCPConn // from the dialer's end to the server's
	flips [2]flip
	hits  int
}

type mode int

const (
	carries mode = iota
	cut          // connections are reset, and no new one lives
	stalled      // nothing arrives, and nothing is lost
)

// Directions of a flip.
const (
	up = iota // from the dialer
	down
)

// flip waits for the byte at which it flips a bit.
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

// carry joins one connection to the server.
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

// pass does to bytes what the line does at the time.
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

// set changes what the line does.
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

// drop resets each connection with the chance of share.
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

// flip flips a bit of what passes next.
func (x *line) flip(dir int, f flip) {
	f.armed = true
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flips[dir] = f
}

// calm forgets a flip that has hit nothing yet, and returns how many have.
func (x *line) calm() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flips = [2]flip{}
	return x.hits
}

// reset ends a connection so that the other end sees a break.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
