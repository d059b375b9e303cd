package console

import (
	"sync"
	"time"

	"nightferry/internal/query"
)

const (
	sampleEvery = 2 * time.Second
	maxSamples  = 20_000
)

// speeds measures how fast transfers are, from the progress that pages see.
type speeds struct {
	now  func() time.Time
	mu   sync.Mutex
	last map[string]sample // by run
}

type sample struct {
	at    time.Time
	bytes int64
	rate  float64 // bytes per second, before at
	known bool
}

// speedOf returns the speed of a transfer in bytes per second. It is not known before its progress was seen twice.
func (c *Console) speedOf(ch *query.ChannelStatus) (float64, bool) {
	if ch.Progress == nil || ch.Run == "" {
		return 0, false
	}
	s := &c.speed
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || len(s.last) > maxSamples {
		s.last = map[string]sample{}
	}
	now := s.now()
	x, seen := s.last[ch.Run]
	if d := now.Sub(x.at); !seen || d < 0 || ch.Progress.BytesWire < x.bytes {
		s.last[ch.Run] = sample{at: now, bytes: ch.Progress.BytesWire}
		return 0, false
	} else if d >= sampleEvery {
		x = sample{now, ch.Progress.BytesWire, float64(ch.Progress.BytesWire-x.bytes) / d.Seconds(), true}
		s.last[ch.Run] = x
	}
	return x.rate, x.known
}
