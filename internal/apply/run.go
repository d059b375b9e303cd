package apply

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"nightferry/internal/bucket"
	"nightferry/internal/commit"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
)

// ErrExpired means that a channel's head has expired. Newer releases are refused then, because an attacker who
// controls the bucket may be withholding a still newer one.
var ErrExpired = errors.New("the channel's head has expired")

// NoReleaseError means that Options.Release is newer than the channel's newest release.
type NoReleaseError struct {
	Channel        string
	Number, Newest trust.ReleaseNumber
}

func (e *NoReleaseError) Error() string {
	return fmt.Sprintf("release %d of %q does not exist: its newest is %d", e.Number, e.Channel, e.Newest)
}

// Run makes the folder target exactly a release of a channel. If it fails, the Result describes the run up to the
// error. A file that could not be changed is an event and an Incomplete verdict, not an error.
func Run(ctx context.Context, store bucket.Store, target string, o Options) (*Result, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s, done, err := openSite(target, o)
	if err != nil {
		return nil, err
	}
	s.report.res = Result{Channel: o.Channel, Verdict: Incomplete}
	err = s.run(ctx, store)
	if err == nil {
		err = s.checkOwnership()
	}
	if err == nil {
		err = s.clearVerified()
	}
	s.report.res.BytesWire = s.remote.wire.Load()
	return &s.report.res, errors.Join(explainFailed(s.target.root, target, err), done())
}

// Recover finishes an interrupted commit without a store. If there is none, it does nothing.
func Recover(ctx context.Context, target string, o Options) error {
	if unrecorded, err := checkKept(target, o); err != nil || unrecorded {
		if err != nil {
			err = fmt.Errorf("pull into %q: %w", target, err)
		}
		return err
	}
	s, done, err := openSite(target, o)
	if err != nil {
		return err
	}
	return errors.Join(s.recoverCommit(ctx), done())
}

func (s *site) run(ctx context.Context, store bucket.Store) error {
	s.report.emitPhase(PhaseOpen)
	// A halt order also stops a commit that was interrupted: it is read first.
	head, err := s.remote.openRepository(ctx, store, s.recoverCommit)
	if err != nil {
		return err
	}
	s.report.res.Repo = s.remote.repo.ID()
	err = s.bringTarget(ctx, head)
	if errors.Is(err, scan.ErrCorrupt) {
		if err := s.rebuildCatalogue(ctx, head, err); err != nil {
			return err
		}
		s.report.res = Result{Repo: s.report.res.Repo, Channel: s.report.res.Channel, Verdict: Incomplete}
		err = s.bringTarget(ctx, head)
	}
	return err
}

// bringTarget brings the target to the wanted release.
func (s *site) bringTarget(ctx context.Context, head *repo.Head) error {
	had, err := s.loadHeader()
	if err != nil {
		return err
	}
	number, want, err := s.chooseRelease(head, had)
	if err != nil {
		return err
	}
	s.report.res.Number = number
	if had != nil && had.Complete && had.Number == number && (want.IsZero() || had.Release == want) && !s.o.Rehash && !s.target.checks.Any() {
		s.report.emitPhase(PhaseCompare)
		s.report.res.Release, s.report.res.Tree, s.report.res.Totals = had.Release, had.Tree, had.Totals
		same, err := s.isCurrent(ctx)
		if err != nil {
			return err
		}
		if same {
			s.report.res.Verdict, s.report.res.NoOp = Verified, true
			return s.target.sweepStage(s.o.DryRun) // a run may have died just before it did
		}
	}
	s.report.emitPhase(PhasePlan)
	rel, err := s.remote.readRelease(ctx, head, number, want)
	if err != nil {
		return err
	}
	s.report.res.Release = rel.Digest
	if err := s.checkSystem(rel); err != nil {
		return err
	}
	if err := s.remote.repo.Manifests(s.remote.pages).Load(ctx, s.remote.loadIndex, rel.PageIDs(), s.remote.fetchOptions()); err != nil {
		return err
	}
	changes, oldLists, err := s.planChanges(ctx, rel)
	if err != nil {
		return err
	}
	if err := s.examineUnknown(ctx, changes); err != nil {
		return err
	}
	if err := s.matchMoves(ctx, changes); err != nil {
		return err
	}
	if err := s.target.checkVolumes(changes); err != nil {
		return err
	}
	if err := s.stageFiles(ctx, changes, oldLists); err != nil {
		s.reportFullDisk(changes, err)
		return err
	}
	if s.o.DryRun {
		s.emitAll(changes, true)
		s.report.res.Verdict = Planned
		return nil
	}
	return s.finishRun(ctx, rel, changes)
}

