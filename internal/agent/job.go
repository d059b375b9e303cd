package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// errSuperseded ends a run whose release is no longer desired.
var errSuperseded = errors.New("the Core wants something else now")

// bringChannel brings one channel to its desired release, in one run. planAgain reports
// that it must be retried later. ctx ends with the process and leaves the run
// open for the next one; rctx also ends with a halt.
func (a *agent) bringChannel(ctx, rctx context.Context, j *job, want wire.Desired, left *spool.Run) (again bool, err error) {
	if left != nil && (left.Number != want.Number || left.Release != want.Release || left.Target != want.Target || left.Start != want.Start && want.Start > left.Start) {
		if err := a.endAbandoned(ctx, rctx, *left); err != nil {
			return true, a.reportFullDisk(ctx, err) // the run stays open
		}
		return false, nil
	}
	target, err := a.reachTarget(want.Target)
	if err != nil {
		return a.endUnreached(ctx, want, left, err)
	}
	r, err := a.beginRun(ctx, want, left)
	if err != nil {
		return true, a.reportFullDisk(ctx, err)
	}
	if r.Check > 0 {
		return a.checkTarget(ctx, rctx, &want, r, target)
	}
	wait := a.o.Retry
	for {
		res, aerr := a.attemptRun(rctx, j, &r, want, target)
		if rctx.Err() != nil {
			if a.halts.restJob(j) {
				_ = bucket.Close(a.store) // idle connections only; this cannot fail for the agent's own store
			}
			// An operation that waited for the network reports only that it was interrupted.
			if cause := context.Cause(rctx); aerr != nil && ctx.Err() == nil && !errors.Is(aerr, cause) {
				aerr = fmt.Errorf("%w (%w)", cause, aerr)
			}
		}
		switch {
		case errors.Is(aerr, apply.ErrUnfinished):
			a.noteUnfinished(&r)
			return false, nil // continues under the same id
		case ctx.Err() != nil:
			return false, nil // continues under the same id
		case aerr != nil && isTransient(aerr) && rctx.Err() == nil:
			a.logNote(Warning, r.Channel, "the store is not to be had now", aerr)
			if err := a.reportProblem(ctx, ProblemStore, r.Channel, fmt.Sprintf("channel %s cannot be fetched: %v", r.Channel, aerr)); err != nil {
				return false, err
			}
			if a.isSuperseded(&r) {
				aerr = errors.Join(errSuperseded, aerr)
				break
			}
			noteStuck(a, r.Channel, &wire.Wait{Channel: r.Channel, Why: retryReason(aerr), Until: a.o.Now().Add(wait).Unix(), Text: aerr.Error()})
			pause := time.NewTimer(wait)
			select {
			case <-rctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			noteStuck(a, r.Channel, nil)
			wait = min(2*wait, maxRetry)
			if ctx.Err() != nil {
				return false, nil
			}
			continue
		}
		return a.finishRun(ctx, rctx, r, want, res, aerr)
	}
}

// noteUnfinished notes that a halt order interrupted a commit.
func (a *agent) noteUnfinished(r *spool.Run) {
	a.preparing.dropPlan(r.Channel) // the commit is finished also outside a window, see mend
	a.logNote(Warning, r.Channel, fmt.Sprintf("release %d: stopped in the middle of its commit, and continues from there", r.Number), nil)
}

// isSuperseded reports whether the Core now wants another release.
func (a *agent) isSuperseded(r *spool.Run) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := findDesired(a.state, r.Channel)
	return d == nil || d.Number != r.Number || d.Release != r.Release || d.Target != r.Target
}

// reportFullDisk reports a full disk as an incident. It returns other errors unchanged.
func (c *session) reportFullDisk(ctx context.Context, err error) error {
	if !errors.Is(err, spool.ErrFull) && !durable.IsDiskFull(err) {
		return err
	}
	c.logNote(Error, "", "the agent's disk is full: nothing starts", err)
	return c.reportProblem(ctx, ProblemDisk, "", fmt.Sprintf("the agent's own disk is full: %v: free space there", err))
}

