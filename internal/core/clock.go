package core

import (
	"context"
	"sync/atomic"
	"time"
)

// storeClock is how far the store's clock is ahead of ours: what the Core
// signs carries the store's time, so that a wrong clock here stops no site.
type storeClock struct {
	started time.Time // by our clock
	ahead   atomic.Int64
}

// now is the store's time, as well as we know it.
func (c *Core) now() time.Time { return c.o.Now().Add(time.Duration(c.clock.ahead.Load())) }

// measure asks the store for its time. Its answer has whole seconds, so a
// difference of less than two is none.
func (c *Core) measure(ctx context.Context) error {
	before := c.o.Now()
	body, info, err := c.store.Load().Get(ctx, "format", 0, 1)
	if err != nil {
		return err
	}
	after := c.o.Now()
	body.Close()
	if info.Date.IsZero() {
		return nil
	}
	ahead := info.Date.Add(500 * time.Millisecond).Sub(before.Add(after.Sub(before) / 2))
	if ahead.Abs() < 2*time.Second {
		ahead = 0
	}
	c.clock.ahead.Store(int64(ahead))
	return nil
}