// loadHeader returns the catalogue's header, or nil if there is no catalogue. It fails if the folder holds another
// channel or repository.
func (s *site) loadHeader() (*scan.Header, error) {
	cat, err := s.target.openRecords(catalogueName)
	if err != nil {
		return nil, err
	}
	defer cat.close()
	h := cat.header()
	if h == nil {
		return nil, s.target.checkUnrecorded()
	}
	switch {
	case h.Channel != s.o.Channel:
		return nil, fmt.Errorf("this folder holds channel %q, not %q: give each channel a folder of its own", h.Channel, s.o.Channel)
	case h.Repo != s.remote.repo.ID():
		return nil, fmt.Errorf("this folder holds channel %q of another repository: give each repository a folder of its own", h.Channel)
	}
	return h, nil
}

// chooseRelease returns the number and digest of the wanted release. The digest is zero if the release is older than the
// head and the caller gave only its number.
func (s *site) chooseRelease(head *repo.Head, had *scan.Header) (number trust.ReleaseNumber, want trust.ReleaseDigest, err error) {
	number, want = head.Number, head.Release
	s.report.res.Expired = head.Expired
	if n := s.o.Release; n != 0 && n != head.Number {
		if n > head.Number {
			return 0, want, &NoReleaseError{Channel: s.o.Channel, Number: n, Newest: head.Number}
		}
		number, want = n, trust.ReleaseDigest{}
	}
	if d := s.o.Digest; !d.IsZero() {
		if !want.IsZero() && want != d {
			return 0, want, fmt.Errorf("%w: release %d of %q is %s by the channel's head, and %s by whoever asked for it", trust.ErrUntrusted, number, s.o.Channel, want.Short(), d.Short())
		}
		want = d
	}
	if head.Expired && (had == nil || number > had.Number) {
		return 0, want, fmt.Errorf("%w on %s, release %d is not accepted: sign it again at the Core (any push does, changed or not)", ErrExpired, head.Expires.UTC().Format("2006-01-02 15:04 MST"), number)
	}
	return number, want, nil
}

// readRelease reads the release that choose returned.
func (r *remote) readRelease(ctx context.Context, head *repo.Head, number trust.ReleaseNumber, want trust.ReleaseDigest) (*repo.Release, error) {
	if want.IsZero() {
		return r.repo.ReleaseBelow(ctx, r.o.Channel, head, number)
	}
	return r.repo.Release(ctx, r.o.Channel, number, want)
}

// isCurrent reports whether the target matches the catalogue, by size and times, with no file of the release missing.
// It emits an event for each extra.
func (s *site) isCurrent(ctx context.Context) (bool, error) {
	cat, err := s.target.openRecords(catalogueName)
	if err != nil {
		return false, err
	}
	defer cat.close()
	names, err := s.target.namesOf(catalogueName, nil)
	if err != nil {
		return false, err
	}
	var files int64
	var extras []Event
	s.report.resetProofs()
	p := &planner{target: s.target, report: s.report, cat: cat}
	err = s.target.walkTarget(ctx, names, func(it scan.Item) error {
		rec, err := cat.peek()
		if err != nil {
			return err
		}
		d := 1
		if rec != nil {
			d = scan.Compare(rec.Path, it.Path)
		}
		switch {
		case d < 0:
			return errDiffers
		case d > 0:
			if p.isIgnored(&it) {
				return nil
			}
			if s.o.Prune {
				return errDiffers
			}
			extras = append(extras, Event{Path: it.Path, Outcome: runs.FileExtra, Size: it.Stat.Size, Cause: it.Err})
			return nil
		}
		cat.pop()
		files++
		if rec.Kind == scan.File {
			s.report.countProof(rec.Stat.Size, rec.Checked)
		}
		if it.Err != nil || it.Kind != rec.Kind || it.Kind == scan.Dir && it.Stat.Mode != rec.Stat.Mode || it.Kind == scan.File && !s.target.sameStat(it.Stat, rec.Stat) {
			return errDiffers
		}
		return nil
	})
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if rec, err := cat.peek(); rec != nil || err != nil {
		return false, err
	}
	for _, e := range extras {
		s.report.emit(e)
	}
	s.report.res.Unchanged = files
	return true, nil
}