func (a *agent) beginRun(ctx context.Context, want wire.Desired, left *spool.Run) (spool.Run, error) {
	if left != nil {
		a.logNote(Info, want.Channel, fmt.Sprintf("continues a run of release %d", left.Number), nil)
		return *left, nil
	}
	r := spool.Run{ID: random16(), Channel: want.Channel, Number: want.Number, Release: want.Release, Target: want.Target, Start: want.Start, Began: a.o.Now().Unix()}
	obeyed, err := a.spool.Obeyed(ctx, want.Channel)
	if err != nil {
		return r, err
	}
	if want.Start <= obeyed {
		r.Start = 0 // by itself
	} else {
		r.DryRun = want.DryRun
	}
	holds, err := a.spool.Holds(ctx)
	if err != nil {
		return r, err
	}
	s := wire.Started{Number: r.Number, Release: r.Release, Start: r.Start, DryRun: r.DryRun}
	h := findHeld(holds, r.Channel)
	if h != nil && h.Target == r.Target {
		s.Parent = h.Number
	}
	r.Check, s.Trigger = checkMode(&want, obeyed, h, a.scrubs.isOwed(r.Channel))
	body, err := wire.Encode(&s)
	if err != nil {
		return r, err
	}
	err = a.spool.Begin(ctx, r, wire.Event{Run: r.ID, Channel: r.Channel, At: a.o.Now().UnixMilli(), Kind: wire.StartedEvent, Body: body})
	a.report.wake()
	if err == nil {
		a.logNote(Info, r.Channel, fmt.Sprintf("release %d begins", r.Number), nil)
	}
	return r, err
}

// applyOptions returns the options for apply, except the run's purpose.
func (a *agent) applyOptions(ctx context.Context, r *spool.Run, t *eventRecorder) apply.Options {
	subject := a.halts.subjectOf(r.Channel)
	return apply.Options{Channel: r.Channel, Root: a.id.targetOpener(r.Target), Held: a.fills.heldIn(ctx, r.Channel, r.Target), Now: a.o.Now, RootKey: &a.id.Root, Key: a.id.repo, Subject: subject,
		OnEvent: t.handleEvent, Observer: a.o.Observer,
		Gate: func(context.Context) error {
			if h := a.halts.haltOrder(r.Channel); h != nil {
				return &halt.Error{Order: *h}
			}
			return t.flushError()
		},
		Intend: func(each func(func(apply.Event) error) error) error {
			return a.spool.Intend(ctx, r.Channel, r.Pass, func(yield func(spool.File) error) error {
				return each(func(e apply.Event) error { return yield(outcomeOf(&e)) })
			})
		},
		Settle: func(other []apply.Event) error {
			var all []spool.File
			for i := range other {
				all = append(all, outcomeOf(&other[i]))
			}
			return a.spool.Settle(ctx, r.Channel, r.Pass, all)
		}}
}

// attemptRun makes one try of a run.
func (a *agent) attemptRun(ctx context.Context, j *job, r *spool.Run, want wire.Desired, target string) (*apply.Result, error) {
	var err error
	if r.Pass, err = a.spool.Pass(ctx, r.Channel); err != nil {
		return nil, err
	}
	// Work that apply has done must be recorded, even if the run is stopped meanwhile.
	keep := context.WithoutCancel(ctx)
	t := &eventRecorder{a: a, ctx: keep, run: r, moved: &j.moved}
	o := a.applyOptions(keep, r, t)
	o.Release, o.Digest = r.Number, r.Release
	o.Policy, o.DryRun, o.Seeds = want.Policy, r.DryRun, a.o.Seeds
	o.Rehash = want.Rehash && r.Start > 0
	o.Adopt = want.Adopt && r.Start > 0
	checks, err := readOptions(&want.Policy)
	if err != nil {
		return nil, err
	}
	o.Limit = checks.Limit
	s := &store{Store: a.store, urls: a.urls, moved: &j.moved, limits: []*rate.Limiter{a.rate, j.rate}, date: func(d time.Time) { a.storeClock.set(d, a.o.Now()) }}
	res, err := apply.Run(ctx, s, target, o)
	if res != nil {
		err = errors.Join(err, t.recordFetched(res.BytesFetched, res.BytesWire, 1))
	}
	if cerr := a.checkClocks(keep); cerr != nil {
		err = errors.Join(err, cerr)
	}
	return res, errors.Join(err, t.flushOutcomes())
}

