package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
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

// A scrub reads every byte that lies at the site, in passes. A pass is cut into
// as many pieces as windows, halts and runs of the channel make of it; where it
// is lies in the target, so that whoever comes next goes on from there. What a
// pass finds is suspect, which a run of the channel then repairs or reports.
const (
	// saveEvery is how often a scrub makes durable how far it is: what it loses
	// when it is killed.
	saveEvery = 5 * time.Second
	// linger is how long a scrub goes on after it has found something, because
	// damage seldom comes alone, before that is told.
	linger = 30 * time.Second
	// scrubRetry is when a scrub that failed is tried again.
	scrubRetry = 30 * time.Minute
)

var (
	errYield = errors.New("a run of the channel is due")
	errFound = errors.New("what was found is to be told")
)

// scrubbing is what the agent knows of its scrubs. It is guarded by agent.mu.
type scrubbing struct {
	passes map[string]*pass // by channel
}

type pass struct {
	target      string
	began, done int64     // Unix seconds, as apply.Checks has them
	owed        bool      // a run is due that tells what the scrub has found, or that it is through
	look        time.Time // when a check last told what differs, which nothing has repaired
	retry       time.Time
}

// passOf returns what is known of a channel's scrub, reading it once.
func (a *agent) passOf(want *wire.Desired, target string) (*pass, error) {
	a.mu.Lock()
	p := a.passes[want.Channel]
	a.mu.Unlock()
	if p != nil && p.target == want.Target {
		return p, nil
	}
	c, err := apply.ReadChecks(target)
	if err != nil {
		return nil, err
	}
	p = &pass{target: want.Target, began: c.Began, done: c.Done, owed: c.Any()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.passes == nil {
		a.passes = map[string]*pass{}
	}
	a.passes[want.Channel] = p
	return p, nil
}

// owed reports whether a run is due because of what a scrub has done.
func (a *agent) owed(channel string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.passes[channel]
	return p != nil && p.owed
}

// looked notes that a run has told how the target is.
func (a *agent) looked(channel string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.passes[channel]; p != nil {
		p.owed, p.look = false, a.o.Now()
	}
}

// dueBesides adds to what due says what scrubs owe, and takes away what was
// looked at already, and only waits for somebody to order its repair.
func (a *agent) dueBesides(want *wire.Desired, have *spool.Held, obeyed uint64, now, at time.Time, due bool) (time.Time, bool) {
	if !holds(have, want) || want.Start > obeyed {
		return at, due
	}
	target, err := allowed(a.id.Allow, want.Target)
	if err != nil {
		return at, due
	}
	p, err := a.passOf(want, target)
	if err != nil {
		a.note(Warning, want.Channel, "what checks have found cannot be read", err)
		return at, due
	}
	recheck := a.shortened(a.o.Recheck)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.owed {
		return now, true
	}
	if again := p.look.Add(recheck); due && want.ReportOnly && now.Before(again) {
		return again, false
	}
	return at, due
}

// lastPass is when the newest pass became due. Passes of a period are spread
// over it by the names of site and channel.
func lastPass(now time.Time, every time.Duration, site, channel string) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(site + "/" + channel)) // never fails
	offset := time.Duration(h.Sum64() % uint64(every))
	since := now.Sub(time.Unix(0, 0)) - offset
	return time.Unix(0, 0).Add(since - since%every + offset)
}

// passDue reports whether the pass that became due last is still to be made. One
// that was noted as done in the future was noted by a clock that was ahead: it
// must not keep the site from checking until then.
func passDue(done int64, last, now time.Time) bool {
	return done < last.Unix() || done > now.Unix()
}

// startScrub starts a scrub, if one is due and nothing else is, and returns how
// long until that is to be asked again.
func (a *agent) startScrub(ctx context.Context, g *errgroup.Group, state *wire.State, night *night, have []spool.Held, now time.Time) time.Duration {
	soon := never
	for i := range state.Desired {
		want := &state.Desired[i]
		if want.Scrub <= 0 || !holds(held(have, want.Channel), want) {
			continue
		}
		target, err := allowed(a.id.Allow, want.Target)
		if err != nil {
			continue
		}
		p, err := a.passOf(want, target)
		if err != nil {
			continue // told by dueBesides
		}
		every := want.Scrub
		last := lastPass(night.motion.At(now), every, a.id.Site, want.Channel)
		a.mu.Lock()
		due := p.began != 0 || passDue(p.done, night.motion.When(last), now)
		retry := p.retry
		a.mu.Unlock()
		switch {
		case !due:
			soon = min(soon, max(time.Second, night.motion.When(last.Add(every)).Sub(now)))
			continue
		case now.Before(retry):
			soon = min(soon, retry.Sub(now))
			continue
		}
		open, again := night.open(now, want.Channel, false)
		if !again.IsZero() {
			soon = min(soon, watch, max(again.Sub(now), time.Millisecond))
		}
		if open && wire.ValidName(want.Channel) {
			a.launchScrub(ctx, g, *want, p, target)
		}
	}
	return soon
}