var errDiffers = errors.New("the target differs from the catalogue")

// finishRun commits the staged changes according to the policy and records the result.
func (s *site) finishRun(ctx context.Context, rel *repo.Release, changes []change) error {
	if err := s.dropLockedChanges(ctx, changes); err != nil {
		return err
	}
	if err := s.remote.checkGate(ctx); err != nil {
		return err
	}
	for {
		// A step whose slot exists counts as done. So no two commits may share a slot: a leftover of another commit
		// would count as done in this one.
		s.out = outDir + "/" + rand.Text()
		recase, aside := s.findAliases(changes) // before the policy check, because it may drop changes
		if !s.o.Partial && hasDropped(changes) {
			s.emitAll(changes, false)
			return nil
		}
		p := &stepper{changes: changes, out: s.out, modes: s.target.keeps.Modes, recase: recase, aside: aside}
		err := s.commitChanges(ctx, rel, changes, p.yieldSteps)
		var blocked *commit.BlockedError
		if !errors.As(err, &blocked) {
			return err
		}
		if !dropPath(changes, blocked) {
			return err
		}
	}
}

// hasDropped reports whether any change of the release was dropped.
func hasDropped(changes []change) bool {
	for i := range changes {
		if c := &changes[i]; c.state == stDropped && c.out != runs.FileExtra {
			return true
		}
	}
	return false
}

func dropPath(changes []change, b *commit.BlockedError) bool {
	for i := range changes {
		if c := &changes[i]; c.path == b.Path && c.state != stDropped {
			dropChange(changes, int32(i), outcomeOf(b.Err), b.Err)
			return true
		}
	}
	return false
}

// commitChanges makes all changes visible in one commit and records them.
func (s *site) commitChanges(ctx context.Context, rel *repo.Release, changes []change, steps commit.Steps) error {
	if err := s.prepareCommit(ctx, rel, changes, steps); err != nil {
		s.reportFullDisk(changes, err)
		if durable.IsDiskFull(err) {
			err = fmt.Errorf("prepare the commit: disk full: free space on the target's volume and pull again, which goes on from here: %w", err)
		}
		return err
	}
	// From here on the commit is finished, by this run or by the next.
	s.report.emitPhase(PhaseCommit)
	left, err := s.commit.Replay(ctx, false)
	if err != nil {
		return err
	}
	s.reported = map[string]struct{}{}
	for _, l := range left {
		if c := changeAt(changes, l.Path); c != nil && c.state != stDropped {
			c.state, c.out, c.cause = stDropped, outcomeOf(l.Err), l.Err
			paths := []string{l.Path}
			if l.Kind == commit.Delete {
				paths = append(paths, holdFolders(changes, l.Path, c.out, c.cause)...)
			}
			for _, p := range paths {
				if s.o.Settle != nil {
					s.report.other = append(s.report.other, eventOf(changes, changeAt(changes, p)))
				}
			}
			if err := s.rescueFile(l.Step, c); err != nil {
				return err
			}
		}
	}
	for i := range changes {
		if c := &changes[i]; c.state == stDropped {
			s.reported[c.path] = struct{}{}
		}
	}
	wrong, err := s.settleCommit(ctx, left)
	if err != nil {
		return err
	}
	for i := range changes {
		if changes[i].out == runs.FileUnchanged {
			s.report.countUnchanged()
		}
	}
	err = eachOutcome(changes, func(e Event) error {
		e.Committed = s.o.Intend != nil
		s.report.emit(e)
		return nil
	})
	if err != nil {
		return err
	}
	if wrong == 0 && len(left) == 0 && !hasDropped(changes) && s.report.res.Tree == rel.Tree && s.report.res.Totals == rel.Totals {
		s.report.res.Verdict = Verified
	}
	for _, id := range rel.PageIDs() {
		s.lists[id] = struct{}{}
	}
	return errors.Join(s.remote.pages.removeUnused(s.lists), s.target.sweepStage(len(left) > 0))
}

