package core

import (
	"errors"
	"fmt"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/query"
	"nightferry/internal/window"
)

// rehearsalFile, in the data folder, keeps the clock of its rehearsal, so
// that a restart goes on in the same night.
const rehearsalFile = "rehearsal.json"

// quickest is the least that a loop waits in a rehearsal: the machine is no
// faster than on other days.
const quickest = 250 * time.Millisecond

type keptRehearsal struct {
	Spec   string        `json:"spec"`
	Motion window.Motion `json:"motion"`
}

// checkPeriod returns how often to check the calendar, given the usual period.
func (t *clocks) checkPeriod(period time.Duration) time.Duration {
	if !t.motion.On() {
		return period
	}
	return min(period, max(quickest, t.motion.Real(period)))
}

// missedAfter is how long after a window's end a site has to tell of a run: in
// a rehearsal, too, it takes a while until it has.
func (t *clocks) missedAfter() time.Duration {
	if !t.motion.On() {
		return missedAfter
	}
	return max(missedAfter, t.motion.At(t.motion.From.Add(slowest)).Sub(t.motion.To))
}

// slowest is how long a word of a site may be on its way in a rehearsal.
const slowest = 3 * time.Second

// rehearsalView tells the time of the rehearsal; nil: this is none.
func (t *clocks) rehearsalView() *query.Rehearsal {
	if !t.motion.On() {
		return nil
	}
	return &query.Rehearsal{Time: t.wallTime(), Speed: t.motion.Speed}
}

// rehearsalParameters returns the parameters of the rehearsal that are sent to sites.
func (t *clocks) rehearsalParameters() []int64 {
	if !t.motion.On() {
		return nil
	}
	return []int64{t.motion.From.UnixMilli(), t.motion.To.UnixMilli(), t.motion.Speed}
}

// startRehearsal starts the clock of a rehearsal, or continues one that an earlier process started
// in the data folder dir. Without spec there is none. A rehearsal must not use a working fleet,
// because its sites would move content at noon. Rehearsal data must not be used for real work,
// because its records hold simulated times.
func startRehearsal(dir *durable.Root, data, spec string, now time.Time, enrolled func() (bool, error)) (m window.Motion, err error) {
	file := jsonFile{dir, rehearsalFile, 1 << 16}
	kept := keptRehearsal{}
	if err := file.loadFile(&kept); err != nil {
		return m, err
	}
	if kept.Spec != "" && (kept.Motion.Speed < 1 || kept.Motion.Speed > window.MaxSpeed) {
		return m, fmt.Errorf("read %s: a speed of %d", rehearsalFile, kept.Motion.Speed)
	}
	switch {
	case spec == "" && kept.Spec == "":
		return m, nil
	case spec == "":
		return m, fmt.Errorf("the data folder %s is a rehearsal's, and its records tell of times that were none: go on with --rehearse %s, or work with another data folder", data, kept.Spec)
	case kept.Spec == spec:
		return kept.Motion, nil
	}
	now = now.Truncate(time.Millisecond)
	if m, err = window.ParseMotion(spec, now); err != nil {
		return m, fmt.Errorf("rehearse %w", err)
	}
	if kept.Spec == "" {
		working, err := enrolled()
		if err != nil {
			return m, err
		}
		if working {
			return m, errors.New("rehearse: this Core has sites that are at work, and they would move content at any hour: rehearse with a Core of its own (core init), a bucket prefix of its own, and sites enrolled there")
		}
	} else if last := kept.Motion.At(now); m.To.Before(last) {
		return m, fmt.Errorf("rehearse %q: the rehearsal in %s has reached %s, and records do not go back: begin later, or in a new data folder", spec, data, last.UTC().Format(time.RFC3339))
	}
	if err := file.saveFile(keptRehearsal{spec, m}); err != nil {
		return m, fmt.Errorf("keep the rehearsal's clock: %w", err)
	}
	return m, nil
}

// Rehearsal returns the clock of the rehearsal; nil: this is none.
func (c *Core) Rehearsal() *query.Rehearsal { return c.clock.rehearsalView() }
