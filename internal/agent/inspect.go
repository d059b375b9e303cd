package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/apply"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/policy"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/spool"
	"nightferry/internal/verify"
	"nightferry/internal/wire"
)

// checkMode returns the kind of check, or 0 for a run that may change files. It also
// returns the trigger if the desired state does not give it.
func checkMode(want *wire.Desired, obeyed uint64, have *spool.Held, owed bool) (check uint8, trigger string) {
	if want.Start > obeyed {
		if want.Verify {
			trigger = "verify"
		}
		return want.Check, trigger
	}
	if owed {
		trigger = "scrub"
	}
	if want.ReportOnly && holdsDesired(have, want) {
		check = wire.CheckQuick
	}
	return check, trigger
}

// holdsDesired reports whether the site holds the desired release in the desired target.
func holdsDesired(have *spool.Held, want *wire.Desired) bool {
	return have != nil && have.Number == want.Number && have.Release == want.Release && have.Target == want.Target
}

// checkTarget compares the target with the applied release. The run ends verified or
// different. It needs neither the store nor the Core.
func (a *agent) checkTarget(ctx, rctx context.Context, want *wire.Desired, r spool.Run, target string) (again bool, err error) {
	if r.Pass, err = a.spool.Pass(ctx, r.Channel); err != nil {
		return true, a.reportFullDisk(ctx, err)
	}
	keep := context.WithoutCancel(ctx)
	t := &eventRecorder{a: a, ctx: keep, run: &r}
	e := &examination{a: a, t: t, run: &r, want: want}
	cerr := errors.Join(e.compareTarget(rctx, target), t.flushOutcomes())
	if cerr != nil && ctx.Err() != nil {
		return false, nil // continues under the same id
	}
	f := wire.Finished{Verdict: runs.Different, Totals: runs.Totals{Files: e.totals.Files, Bytes: e.totals.Bytes,
		Counts: runs.Counts{Extra: e.seen.Extra, Unchanged: max(0, e.seen.Files+e.seen.Dirs-e.different)}}}
	var hold *spool.Held
	var stopped *halt.Error
	done := r
	switch {
	case errors.Is(cerr, apply.ErrNothingApplied) && a.fills.isKnown(ctx, r.Channel, r.Target):
		f.Verdict, f.Error = lostRecord(target, r.Channel)
	case errors.Is(cerr, apply.ErrNothingApplied):
		f.Error = cerr.Error()
	case errors.Is(cerr, scan.ErrCorrupt):
		f.Error = cerr.Error() + ": " + makesAnew
	case cerr != nil && rctx.Err() != nil, errors.As(cerr, &stopped): // a halt order that arrives after the check has succeeded is ignored
		f.Verdict, f.Error = runs.Stopped, cerr.Error()
	case cerr != nil:
		f.Verdict, cerr = a.failureState(r.Target, cerr)
		f.Error = cerr.Error()
	case e.lacks != "":
		f.Error = e.lacks
	case e.unowned && e.seen.Extra > 0:
		f.Verdict, f.Error = runs.Unowned, unownedText
	case e.different > 0:
		paths := "paths differ"
		if e.different == 1 {
			paths = "path differs"
		}
		f.Error = fmt.Sprintf("%d %s from release %d", e.different, paths, r.Number)
	default:
		f.Verdict = runs.Verified
		now := a.o.Now().Unix()
		hold = &spool.Held{Held: wire.Held{Channel: r.Channel, Number: r.Number, Release: r.Release, Verified: now}, Target: r.Target}
		at := wire.Attestation{Channel: r.Channel, Nonce: want.Nonce, Release: e.release, Tree: e.tree, Files: e.totals.Files, Bytes: e.totals.Bytes,
			ReadFiles: e.read, ReadBytes: e.seen.Bytes, StatedFiles: e.stated, OldestRead: e.oldest, At: now}
		if f.Attestation, err = wire.SignAttestation(a.id.key, a.id.Repo, a.id.Address(), r.Number, &at); err != nil {
			return false, err
		}
	}
	failed := f.Verdict == runs.Failed || f.Verdict == runs.Unreadable
	if failed || f.Verdict == runs.Stopped {
		done.Start = 0 // the sync request is still pending
	}
	if err := a.closeRun(ctx, done, hold, &f, nil); err != nil {
		return true, a.reportFullDisk(ctx, err) // the run stays open
	}
	if f.Verdict == runs.Different || f.Verdict == runs.Verified || f.Verdict == runs.Unowned || f.Verdict == runs.Emptied {
		a.scrubs.noteLooked(r.Channel)
	}
	return failed, nil
}

const makesAnew = "nightferry sync reads every file and makes the record anew"

// lostRecord returns the state of a check of a target that held a release and has no record of it, and its cause.
func lostRecord(target, channel string) (runs.State, string) {
	if empty, err := apply.IsEmptied(target); err == nil && !empty {
		return runs.Different, apply.ErrUnowned.Error() + ": " + makesAnew
	}
	return runs.Emptied, (&apply.EmptiedError{Target: target, Channel: channel}).Error()
}

// examination is one check in progress.
type examination struct {
	a    *agent
	t    *eventRecorder
	run  *spool.Run
	want *wire.Desired

	release, tree [32]byte
	totals        manifest.Totals // of the applied release
	sum           manifest.TreeHash
	lacks         string // why the applied release is not the desired one
	seen          verify.Totals
	read, stated  int64
	oldest        int64
	different     int64 // paths
	unowned       bool  // see apply.Checks

	last  string // the path of cause
	cause string
}