// prepareCommit makes the staged files and the journal durable.
func (s *site) prepareCommit(ctx context.Context, rel *repo.Release, changes []change, steps commit.Steps) error {
	s.report.emitPhase(PhaseSync)
	// Before the sync: the journal must not survive without the folder to which it moves files.
	if err := s.target.root.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	if err := s.syncStage(changes); err != nil {
		return err
	}
	if err := s.writeNext(ctx, rel, changes); err != nil {
		return err
	}
	s.report.other = nil
	if s.o.Intend != nil {
		if err := s.o.Intend(func(yield func(Event) error) error { return eachOutcome(changes, yield) }); err != nil {
			return err
		}
	}
	return s.commit.Write(steps)
}

// syncStage makes the staged files and their names durable.
func (s *site) syncStage(changes []change) error {
	if durable.NeedsFileSync(s.target.root) {
		dirs := map[string]struct{}{s.out: {}, outDir: {}, stageDir: {}, stateDir: {}}
		for i := range changes {
			if c := &changes[i]; c.act == actPlace && c.state == stReady && c.from < 0 {
				dirs[path.Dir(c.stageName())] = struct{}{}
			}
		}
		for dir := range dirs {
			if err := s.target.root.SyncDir(dir); err != nil {
				return err
			}
		}
	}
	return s.target.root.SyncAll()
}

// settleCommit records the result of the commit and ends it. The next run plans again for the steps that are left:
// a path to delete stays ours, and a new file stays staged.
func (s *site) settleCommit(ctx context.Context, left []commit.Left) (wrong int64, err error) {
	// Even a run that was stopped records its commit.
	if wrong, err = s.recordTarget(context.WithoutCancel(ctx), left); err != nil {
		return wrong, err
	}
	return wrong, s.endCommit()
}

// endCommit ends a commit that is recorded, or whose record is lost.
func (s *site) endCommit() error {
	if s.o.Settle != nil {
		if err := s.o.Settle(s.report.other); err != nil {
			return err
		}
		s.report.other = nil
	}
	return s.commit.Forget()
}