// finishRun ends a run with any result.
func (a *agent) finishRun(ctx, rctx context.Context, r spool.Run, want wire.Desired, res *apply.Result, aerr error) (again bool, err error) {
	f := wire.Finished{Verdict: runs.Failed}
	if res != nil {
		f.Verdict = res.Verdict
		earlier := r.Fetched - res.BytesFetched // it is staged, and the last attempt counts it as held
		f.Totals = runs.Totals{Files: res.Totals.Files, Bytes: res.Totals.Bytes, Counts: runs.Counts{Extra: res.Extra}, Fetched: r.Fetched, Wire: r.Wire, Held: max(0, res.BytesHeld-earlier)}
	}
	var stopped *halt.Error
	switch {
	case aerr == nil:
	case errors.As(aerr, &stopped), errors.Is(aerr, errSuperseded), rctx.Err() != nil:
		f.Verdict = runs.Stopped
	case is[*apply.EmptiedError](aerr):
		f.Verdict = runs.Emptied
	default:
		f.Verdict, aerr = a.failureState(r.Target, aerr)
	}
	if aerr != nil {
		f.Error = aerr.Error()
	} else if res.Unowned {
		f.Verdict, f.Error = runs.Unowned, unownedText
	}
	var hold *spool.Held
	if aerr == nil && res.Verdict == runs.Verified {
		now := a.o.Now().Unix()
		hold = &spool.Held{Held: wire.Held{Channel: r.Channel, Number: r.Number, Release: r.Release, Verified: now}, Target: r.Target}
		at := wire.Attestation{Channel: r.Channel, Nonce: want.Nonce, Release: res.Release, Tree: res.Tree, Files: res.Totals.Files, Bytes: res.Totals.Bytes,
			ReadFiles: res.ReadFiles, ReadBytes: res.ReadBytes, StatedFiles: res.StatedFiles, OldestRead: res.OldestRead, At: now}
		if f.Attestation, err = wire.SignAttestation(a.id.key, a.id.Repo, a.id.Address(), r.Number, &at); err != nil {
			return false, err
		}
	}
	if f.Verdict == runs.Stopped {
		a.noteRemaining(&r, res)
	}
	done := r
	if f.Verdict == runs.Failed || f.Verdict == runs.Stopped || f.Verdict.LostTarget() {
		done.Start = 0 // the sync request is still pending
	}
	err = a.closeRun(ctx, done, hold, &f, res)
	if errors.Is(err, spool.ErrFull) {
		return true, a.reportFullDisk(ctx, err) // the run stays open, with what it has done
	}
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	n := a.next[r.Channel]
	n.reason = retryReason(aerr)
	n.why = fmt.Sprintf("%s %d %d %s", f.Verdict, f.Locked, f.Failed, f.Error)
	if f.Locked > 0 && f.Failed == 0 {
		n.why = "" // a file in use is usually free again soon
	}
	a.next[r.Channel] = n
	a.mu.Unlock()
	if hold != nil {
		a.scrubs.noteLooked(r.Channel)
		a.urls.releaseKeys(a.preparing.dropPlan(r.Channel))
		if err := a.spool.KeepPresigned(ctx, r.Channel, nil); err != nil {
			return false, a.reportFullDisk(ctx, err)
		}
	}
	// A stopped run continues when the halt order ends. If only the store has
	// the order so far, the run is retried.
	again = f.Verdict != runs.Stopped || stopped != nil && a.halts.haltOrder(r.Channel) == nil
	return again && hold == nil && f.Verdict != runs.Planned, errors.Join(a.updateProblems(ctx, r.Channel, aerr), reportDamage(ctx, a, r.Channel, res, aerr))
}

