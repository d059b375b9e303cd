package main

import (
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// The long line: 100 ms for each request to arrive, 1 Gbit/s for all connections together. Toxiproxy only delays sent
// data; it models neither congestion nor slow start. Its bandwidth limit is per connection, so the counting proxy
// applies the shared limit.
const (
	lineDelay = 100         // milliseconds
	lineRate  = 125_000_000 // bytes per second
)

// longLine puts the line in front of the server at addr. It returns the near end's address and a function that removes
// it.
func (b *bench) longLine(addr string) (near string, hangUp func() error, err error) {
	if b.direct {
		return "", nil, fmt.Errorf("lay the long line: its rate is kept by the counting proxy, run it without -direct")
	}
	s := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(s, "line", "127.0.0.1:0", addr)
	if err := p.Start(); err != nil {
		return "", nil, fmt.Errorf("lay the long line: %w", err)
	}
	toxic := fmt.Sprintf(`{"name":"delay","type":"latency","stream":"upstream","attributes":{"latency":%d}}`, lineDelay)
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		p.Stop()
		return "", nil, fmt.Errorf("lay the long line: %w", err)
	}
	b.counter.limit.Store(rate.NewLimiter(lineRate, 256<<10))
	return p.Listen, func() error {
		b.counter.limit.Store(nil)
		p.Stop()
		return nil
	}, nil
}
