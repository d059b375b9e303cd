package testbed

import (
	"net"
	"testing"
)

// TestAddress checks that addresses differ, can be listened on, and are none that a system hands out by itself: below
// the lowest range, which is Linux's.
func TestAddress(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		addr, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if port := l.Addr().(*net.TCPAddr).Port; port >= 32768 || seen[addr] {
			t.Errorf("%s, seen before: %v", addr, seen[addr])
		}
		seen[addr] = true
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
