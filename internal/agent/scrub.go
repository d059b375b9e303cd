package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/apply"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/verify"
	"nightferry/internal/wire"
)

// A scrub reads every byte of a channel's files, in passes. Windows, halts and
// runs of the channel split a pass into pieces. The position is stored in the
// target, so that the next piece continues from it. Files that differ become
// suspects; a run of the channel then repairs or reports them.
const (
	// saveEvery is the interval at which a scrub saves its position. A killed
	// scrub loses at most this much work.
	saveEvery = 5 * time.Second
	// linger is how long a scrub continues after its first finding before it
	// stops to report: damage is seldom isolated.
	linger = 30 * time.Second
	// scrubRetry is the delay before a failed scrub is retried.
	scrubRetry = 30 * time.Minute
)

var (
	errYield = errors.New("a run of the channel is due")
	errFound = errors.New("record the scrub's findings for the report")
)

// scrubs is the state of the channels' scrubs.
type scrubs struct {
	s *session

	mu     sync.Mutex       // also guards each pass
	passes map[string]*pass // by channel
}

type pass struct {
	target      string
	began, done int64     // Unix seconds, as apply.Checks has them
	owed        bool      // a run is due to report the scrub's findings or its completion
	look        time.Time // when a check last reported differences that are still unrepaired
	retry       time.Time
}

// passOf returns the state of a channel's scrub. It reads it from the target once.
func (c *scrubs) passOf(want *wire.Desired, target string) (*pass, error) {
	c.mu.Lock()
	p := c.passes[want.Channel]
	c.mu.Unlock()
	if p != nil && p.target == want.Target {
		return p, nil
	}
	checks, err := apply.ReadChecks(target)
	if err != nil {
		return nil, err
	}
	p = &pass{target: want.Target, began: checks.Began, done: checks.Done, owed: checks.Any()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passes[want.Channel] = p
	return p, nil
}

// isOwed reports whether a run is due because of a scrub.
func (c *scrubs) isOwed(channel string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.passes[channel]
	return p != nil && p.owed
}

// noteLooked notes that a run has reported the state of the target.
func (c *scrubs) noteLooked(channel string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.passes[channel]; p != nil {
		p.owed, p.look = false, c.s.o.Now()
	}
}

// dueBesides extends the result of due with runs that scrubs owe. It delays a
// check whose differences were already reported and only wait for an operator's
// repair.
func (c *scrubs) dueBesides(want *wire.Desired, have *spool.Held, obeyed uint64, now, at time.Time, due bool, recheck time.Duration) (time.Time, bool) {
	if !holdsDesired(have, want) || want.Start > obeyed {
		return at, due
	}
	target, err := c.s.reachTarget(want.Target)
	if is[*apply.UnreadableError](err) {
		return now, true // the run reports it
	}
	if err != nil {
		return at, due
	}
	p, err := c.passOf(want, target)
	if err != nil {
		c.s.logNote(Warning, want.Channel, "findings of earlier checks cannot be read", err)
		return at, due
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.owed {
		return now, true
	}
	if again := p.look.Add(recheck); due && want.ReportOnly && now.Before(again) {
		return again, false
	}
	return at, due
}

// lastPass returns when the newest pass became due. A hash of site and channel
// spreads the passes over the period.
func lastPass(now time.Time, every time.Duration, site, channel string) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(site + "/" + channel)) // never fails
	offset := time.Duration(h.Sum64() % uint64(every))
	since := now.Sub(time.Unix(0, 0)) - offset
	return time.Unix(0, 0).Add(since - since%every + offset)
}

// passDue reports whether the newest due pass is still to be made. A completion
// time in the future comes from a clock that was ahead. It must not delay checks
// until then.
func passDue(done int64, last, now time.Time) bool {
	return done < last.Unix() || done > now.Unix()
}

// startScrub starts a scrub if one is due and nothing else runs. It returns the
// time until the next call.
func (a *agent) startScrub(ctx context.Context, g *errgroup.Group, state *wire.State, night *night, have []spool.Held, now time.Time) time.Duration {
	soon := never
	for i := range state.Desired {
		want := &state.Desired[i]
		if want.Scrub <= 0 || !holdsDesired(findHeld(have, want.Channel), want) {
			continue
		}
		target, err := a.reachTarget(want.Target)
		if err != nil {
			continue
		}
		p, err := a.scrubs.passOf(want, target)
		if err != nil {
			continue // dueBesides reports it
		}
		every := want.Scrub
		last := lastPass(night.motion.At(now), every, a.id.Site, want.Channel)
		a.scrubs.mu.Lock()
		due := p.began != 0 || passDue(p.done, night.motion.When(last), now)
		retry := p.retry
		a.scrubs.mu.Unlock()
		switch {
		case !due:
			soon = min(soon, max(time.Second, night.motion.When(last.Add(every)).Sub(now)))
			continue
		case now.Before(retry):
			soon = min(soon, retry.Sub(now))
			continue
		}
		open, again := night.isOpen(now, want.Channel, false)
		if !again.IsZero() {
			soon = min(soon, watch, max(again.Sub(now), time.Millisecond))
		}
		if open && wire.ValidName(want.Channel) {
			a.launchScrub(ctx, g, *want, p, target)
		}
	}
	return soon
}

