package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/wire"
)

// local is this machine's clock.
func (c *Core) local() clock.Local { return clock.LocalAt(c.o.Now()) }

// now is the store's time, as well as it is known: what the Core signs carries
// it, so that a wrong clock here stops no site.
func (c *Core) now() time.Time { return c.skew.Store(c.local()).Time() }

// calendar is the time that windows and cadences follow and that records carry:
// the store's, but in a rehearsal.
func (c *Core) calendar() clock.Calendar {
	if c.motion.On() {
		return clock.CalendarAt(c.motion.At(c.o.Now()))
	}
	return clock.CalendarAt(c.now())
}

// wall is the calendar's time without its type.
func (c *Core) wall() time.Time { return c.calendar().Time() }

// compareClocks asks the store for its time. Clocks that are apart are an
// incident; until they agree nothing is removed by its age, and no head is
// signed but by a publish, which the store's time dates.
func (c *Core) compareClocks(ctx context.Context) error {
	before := c.local()
	body, info, err := c.store.Load().Get(ctx, "format", 0, -1)
	if err != nil {
		return err
	}
	after := c.local()
	body.Close()
	c.skew.Compare(clock.StoreAt(info.Date), before, after)
	if _, err := c.skew.Agreed(c.local()); err != nil {
		c.alarms.raise(Clock, "core", wire.Address{}, fmt.Sprintf("the Core: %v: nothing is removed by its age and no head is signed again until they agree", err))
	} else {
		c.alarms.over(Clock, "core", wire.Address{})
	}
	return nil
}

// agreed compares the clocks and returns the calendar's time if they agree.
// Whatever deletes by age, or signs by itself, asks it first.
func (c *Core) agreed(ctx context.Context) (clock.Calendar, error) {
	if err := c.compareClocks(ctx); err != nil {
		return clock.Calendar{}, err
	}
	if _, err := c.skew.Agreed(c.local()); err != nil {
		return clock.Calendar{}, err
	}
	return c.calendar(), nil
}