// launchScrub runs a piece of a scrub, if nothing at all is running.
func (a *agent) launchScrub(ctx context.Context, g *errgroup.Group, want wire.Desired, p *pass, target string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.running) > 0 || a.haltedNow(want.Channel) != nil || a.failSafe != nil {
		return
	}
	j := &job{rate: newLimiter(0), scrub: true}
	var sc *scrub
	var failed error
	a.spawn(ctx, g, want.Channel, j, func(rctx context.Context) error {
		sc = &scrub{a: a, want: &want, stop: j.stop}
		if failed = sc.run(rctx, target); failed != nil {
			a.note(Warning, want.Channel, "the scrub has failed, and is tried again", failed)
		}
		return nil
	}, func() {
		p.began, p.done = sc.checks.Began, sc.checks.Done
		// If its own records vanished under it, a run has to find out what else did.
		p.owed = p.owed || sc.owed || errors.Is(failed, fs.ErrNotExist)
		p.retry = time.Time{}
		if failed != nil {
			p.retry = a.o.Now().Add(scrubRetry)
		}
	})
}

// yield makes a scrub end that stands in a run's way, and reports whether there
// is one: its end wakes whoever starts runs. It is called with a.mu held.
func (a *agent) yield(channel string) bool {
	found := false
	for name, j := range a.running {
		if j.scrub && (name == channel || len(a.running) >= schedule.MaxRuns) {
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

	checks apply.Checks // at its end
	owed   bool
	saved  time.Time
	found  time.Time // when something was first found; zero: nothing
	files  int64
	bad    error

	mu    sync.Mutex // of the Inspection's checks, while files are read
	parts map[string]verify.Part
}

// run returns an error only when nothing stopped it.
func (s *scrub) run(ctx context.Context, target string) (err error) {
	now := s.a.o.Now
	x, err := apply.Inspect(target, apply.Options{Channel: s.want.Channel, Root: s.a.opener(s.want.Target), Now: now})
	if errors.Is(err, apply.ErrNothingApplied) || errors.Is(err, apply.ErrUnfinished) || errors.Is(err, scan.ErrCorrupt) {
		s.owed = true // a run puts it right
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
		c.Done = now().Unix() // all was read when it was put there: the first pass comes in its turn
		return x.Save()
	case c.Began == 0:
		c.Began, c.Cursor, c.Parts = now().Unix(), "", nil
		if err := x.Save(); err != nil {
			return err
		}
		s.a.note(Info, s.want.Channel, "a scrub begins: every byte is read", nil)
	default:
		s.a.note(Info, s.want.Channel, fmt.Sprintf("the scrub goes on after %q", c.Cursor), nil)
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
	o.Read = func(path string, _ int64) { s.read(x, path) }
	s.parts = map[string]verify.Part{}
	for _, p := range c.Parts {
		o.Parts = append(o.Parts, verify.Part(p))
		s.parts[p.Path] = verify.Part(p)
	}
	o.Keep = func(p verify.Part) { s.keep(x, p) }
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
			return // the next run counts it, or removes it
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		c.Suspect(f.Path, string(f.Problem)+": "+f.Detail)
		if s.found.IsZero() {
			s.found = now()
		}
	})
	s.owed = len(c.Suspects) > before || !s.found.IsZero()
	s.a.note(Info, s.want.Channel, fmt.Sprintf("the scrub has read %d files with %d bytes, and found %d paths that differ", s.files, totals.Bytes, len(c.Suspects)-before), nil)
	switch {
	case s.bad != nil:
		return s.bad
	case err != nil && ctx.Err() != nil:
		return s.save(x)
	case err != nil:
		return errors.Join(err, s.save(x))
	}
	if x.Complete && sum.Sum() != x.Tree {
		c.All = true // the record is not the release's: a run reads every file, and makes it anew
		s.a.note(Warning, s.want.Channel, "the record of what was applied was changed: every file is read again", nil)
	}
	if err := x.Passed(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	s.owed = true
	s.a.note(Info, s.want.Channel, "the scrub is through", nil)
	return nil
}

// read notes that all up to and including a path was read.
func (s *scrub) read(x *apply.Inspection, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.Checks.Cursor = path
	delete(s.parts, path)
	s.files++
	s.tick(x)
}

// keep notes how far a large file was read.
func (s *scrub) keep(x *apply.Inspection, p verify.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[p.Path] = p
	s.tick(x)
}

// tick saves now and then. It is called with s.mu held.
func (s *scrub) tick(x *apply.Inspection) {
	now := s.a.o.Now()
	if now.Sub(s.saved).Abs() >= saveEvery {
		s.saved = now
		if err := s.save(x); err != nil {
			s.bad = err
			s.stop(err)
		}
	}
	if !s.found.IsZero() && now.Sub(s.found).Abs() >= linger {
		s.stop(errFound)
	}
}

func (s *scrub) save(x *apply.Inspection) error {
	x.Checks.Parts = x.Checks.Parts[:0]
	for _, path := range slices.Sorted(maps.Keys(s.parts)) {
		x.Checks.Parts = append(x.Checks.Parts, apply.Part(s.parts[path]))
	}
	return x.Save()
}