// launchScrub runs a piece of a scrub if nothing else is running.
func (a *agent) launchScrub(ctx context.Context, g *errgroup.Group, want wire.Desired, p *pass, target string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.running) > 0 {
		return
	}
	j := &job{rate: newLimiter(0), scrub: true}
	var sc *scrub
	var failed error
	a.spawnJob(ctx, g, want.Channel, j, func(rctx context.Context) error {
		sc = &scrub{a: a, want: &want, stop: j.stop}
		if failed = sc.runScrub(rctx, target); failed != nil {
			a.logNote(Warning, want.Channel, "the scrub has failed, and is tried again", failed)
		}
		return nil
	}, func() {
		a.scrubs.mu.Lock()
		defer a.scrubs.mu.Unlock()
		p.began, p.done = sc.checks.Began, sc.checks.Done
		// If the scrub's own records vanished, or cannot be read, a run has to find out which other files did.
		p.owed = p.owed || sc.owed || failed != nil
		p.retry = time.Time{}
		if failed != nil {
			p.retry = a.o.Now().Add(scrubRetry)
		}
	})
}

// stopScrubs stops a scrub that blocks a run, and reports whether there is one. The
// end of the scrub wakes the loop that starts runs.
func stopScrubs(jobs map[string]*job, channel string) bool {
	found := false
	for name, j := range jobs {
		if j.scrub && (name == channel || len(jobs) >= schedule.MaxRuns) {
			j.stop(errYield)
			found = true
		}
	}
	return found
}

// scrub is one piece of a pass.
type scrub struct {
	a    *agent
	want *wire.Desired
	stop context.CancelCauseFunc

	checks apply.Checks // final state
	owed   bool
	saved  time.Time
	found  time.Time // time of the first finding; zero: none
	files  int64
	bad    error

	mu    sync.Mutex // guards the Inspection's checks while files are read
	parts map[string]verify.Part
}

// runScrub returns an error only if it was not stopped.
func (s *scrub) runScrub(ctx context.Context, target string) (err error) {
	now := s.a.o.Now
	x, err := apply.Inspect(target, apply.Options{Channel: s.want.Channel, Root: s.a.id.targetOpener(s.want.Target), Now: now})
	if errors.Is(err, apply.ErrNothingApplied) || errors.Is(err, apply.ErrUnfinished) || errors.Is(err, scan.ErrCorrupt) {
		s.owed = true // a run repairs it
		return err
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	defer func() { s.checks = *x.Checks }()
	c := x.Checks
	switch {
	case c.Done == 0 && c.Began == 0:
		c.Done = now().Unix() // every file was read when it was applied: the first pass waits for its time
		return x.Save()
	case c.Began == 0:
		c.Began, c.Cursor, c.Parts = now().Unix(), "", nil
		if err := x.Save(); err != nil {
			return err
		}
		s.a.logNote(Info, s.want.Channel, "a scrub begins: every byte is read", nil)
	default:
		s.a.logNote(Info, s.want.Channel, fmt.Sprintf("the scrub continues after %q", c.Cursor), nil)
	}
	next, err := x.Entries()
	if err != nil {
		return err
	}
	s.saved = now()
	before := len(c.Suspects)
	o, err := readOptions(&s.want.Policy)
	if err != nil {
		return err
	}
	o.After = c.Cursor
	o.Read = func(path string, _ int64) { s.noteRead(x, path) }
	s.parts = map[string]verify.Part{}
	for _, p := range c.Parts {
		o.Parts = append(o.Parts, verify.Part(p))
		s.parts[p.Path] = verify.Part(p)
	}
	o.Keep = func(p verify.Part) { s.keepPart(x, p) }
	var sum manifest.TreeHash
	entries := func() (*manifest.Entry, error) {
		e, _, err := next()
		if e != nil {
			sum.Add(e.Kind, e.Path, e.Digest)
		}
		return e, err
	}
	totals, err := verify.Run(ctx, target, entries, o, func(f verify.Finding) {
		if f.Problem == verify.Extra {
			return // the next run counts or removes it
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		c.Suspect(f.Path, string(f.Problem)+": "+f.Detail)
		if s.found.IsZero() {
			s.found = now()
		}
	})
	s.owed = len(c.Suspects) > before || !s.found.IsZero()
	s.a.logNote(Info, s.want.Channel, fmt.Sprintf("the scrub has read %d files with %d bytes, and found %d paths that differ", s.files, totals.Bytes, len(c.Suspects)-before), nil)
	switch {
	case s.bad != nil:
		return s.bad
	case err != nil && ctx.Err() != nil:
		return s.savePosition(x)
	case err != nil:
		return errors.Join(err, s.savePosition(x))
	}
	if x.Complete && sum.Sum() != x.Tree {
		c.All = true // the record does not match the release: a run reads every file and rebuilds it
		s.a.logNote(Warning, s.want.Channel, "the record of the applied release was changed: every file is read again", nil)
	}
	if err := x.Passed(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	s.owed = true
	s.a.logNote(Info, s.want.Channel, "the scrub is through", nil)
	return nil
}

// noteRead notes that all files up to and including path were read.
func (s *scrub) noteRead(x *apply.Inspection, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.Checks.Cursor = path
	delete(s.parts, path)
	s.files++
	s.savePeriodically(x)
}

// keepPart notes how much of a large file was read.
func (s *scrub) keepPart(x *apply.Inspection, p verify.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[p.Path] = p
	s.savePeriodically(x)
}

// savePeriodically saves the position every saveEvery. The caller holds s.mu.
func (s *scrub) savePeriodically(x *apply.Inspection) {
	now := s.a.o.Now()
	if now.Sub(s.saved).Abs() >= saveEvery {
		s.saved = now
		if err := s.savePosition(x); err != nil {
			s.bad = err
			s.stop(err)
		}
	}
	if !s.found.IsZero() && now.Sub(s.found).Abs() >= linger {
		s.stop(errFound)
	}
}

func (s *scrub) savePosition(x *apply.Inspection) error {
	x.Checks.Parts = x.Checks.Parts[:0]
	for _, path := range slices.Sorted(maps.Keys(s.parts)) {
		x.Checks.Parts = append(x.Checks.Parts, apply.Part(s.parts[path]))
	}
	return x.Save()
}
