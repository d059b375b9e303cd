package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"nightferry/internal/window"
)

// rehearsalFile, in the data folder, keeps the clock of its rehearsal, so
// that a restart goes on in the same night.
const rehearsalFile = "rehearsal.json"

// quickest is the least that a loop waits in a rehearsal: the machine is no
// faster than on other days.
const quickest = 250 * time.Millisecond

// Rehearsal is the clock that the calendar is followed by in a rehearsal.
type Rehearsal struct {
	Time  time.Time `json:"time"`
	Speed int64     `json:"speed"`
}

type keptRehearsal struct {
	Spec   string        `json:"spec"`
	Motion window.Motion `json:"motion"`
}

// pace returns how often to check the calendar, given the usual period.
func (c *Core) pace(period time.Duration) time.Duration {
	if !c.motion.On() {
		return period
	}
	return min(period, max(quickest, c.motion.Real(period)))
}

// missedAfter is how long after a window's end a site has to tell of a run: in
// a rehearsal, too, it takes a while until it has.
func (c *Core) missedAfter() time.Duration {
	if !c.motion.On() {
		return missedAfter
	}
	return max(missedAfter, c.motion.At(c.motion.From.Add(slowest)).Sub(c.motion.To))
}

// slowest is how long a word of a site may be on its way in a rehearsal.
const slowest = 3 * time.Second

// Rehearsal tells the time of the rehearsal; nil: this is none.
func (c *Core) Rehearsal() *Rehearsal {
	if !c.motion.On() {
		return nil
	}
	return &Rehearsal{c.wall(), c.motion.Speed}
}

// rehearsal returns the parameters of the rehearsal that are sent to sites.
func (c *Core) rehearsal() []int64 {
	if !c.motion.On() {
		return nil
	}
	return []int64{c.motion.From.UnixMilli(), c.motion.To.UnixMilli(), c.motion.Speed}
}

// rehearse starts the clock of a rehearsal, or continues one that an earlier process started. A
// rehearsal must not use a working fleet, because its sites would move content at noon. Rehearsal
// data must not be used for real work, because its records hold simulated times.
func (c *Core) rehearse(ctx context.Context) error {
	kept, err := c.keptRehearsal()
	if err != nil {
		return err
	}
	spec := c.o.Rehearse
	switch {
	case spec == "" && kept == nil:
		return nil
	case spec == "":
		return fmt.Errorf("the data folder %s is a rehearsal's, and its records tell of times that were none: go on with --rehearse %s, or work with another data folder", c.o.Data, kept.Spec)
	case kept != nil && kept.Spec == spec:
		c.motion = kept.Motion
		return nil
	}
	now := c.o.Now().Truncate(time.Millisecond)
	m, err := window.ParseMotion(spec, now)
	if err != nil {
		return fmt.Errorf("rehearse %w", err)
	}
	if kept == nil {
		list, err := c.ledger.Identities(ctx, false)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return errors.New("rehearse: this Core has sites that are at work, and they would move content at any hour: rehearse with a Core of its own (core init), a bucket prefix of its own, and sites enrolled there")
		}
	} else if last := kept.Motion.At(now); m.To.Before(last) {
		return fmt.Errorf("rehearse %q: the rehearsal in %s has reached %s, and records do not go back: begin later, or in a new data folder", spec, c.o.Data, last.UTC().Format(time.RFC3339))
	}
	raw, err := json.Marshal(keptRehearsal{spec, m})
	if err == nil {
		err = c.dir.WriteFile(rehearsalFile, append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the rehearsal's clock: %w", err)
	}
	c.motion = m
	return nil
}

func (c *Core) keptRehearsal() (*keptRehearsal, error) {
	f, err := c.dir.Open(rehearsalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1<<16))
	k := &keptRehearsal{}
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(raw, k)
	}
	if err == nil && (k.Motion.Speed < 1 || k.Motion.Speed > window.MaxSpeed) {
		err = fmt.Errorf("a speed of %d", k.Motion.Speed)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", rehearsalFile, err)
	}
	return k, nil
}
