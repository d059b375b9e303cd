package bucket

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestReceiveBoundsWhatIsTakenAhead: if a reader pauses, its connection buffers
// no more than its bound, also if that is set while it is open.
func TestReceiveBoundsWhatIsTakenAhead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var sent atomic.Int64
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetWriteBuffer(16 << 10)
		b := make([]byte, 16<<10)
		for {
			n, err := c.Write(b)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	var r Receive
	c, err := r.boundDial((&net.Dialer{}).DialContext)(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A greedy reader makes the system give it a large buffer.
	b := make([]byte, 1<<20)
	var got int64
	for got < 16<<20 {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += int64(n)
	}
	r.Set(32 << 10)
	still := func() int64 {
		for before := int64(-1); ; {
			now := sent.Load()
			if now == before {
				return now - got
			}
			before = now
			<-time.After(200 * time.Millisecond)
		}
	}
	still()
	for got < 18<<20 { // data buffered before the bound was set comes first
		n, err := c.Read(b[:64<<10])
		if err != nil {
			t.Fatal(err)
		}
		got += int64(n)
	}
	if n := still(); n > 512<<10 {
		t.Errorf("%d bytes are taken ahead, want about 32 KiB and what the sender keeps", n)
	} else {
		t.Logf("%d bytes are taken ahead", n)
	}
}
