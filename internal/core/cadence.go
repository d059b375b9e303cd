package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/halt"
	"nightferry/internal/halting"
	"nightferry/internal/push"
	"nightferry/internal/tasks"
	"nightferry/internal/window"
)

// cadenceFile is a file in the Core's state folder. It records up to when each channel's cadence
// was followed. A publish that was missed during a restart is therefore made up for, and a finished
// one is not repeated.
const cadenceFile = "cadence.json"

// followed is a channel's position in its cadence.
type followed struct {
	Cadence string    `json:"cadence"` // if the cadence differs from this one, nothing is due yet
	Upto    time.Time `json:"upto"`
}

// Delays before the next try after a publish that did not succeed.
const (
	publishRetry = 15 * time.Minute // it failed
	// A guard refused the source, but the reason may pass by itself: the delay before the first
	// window opens, and the delay after that.
	passingRetry = 5 * time.Minute
	refusedRetry = time.Hour
)

// attempt is a publish that did not succeed and will be tried again.
type attempt struct {
	at   time.Time
	wait time.Duration
}

// beats is the state shared by the cadence loop and the publishes that it starts.
type beats struct {
	mu      sync.Mutex
	all     map[string]followed
	tried   map[string]attempt
	running map[string]bool
}

// cadences publish channels when it is time.
type cadences struct {
	settings *atomic.Pointer[Settings]
	storage  *storage
	halting  *halting.Service
	tasks    *tasks.Service
	notices  *notices
	clock    *clocks
	older    func() error // non-nil if another Core has taken over
	asides   *sync.WaitGroup
	publish  func(ctx context.Context, channel string, o PublishOptions, quiet func(error) bool) (*Published, error)
}

// startDue starts a publish of every channel that is due, each in its own goroutine, so that a
// hanging source does not delay other channels. If a halt or a fault prevents a publish, it stays
// due. If a guard refuses it, the channel waits for its next turn, because only a person can fix
// that. A refusal that may pass by itself is tried again earlier.
func (d *cadences) startDue(ctx context.Context, b *beats) {
	if d.older() != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		var err error
		if b.all, err = d.readPositions(); err != nil {
			d.notices.ReportFailure("cadence", err)
		}
		b.tried, b.running = map[string]attempt{}, map[string]bool{}
	}
	s := d.settings.Load()
	for _, ch := range s.Fleet.Channels {
		now := d.clock.wallTime()
		cadence := s.nights.Cadence(ch.Name)
		at, text := b.all[ch.Name], cadence.String()
		if at.Cadence != text || at.Upto.After(now) { // new, or the clock was set back
			d.recordPosition(b, ch.Name, followed{text, now})
			continue
		}
		next, ok := cadence.Next(at.Upto, s.nights.Openings(ch.Name))
		if last := b.tried[ch.Name]; !ok || next.After(now) || !clock.Passed(last.at, now, last.wait) || b.running[ch.Name] {
			continue
		}
		if d.halting.Current().Find(halt.Subject{Channel: ch.Name}) != nil {
			continue
		}
		deadline := firstOpening(next, s.nights.Openings(ch.Name))
		if later, ok := cadence.Next(next, s.nights.Openings(ch.Name)); ok && !later.After(now) {
			next = now // several were missed: once is enough
		}
		b.running[ch.Name] = true
		d.asides.Go(func() { d.publishDue(ctx, b, ch.Name, followed{text, next}, deadline) })
	}
}

// firstOpening returns when the first window opens after a time, or that time if no window opens.
func firstOpening(after time.Time, openings []window.Opening) time.Time {
	first := after
	for _, o := range openings {
		if w, ok := window.Next(after, o.At, o.Rule); ok && (first.Equal(after) || w.Start.Before(first)) {
			first = w.Start
		}
	}
	return first
}

// publishDue publishes a channel for its cadence and records up to when the cadence was followed.
// If a guard refuses the source for a reason that may pass by itself, that is an incident only
// after the deadline.
func (d *cadences) publishDue(ctx context.Context, b *beats, channel string, then followed, deadline time.Time) {
	early := d.clock.wallTime().Before(deadline)
	passing := func(err error) bool {
		guard := (*push.GuardError)(nil)
		return errors.As(err, &guard) && guard.Passing()
	}
	err := d.tasks.Once(ctx, tasks.Task{Name: publishTask + channel, Bound: lateLong, Do: func(ctx context.Context) error {
		_, err := d.publish(WithActor(ctx, "cadence "+then.Cadence), channel, PublishOptions{}, func(err error) bool { return early && passing(err) })
		return err
	}})
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, channel)
	if err != nil && ctx.Err() != nil {
		return // the Core stops: it is due again at the next start
	}
	guard := (*push.GuardError)(nil)
	switch {
	case passing(err) && early:
		b.tried[channel] = attempt{d.clock.wallTime(), passingRetry}
		return
	case passing(err):
		b.tried[channel] = attempt{d.clock.wallTime(), refusedRetry}
		return
	case err != nil && !errors.As(err, &guard):
		d.notices.ReportFailure("publish", fmt.Errorf("publish %s: %w", channel, err))
		b.tried[channel] = attempt{d.clock.wallTime(), publishRetry}
		return
	}
	delete(b.tried, channel)
	d.recordPosition(b, channel, then)
}

// recordPosition records a channel's position in its cadence. b.mu is held.
func (d *cadences) recordPosition(b *beats, channel string, at followed) {
	b.all[channel] = at
	if err := (jsonFile{d.storage.state, cadenceFile, 1 << 20}).saveFile(b.all); err != nil {
		d.notices.ReportFailure("cadence", err)
		return
	}
	d.notices.ReportSuccess("cadence")
}

func (d *cadences) readPositions() (map[string]followed, error) {
	all := map[string]followed{}
	if err := (jsonFile{d.storage.state, cadenceFile, 1 << 20}).loadFile(&all); err != nil {
		return map[string]followed{}, err
	}
	return all, nil
}