func (e *examination) compareTarget(ctx context.Context, target string) (err error) {
	x, err := e.inspectTarget(ctx, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	e.release, e.tree, e.totals = x.Release, x.Tree, x.Totals
	switch {
	case x.Number != e.run.Number || x.Release != e.run.Release:
		e.lacks = fmt.Sprintf("the site holds release %d, and release %d is wanted", x.Number, e.run.Number)
	case !x.Complete:
		e.lacks = fmt.Sprintf("release %d was not applied completely", x.Number)
	}
	e.unowned = x.Checks.Unowned
	full := e.run.Check == wire.CheckFull
	began := e.a.o.Now().Unix()
	next, err := e.streamEntries(x, full)
	if err != nil {
		return err
	}
	found := *x.Checks
	found.ClearSuspects()
	o, err := readOptions(&e.want.Policy)
	if err != nil {
		return err
	}
	o.Quick = !full
	o.Suspect = func(path string) bool { _, ok := x.Checks.Why(path); return ok }
	o.Read = func(_ string, bytes int64) { e.reportProgress(bytes) }
	e.seen, err = verify.Run(ctx, target, next, o, func(f verify.Finding) {
		if f.Problem != verify.Extra {
			found.Suspect(f.Path, string(f.Problem)+": "+f.Detail)
		}
		e.addFinding(f)
	})
	e.flushFindings()
	if err != nil {
		for _, s := range found.Suspects {
			x.Checks.Suspect(s.Path, s.Why)
		}
		return errors.Join(err, x.Save())
	}
	if e.lacks == "" && e.sum.Sum() != x.Tree {
		e.lacks = fmt.Sprintf("the record of the applied release is not that of release %d, because it was changed; nightferry sync --rehash reads every file, and makes it anew", x.Number)
	}
	*x.Checks = found // the check has read each suspect again
	if !full {
		return x.Save()
	}
	x.Checks.Began = began
	return x.Passed(ctx)
}

// inspectTarget opens the record of the applied release. It first finishes a commit that no open run continues.
func (e *examination) inspectTarget(ctx context.Context, target string) (*apply.Inspection, error) {
	o := e.a.applyOptions(e.t.ctx, e.run, e.t)
	x, err := apply.Inspect(target, apply.Options{Channel: o.Channel, Root: o.Root, Now: o.Now, OnEvent: o.OnEvent})
	if !errors.Is(err, apply.ErrUnfinished) {
		return x, err
	}
	if err := apply.Recover(ctx, target, o); err != nil {
		return nil, err
	}
	return apply.Inspect(target, apply.Options{Channel: o.Channel, Root: o.Root, Now: o.Now, OnEvent: o.OnEvent})
}

// streamEntries streams the applied entries and counts the evidence for the attestation.
func (e *examination) streamEntries(x *apply.Inspection, full bool) (manifest.Next, error) {
	next, err := x.Entries()
	if err != nil {
		return nil, err
	}
	first := true
	return func() (*manifest.Entry, error) {
		entry, checked, err := next()
		if entry == nil || err != nil {
			return nil, err
		}
		e.sum.Add(entry.Kind, entry.Path, entry.Digest)
		if entry.Kind != manifest.File {
			return entry, nil
		}
		if _, suspect := x.Checks.Why(entry.Path); full || suspect {
			e.read++
			checked = e.run.Began
		} else {
			e.stated++
		}
		if first || checked < e.oldest {
			e.oldest, first = checked, false
		}
		return entry, nil
	}, nil
}

// addFinding merges the findings of one path, which arrive consecutively.
func (e *examination) addFinding(f verify.Finding) {
	// Pruning keeps a folder if it holds ignored files.
	if f.Problem == verify.Extra && (!e.want.Prune || f.Folder && len(e.want.Ignore) > 0) {
		e.flushFindings()
		e.t.handleEvent(apply.Event{Path: f.Path, Outcome: runs.FileExtra})
		return
	}
	if f.Path != e.last {
		e.flushFindings()
		e.last, e.cause = strings.Clone(f.Path), ""
		e.different++
	}
	if e.cause != "" {
		e.cause += "; "
	}
	e.cause += string(f.Problem) + ": " + f.Detail
}

func (e *examination) flushFindings() {
	if e.last == "" {
		return
	}
	e.t.handleEvent(apply.Event{Path: e.last, Outcome: runs.FileDiffers, Cause: errors.New(e.cause)})
	e.last, e.cause = "", ""
}

func (e *examination) reportProgress(bytes int64) {
	p := &e.t.progress
	e.t.handleEvent(apply.Event{Kind: apply.ProgressEvent, FilesDone: p.FilesDone + 1, FilesTotal: e.totals.Files, BytesDone: p.BytesDone + bytes, BytesTotal: e.totals.Bytes})
}

// readOptions returns the options of a check under a policy: its scrub rate and
// the patterns of ignored files.
func readOptions(p *policy.Policy) (o verify.Options, err error) {
	if o.Ignore, err = scan.ParsePatterns(nil, p.Ignore); err != nil {
		return o, fmt.Errorf("ignore: %w", err)
	}
	if runtime.GOOS == "windows" {
		o.Ignore = o.Ignore.FoldCase()
	}
	if p.ScrubRate <= 0 {
		return o, nil
	}
	// The burst is half a second's worth, at most 1 MiB, the size of one read.
	burst := int(min(max(p.ScrubRate/2, 4<<10), 1<<20))
	l := rate.NewLimiter(rate.Limit(p.ScrubRate), burst)
	o.Workers, o.Limit = 1, func(ctx context.Context, n int) error {
		for ; n > 0; n -= burst {
			if err := l.WaitN(ctx, min(n, burst)); err != nil {
				return err
			}
		}
		return nil
	}
	return o, nil
}

// never is the wait if nothing is scheduled.
const never = 365 * 24 * time.Hour
