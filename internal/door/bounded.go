package door

import (
	"net"
	"net/netip"
	"sync"
)

// bounded closes connections beyond a number, in all and from one address, as soon as they are made.
type bounded struct {
	net.Listener
	maxAll, maxEach int

	mu   sync.Mutex
	all  int
	each map[netip.Prefix]int
}

func newBounded(l net.Listener, maxAll, maxEach int) *bounded {
	return &bounded{Listener: l, maxAll: maxAll, maxEach: maxEach, each: map[netip.Prefix]int{}}
}

// Accept returns the next connection that is within the bounds.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := originOf(c.RemoteAddr())
		if b.admit(from) {
			return &admitted{Conn: c, leave: sync.OnceFunc(func() { b.leave(from) })}, nil
		}
		_ = c.Close() // it was not taken
	}
}

func (b *bounded) admit(from netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.maxAll || b.each[from] >= b.maxEach {
		return false
	}
	b.all++
	b.each[from]++
	return true
}

func (b *bounded) leave(from netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.each[from]--; b.each[from] == 0 {
		delete(b.each, from)
	}
}

// originOf returns the network that counts as one origin: an address, or the /64 of an IPv6 address, which one machine
// may have as a whole.
func originOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := t.AddrPort().Addr().Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.WithZone("").Prefix(bits) // bits fit
	return p
}

// admitted is a connection that is counted.
type admitted struct {
	net.Conn
	leave func()
}

// Close ends the connection, and its count.
func (a *admitted) Close() error {
	a.leave()
	return a.Conn.Close()
}
