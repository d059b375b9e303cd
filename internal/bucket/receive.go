package bucket

import (
	"context"
	"net"
	"sync"
)

// Receive bounds the receive buffers of the system. A paced reader paces the
// line only as exactly as these buffers are small. By default, the system lets
// them grow to megabytes for each connection. When a limit comes into force, it
// fills them at the line's speed, and then drains them in bursts. The zero
// Receive leaves them to the system. It is safe for concurrent use.
type Receive struct {
	mu    sync.Mutex
	bytes int
	open  map[*received]struct{}
}

// Set bounds the buffer of each connection, also of open ones, to about the
// given number of bytes. 0 leaves the buffers of new connections to the system;
// existing bounds stay.
func (r *Receive) Set(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes == bytes {
		return
	}
	r.bytes = bytes
	for c := range r.open {
		c.setReadBuffer(bytes)
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// boundDial returns next with its connections bounded.
func (r *Receive) boundDial(next dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		x := &received{Conn: c, of: r}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.open == nil {
			r.open = map[*received]struct{}{}
		}
		r.open[x] = struct{}{}
		x.setReadBuffer(r.bytes)
		return x, nil
	}
}

// received is a connection whose buffer may be bounded while it is open.
type received struct {
	net.Conn
	of *Receive
}

func (c *received) setReadBuffer(bytes int) {
	if b, ok := c.Conn.(interface{ SetReadBuffer(int) error }); ok && bytes > 0 {
		_ = b.SetReadBuffer(bytes) // without it, the pace is only less exact
	}
}

func (c *received) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