// closeRun makes the end of a run and its outcomes durable.
func (a *agent) closeRun(ctx context.Context, r spool.Run, hold *spool.Held, f *wire.Finished, res *apply.Result) error {
	level := Info
	if f.Error != "" {
		level = Warning
	}
	if !r.DryRun {
		f.Filled = a.fills.filledPlace(ctx, r.Channel, r.Target, f.Verdict, hold != nil)
	}
	var sent int64
	err := a.spool.Finish(ctx, r, hold, func(c spool.Counts) (wire.Event, *spool.Failure, error) {
		c.Extra, c.Unchanged = f.Extra, f.Unchanged // more than the spool knows
		f.Counts, sent = c.Counts, c.Sent
		if res != nil {
			// Changes by an earlier process appear as unchanged to this one.
			f.Unchanged = max(0, res.Unchanged-c.Previous)
		}
		body, err := wire.Encode(f)
		return wire.Event{Run: r.ID, Channel: r.Channel, At: a.o.Now().UnixMilli(), Kind: wire.FinishedEvent, Body: body}, failureOf(r, f, a.o.Now()), err
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.failures[r.Channel] = f.Error
	a.mu.Unlock()
	a.logNote(level, r.Channel, fmt.Sprintf("release %d: %s (%d outcomes, %d unchanged)", r.Number, f.Verdict, sent, f.Unchanged), textError(f.Error))
	a.report.wake()
	a.hello.wake()
	return nil
}

// failureOf returns the row of status for a run that did not end well, or nil.
func failureOf(r spool.Run, f *wire.Finished, now time.Time) *spool.Failure {
	if f.Verdict == runs.Verified || f.Verdict == runs.Stopped || f.Verdict == runs.Planned {
		return nil
	}
	cause := f.Error
	if cause == "" {
		cause = fmt.Sprintf("%d files failed, %d are in use: nightferry run show, at the Core, has the cause of each", f.Failed, f.Locked)
	}
	return &spool.Failure{Channel: r.Channel, Number: r.Number, State: f.Verdict, Cause: cause, At: now.Unix()}
}

func textError(s string) error {
	if s == "" {
		return nil
	}
	return errors.New(s)
}

// endAbandoned ends a run that an earlier process left and that is no longer desired.
// It finishes and reports an interrupted commit. If a halt forbids that, the
// run stays open.
func (a *agent) endAbandoned(ctx, rctx context.Context, r spool.Run) error {
	var err error
	if r.Pass, err = a.spool.Pass(ctx, r.Channel); err != nil {
		return err
	}
	f := wire.Finished{Verdict: runs.Stopped, Error: errSuperseded.Error()}
	target, aerr := a.reachTarget(r.Target)
	if aerr == nil && !r.DryRun {
		keep := context.WithoutCancel(ctx)
		t := &eventRecorder{a: a, ctx: keep, run: &r}
		aerr = errors.Join(apply.Recover(rctx, target, a.applyOptions(keep, &r, t)), t.flushOutcomes())
	}
	if errors.Is(aerr, apply.ErrUnfinished) {
		a.noteUnfinished(&r)
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	if aerr != nil {
		f.Verdict, aerr = a.failureState(r.Target, aerr)
		f.Error = aerr.Error()
	}
	return a.closeRun(ctx, r, nil, &f, nil)
}

// endUnreached ends a run whose target is not allowed, or cannot be read, without touching the target. An unreadable
// target is tried again; a refused one only when the desired state changes.
func (a *agent) endUnreached(ctx context.Context, want wire.Desired, left *spool.Run, why error) (again bool, err error) {
	a.logNote(Error, want.Channel, "a target is not used", why)
	state := runs.Refused
	if again = is[*apply.UnreadableError](why); again {
		state = runs.Unreadable
	}
	r, err := a.beginRun(ctx, want, left)
	if err == nil {
		if again {
			r.Start = 0 // the sync request is still pending
		}
		err = a.closeRun(ctx, r, nil, &wire.Finished{Verdict: state, Error: why.Error()}, nil)
	}
	a.mu.Lock()
	if n := a.next[want.Channel]; again {
		n.why = string(state) + " " + why.Error()
		a.next[want.Channel] = n
	} else {
		a.refused[want.Channel] = refusalKey(&want)
	}
	a.mu.Unlock()
	return again, a.reportFullDisk(ctx, err)
}

// updateProblems updates a channel's open incidents after its last run.
func (c *session) updateProblems(ctx context.Context, channel string, err error) error {
	kind := ""
	var space *apply.SpaceError
	switch {
	case err == nil:
	case errors.As(err, &space), durable.IsDiskFull(err):
		kind = ProblemDisk
	case errors.Is(err, trust.ErrUntrusted), errors.Is(err, repo.ErrOlder), errors.Is(err, apply.ErrExpired), errors.Is(err, frame.ErrDamaged),
		is[*repo.MissingError](err), is[*repo.CorruptError](err), bucket.KindOf(err) == bucket.KindIntegrity, errors.Is(err, fs.ErrNotExist) && bucket.KindOf(err) == bucket.KindNotExist:
		kind = ProblemRepository
	case bucket.KindOf(err) != bucket.KindOther:
		kind = ProblemStore
	}
	var errs []error
	for _, k := range []string{ProblemDisk, ProblemRepository, ProblemStore} {
		switch {
		case k == kind:
			errs = append(errs, c.reportProblem(ctx, k, channel, fmt.Sprintf("channel %s: %s", channel, withRemedy(err))))
		case err == nil || k == ProblemStore && kind != "":
			errs = append(errs, c.resolveProblem(ctx, k, channel))
		}
	}
	if err == nil {
		errs = append(errs, c.resolveProblem(ctx, ProblemDisk, ""))
	}
	return errors.Join(errs...)
}

// reportDamage reports content that arrived damaged, even if it was repaired.
func reportDamage(ctx context.Context, a *agent, channel string, res *apply.Result, err error) error {
	switch {
	case res != nil && res.Damaged > 0:
		return a.reportProblem(ctx, ProblemLine, channel, fmt.Sprintf("channel %s: %d blocks arrived damaged in one run and were fetched again", channel, res.Damaged))
	case err == nil:
		return a.resolveProblem(ctx, ProblemLine, channel)
	}
	return nil
}

// withRemedy returns an error's text with its remedy.
func withRemedy(err error) string {
	var r interface{ Remedy() string }
	if errors.As(err, &r) {
		return err.Error() + ": " + r.Remedy()
	}
	return err.Error()
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// isTransient reports whether the store, or the network to it, caused the error.
func isTransient(err error) bool {
	k := bucket.KindOf(err)
	return k == bucket.KindUnreachable || k == bucket.KindThrottled
}
