package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/incident"
	"nightferry/internal/kinds"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// clocks are this machine's clock, the store's and the calendar's. They are safe
// for concurrent use once motion is set.
type clocks struct {
	device    func() time.Time // this machine's
	storeTime func(context.Context) (time.Time, error)
	incidents *incident.Service
	skew      clock.Skew    // between this machine's clock and the store's
	motion    window.Motion // the calendar's clock in a rehearsal
}

// localTime is this machine's clock.
func (t *clocks) localTime() clock.Local { return clock.LocalAt(t.device()) }

// now is the store's time, as well as it is known: what the Core signs carries
// it, so that a wrong clock here stops no site.
func (t *clocks) now() time.Time { return t.skew.Store(t.localTime()).Time() }

// calendarTime is the time that windows and cadences follow and that records carry:
// the store's, but in a rehearsal.
func (t *clocks) calendarTime() clock.Calendar {
	if t.motion.On() {
		return clock.CalendarAt(t.motion.At(t.device()))
	}
	return clock.CalendarAt(t.now())
}

// realDuration returns how long a duration of the calendar takes.
func (t *clocks) realDuration(d time.Duration) time.Duration { return t.motion.Real(d) }

// wallTime is the calendar's time without its type.
func (t *clocks) wallTime() time.Time { return t.calendarTime().Time() }

// endTime is wallTime in Unix seconds, by which operators' limits end. It is 0 until the clocks were compared: a
// wrong clock here must not end them.
func (t *clocks) endTime() int64 {
	if !t.skew.Compared() {
		return 0
	}
	return t.wallTime().Unix()
}

// compareClocks asks the store for its time. Clocks that are apart are an
// incident; until they agree nothing is removed by its age, and no head is
// signed but by a publish, which the store's time dates.
func (t *clocks) compareClocks(ctx context.Context) error {
	before := t.localTime()
	date, err := t.storeTime(ctx)
	if err != nil {
		return err
	}
	t.skew.Compare(clock.StoreAt(date), before, t.localTime())
	if _, err := t.skew.Agreed(t.localTime()); err != nil {
		t.incidents.Raise(kinds.Clock, "core", wire.Address{}, fmt.Sprintf("the Core: %v: nothing is removed by its age and no head is signed again until they agree", err))
	} else {
		t.incidents.Resolve(kinds.Clock, "core", wire.Address{})
	}
	return nil
}

// agreedTime compares the clocks and returns the calendar's time if they agree.
// Whatever deletes by age, or signs by itself, asks it first.
func (t *clocks) agreedTime(ctx context.Context) (clock.Calendar, error) {
	if err := t.compareClocks(ctx); err != nil {
		return clock.Calendar{}, err
	}
	if _, err := t.skew.Agreed(t.localTime()); err != nil {
		return clock.Calendar{}, err
	}
	return t.calendarTime(), nil
}
