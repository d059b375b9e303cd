package main

import (
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// The long line: 100 ms for each request to arrive, 1 Gbit/s for all connections together. Toxiproxy delays what is
// sent; it models no congestion and no slow start, and its own bandwidth limit holds per connection, so the shared one
// is the counting proxy's.
const (
	lineDelay = 100         // milliseconds
	lineRate  = 125_000_000 // bytes per second
)

// longLine puts the line before the server at addr; it returns the line's near end and what takes it away.
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
