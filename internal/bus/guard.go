package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	guardEvery = time.Second
	// maxSame bounds the connections of one identity. An agent uses one; while it reconnects, the server may still
	// hold older ones.
	maxSame = 4
)

// guard disconnects peers that take more than their share of connections. NATS has no such limits.
type guard struct {
	ns      *server.Server
	pending int // maximum of connections without a credential for each address
	done    chan struct{}
	wait    sync.WaitGroup
}

func (g *guard) start(ns *server.Server, maxConn int) {
	g.ns, g.pending, g.done = ns, max(1, maxConn/4), make(chan struct{})
	g.wait.Go(func() {
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for {
			select {
			case <-g.done:
				return
			case <-tick.C:
				g.sweep()
			}
		}
	})
}

func (g *guard) stop() {
	if g.done != nil {
		close(g.done)
		g.wait.Wait()
	}
}

// sweep keeps the newest connections of each identity, and of each address the newest without a credential. A site
// behind a shared address therefore has time to show its own.
func (g *guard) sweep() {
	n := g.ns.NumClients()
	if n <= maxSame {
		return
	}
	list, err := g.ns.Connz(&server.ConnzOptions{Username: true, Sort: server.ByStart, Limit: 2 * n})
	if err != nil {
		return // the server is shutting down
	}
	same, pending := map[string]int{}, map[string]int{}
	for i := len(list.Conns) - 1; i >= 0; i-- { // newest first
		count, key, most := same, list.Conns[i].AuthorizedUser, maxSame
		if key == "" {
			count, key, most = pending, list.Conns[i].IP, g.pending
		}
		if count[key]++; count[key] > most {
			_ = g.ns.DisconnectClientByID(list.Conns[i].Cid) // an error: it has already ended
		}
	}
}
