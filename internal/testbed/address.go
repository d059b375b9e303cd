package testbed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

var addresses struct {
	sync.Mutex
	taken map[int]bool
}

// Address returns a loopback address that is free, for a server that stops and comes back at it. Its port is below the
// ranges from which systems take ports for connections, and for listeners that name none: tests that run beside take
// such a port as soon as the server has stopped.
func Address() (string, error) {
	addresses.Lock()
	defer addresses.Unlock()
	if addresses.taken == nil {
		addresses.taken = map[int]bool{}
	}
	var err error
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if addresses.taken[port] {
			continue
		}
		addresses.taken[port] = true
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
