package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/push"
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

// publishRetry is how long after a publish that failed the next try is.
const publishRetry = 15 * time.Minute

// beats is what the cadences' loop keeps; for one goroutine.
type beats struct {
	all   map[string]followed
	retry map[string]time.Time
}

// publishDue publishes every channel whose cadence says so, one after the
// other. What a halt or a fault holds back stays due; what a guard refuses
// waits for its next turn, since only a person can change that.
func (c *Core) publishDue(ctx context.Context, b *beats) {
	if b.all == nil {
		var err error
		if b.all, err = c.readCadences(); err != nil {
			c.trouble("cadence", err)
		}
		b.retry = map[string]time.Time{}
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
		if !ok || next.After(now) || now.Before(b.retry[ch.Name]) {
			continue
		}
		if h := c.halt.Load(); h != nil && h.orders.Find(halt.Subject{Channel: ch.Name}) != nil {
			continue
		}
		_, err := c.Publish(WithActor(ctx, "cadence "+text), ch.Name, PublishOptions{})
		if ctx.Err() != nil {
			return
		}
		guard := (*push.GuardError)(nil)
		if err != nil && !errors.As(err, &guard) {
			c.trouble("publish", fmt.Errorf("publish %s: %w", ch.Name, err))
			b.retry[ch.Name] = c.wall().Add(publishRetry)
			continue
		}
		delete(b.retry, ch.Name)
		c.follows(b, ch.Name, followed{text, next})
		if later, ok := cadence.Next(next, s.nights.openings[ch.Name]); ok && !later.After(now) {
			c.follows(b, ch.Name, followed{text, now}) // several were missed: once is enough
		}
	}
}

func (c *Core) follows(b *beats, channel string, at followed) {
	b.all[channel] = at
	raw, err := json.Marshal(b.all)
	if err == nil {
		err = c.state.WriteFile(cadenceFile, append(raw, '\n'), 0o600)
	}
	if err != nil {
		c.trouble("cadence", err)
	}
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
