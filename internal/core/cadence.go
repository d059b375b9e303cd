package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/halt"
	"nightferry/internal/push"
	"nightferry/internal/tasks"
	"nightferry/internal/window"
)

// cadenceFile remembers, below the Core's state, up to when each channel's
// cadence was followed, so that a publish that fell into a restart is made up
// for, and one that was done is not done again.
const cadenceFile = "cadence.json"

// followed is a channel's place in its cadence.
type followed struct {
	Cadence string    `json:"cadence"` // of another one, nothing is due yet
	Upto    time.Time `json:"upto"`
}

// How long after a publish that did not succeed the next try is.
const (
	publishRetry = 15 * time.Minute // it failed
	// A guard refused a source that may pass by itself: until the first window
	// opens, and after that.
	passingRetry = 5 * time.Minute
	refusedRetry = time.Hour
)

// attempt is a publish that did not succeed and is tried again.
type attempt struct {
	at   time.Time
	wait time.Duration
}

// beats is what the cadences' loop, and the publishes that it starts, keep.
type beats struct {
	mu      sync.Mutex
	all     map[string]followed
	tried   map[string]attempt
	running map[string]bool
}

// publishDue starts to publish every channel whose cadence says so, each by
// itself: a source that hangs holds up no other channel. What a halt or a fault
// holds back stays due; what a guard refuses waits for its next turn, since only
// a person can change that, unless it may pass by itself.
func (c *Core) publishDue(ctx context.Context, b *beats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		var err error
		if b.all, err = c.readCadences(); err != nil {
			c.trouble("cadence", err)
		}
		b.tried, b.running = map[string]attempt{}, map[string]bool{}
	}
	s := c.settings.Load()
	for _, ch := range s.Fleet.Channels {
		now := c.wall()
		cadence := s.nights.cadences[ch.Name]
		at, text := b.all[ch.Name], cadence.String()
		if at.Cadence != text || at.Upto.After(now) { // new, or the clock was set back
			c.follows(b, ch.Name, followed{text, now})
			continue
		}
		next, ok := cadence.Next(at.Upto, s.nights.openings[ch.Name])
		if last := b.tried[ch.Name]; !ok || next.After(now) || !clock.Passed(last.at, now, last.wait) || b.running[ch.Name] {
			continue
		}
		if c.halting.Current().Find(halt.Subject{Channel: ch.Name}) != nil {
			continue
		}
		deadline := firstOpening(next, s.nights.openings[ch.Name])
		if later, ok := cadence.Next(next, s.nights.openings[ch.Name]); ok && !later.After(now) {
			next = now // several were missed: once is enough
		}
		b.running[ch.Name] = true
		c.asides.Go(func() { c.publishTurn(ctx, b, ch.Name, followed{text, next}, deadline) })
	}
}

// firstOpening returns when the first window opens after a time, or that time if none
// does.
func firstOpening(after time.Time, openings []window.Opening) time.Time {
	first := after
	for _, o := range openings {
		if w, ok := window.Next(after, o.At, o.Rule); ok && (first.Equal(after) || w.Start.Before(first)) {
			first = w.Start
		}
	}
	return first
}

// publishTurn publishes a channel for its cadence, and notes up to when that was
// followed then. A source that may pass by itself is an incident from the deadline on.
func (c *Core) publishTurn(ctx context.Context, b *beats, channel string, then followed, deadline time.Time) {
	early := c.wall().Before(deadline)
	passing := func(err error) bool {
		guard := (*push.GuardError)(nil)
		return errors.As(err, &guard) && guard.Passing()
	}
	err := c.tasks.Once(ctx, tasks.Task{Name: publishTask + channel, Bound: lateLong, Do: func(ctx context.Context) error {
		_, err := c.publishUnless(WithActor(ctx, "cadence "+then.Cadence), channel, PublishOptions{}, func(err error) bool { return early && passing(err) })
		return err
	}})
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, channel)
	if ctx.Err() != nil {
		return
	}
	guard := (*push.GuardError)(nil)
	switch {
	case passing(err) && early:
		b.tried[channel] = attempt{c.wall(), passingRetry}
		return
	case passing(err):
		b.tried[channel] = attempt{c.wall(), refusedRetry}
		return
	case err != nil && !errors.As(err, &guard):
		c.trouble("publish", fmt.Errorf("publish %s: %w", channel, err))
		b.tried[channel] = attempt{c.wall(), publishRetry}
		return
	}
	delete(b.tried, channel)
	c.follows(b, channel, then)
}

// follows notes a channel's place in its cadence. b.mu is held.
func (c *Core) follows(b *beats, channel string, at followed) {
	b.all[channel] = at
	raw, err := json.Marshal(b.all)
	if err == nil {
		err = c.state.WriteFile(cadenceFile, append(raw, '\n'), 0o600)
	}
	if err != nil {
		c.trouble("cadence", err)
		return
	}
	c.works("cadence")
}

func (c *Core) readCadences() (map[string]followed, error) {
	all := map[string]followed{}
	if err := c.recall(cadenceFile, 1<<20, &all); err != nil {
		return map[string]followed{}, err
	}
	return all, nil
}

// recall reads a file of the Core's folder of state, of at most so many bytes,
// into what it was written from; one that is not there leaves that alone.
func (c *Core) recall(name string, most int64, into any) error {
	f, err := c.state.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(f, most))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