// rescueFile moves a file that could not be placed back to the staging folder, where the next run finds it.
func (s *site) rescueFile(step commit.Step, c *change) error {
	if step.Kind != commit.Place || c.from < 0 {
		return nil
	}
	name := c.stageName()
	if err := s.target.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := s.target.root.Rename(step.Slot, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

var errPending = errors.New("an earlier run was cut short in the middle of its commit, and a dry run does not finish it: pull without --dry-run, which begins with that")

// recoverCommit finishes a commit that an earlier run started.
func (s *site) recoverCommit(ctx context.Context) error {
	err := s.commit.Pending()
	switch {
	case errors.Is(err, commit.ErrNone):
		return nil
	case s.o.DryRun:
		return errPending
	case errors.Is(err, frame.ErrDamaged):
		// The journal was complete before its first step ran, so the disk has lost it. Each executed step left
		// whole files; the run plans the rest again.
		if err := s.target.keepMoved(); err != nil {
			return err
		}
		return errors.Join(s.target.setAside(journalName, err), s.commit.Forget())
	case err != nil:
		return err
	}
	if err := s.remote.checkHalted(ctx); err != nil {
		return err
	}
	s.report.emitPhase(PhaseRecover)
	left, err := s.commit.Replay(ctx, true)
	var blocked *commit.BlockedError
	if errors.As(err, &blocked) {
		s.report.emitRetry(err)
		return nil // it was rolled back; the run plans again
	}
	if err != nil {
		return err
	}
	s.reported = map[string]struct{}{}
	for _, l := range left {
		s.reported[l.Path] = struct{}{}
		s.report.emitUnexpected(Event{Path: l.Path, Outcome: outcomeOf(l.Err), Size: l.Size, Cause: l.Err})
	}
	_, err = s.settleCommit(ctx, left)
	if errors.Is(err, scan.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		// The files are in place; only their record is lost. The old catalogue still says which paths are ours; the
		// next run reads the files that differ from it.
		return errors.Join(s.target.setAside(nextName, err), s.endCommit())
	}
	if err != nil {
		return err
	}
	return s.target.sweepStage(len(left) > 0)
}

// emitAll emits the outcome of every change in a run that commits nothing.
func (s *site) emitAll(changes []change, planned bool) {
	held := !s.o.Partial && hasDropped(changes) && !planned
	for i := range changes {
		c := &changes[i]
		switch {
		case c.out == runs.FileUnchanged:
			s.report.countUnchanged()
		case c.out == runs.FileExtra, c.to >= 0 && c.act == actRemove:
			// reported already; a move is reported under its new name
		case held && c.state != stDropped:
			// not committed
		default:
			s.report.emit(eventOf(changes, c))
		}
	}
}

// eachOutcome yields the outcome of every change that is committed.
func eachOutcome(changes []change, yield func(Event) error) error {
	for i := range changes {
		c := &changes[i]
		if c.out == runs.FileUnchanged || c.out == runs.FileExtra || c.to >= 0 && c.act == actRemove {
			continue
		}
		if err := yield(eventOf(changes, c)); err != nil {
			return err
		}
	}
	return nil
}

// eventOf returns the event for a change.
func eventOf(changes []change, c *change) Event {
	e := Event{Path: c.path, Entry: uint64(c.entry), Outcome: c.out, Size: c.size, Digest: c.digest, Held: c.held, Cause: c.cause}
	if c.from >= 0 {
		e.From = changes[c.from].path
	}
	if c.act == actPlace && c.state != stDropped {
		e.Fetched = c.size - c.held
	}
	return e
}

// reportFullDisk emits a failure for each change that was not made because the disk is full. An interrupted run needs no such
// events, but a full disk needs an operator.
func (s *site) reportFullDisk(changes []change, err error) {
	var space *SpaceError
	if !errors.As(err, &space) && !durable.IsDiskFull(err) {
		return
	}
	for i := range changes {
		c := &changes[i]
		if c.out == runs.FileUnchanged || c.out == runs.FileExtra || c.to >= 0 && c.act == actRemove {
			continue
		}
		if c.state != stDropped {
			c.state, c.out, c.cause = stDropped, runs.FileFailed, err
		}
		s.report.emit(Event{Path: c.path, Entry: uint64(c.entry), Outcome: c.out, Size: c.size, Digest: c.digest, Cause: c.cause})
	}
}

// sweepStage empties the staging folder unless a journal still needs its files.
func (t *targetDir) sweepStage(needed bool) error {
	if needed {
		return nil
	}
	shards, err := t.root.ReadDir(stageDir)
	if err != nil {
		return err
	}
	for _, d := range shards {
		if err := t.discardStaged(path.Join(stageDir, d.Name())); err != nil {
			return err
		}
	}
	return nil
}

// discardStaged removes an unneeded entry of the staging folder. If a program holds a file, discardStaged leaves it to the next
// run. For a running program whose file was moved out of the way, Windows reports "access denied".
func (t *targetDir) discardStaged(name string) error {
	err := t.root.RemoveAll(name)
	if durable.IsLocked(err) || errors.Is(err, fs.ErrPermission) && (name == outDir || isBelow(outDir, name)) {
		t.report.emitRetry(fmt.Errorf("%w: the next run tries again", err))
		return nil
	}
	return err
}
