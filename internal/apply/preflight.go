package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
)

// Extra space required beyond the new files' bytes.
const (
	spaceMargin = 8 << 20 // for the catalogue, the journal and other programs that write to the volume
	perFile     = 4 << 10 // a file's last block and its name
)

// SpaceError means that the target's volume cannot hold the new files. Staging was not started.
type SpaceError struct {
	Dir    string
	Needed int64 // bytes still to be written; staged files are not counted
	Free   int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("not enough space on the volume of %q: %d MiB more are needed, %d MiB are free: free %d MiB, or move the target", e.Dir,
		(e.Needed+(1<<20-1))>>20, e.Free>>20, (e.Needed-e.Free+(1<<20-1))>>20)
}

// checkSpace fails if the volume has too little free space for the bytes still to be written. Holes of sparse files and
// files staged by an earlier run need none.
func (s *site) checkSpace(g *stager) error {
	need := spaceMargin + g.filled
	last := int32(-1)
	files := map[int32]struct{}{}
	for i := range g.wants {
		w := &g.wants[i]
		need += int64(w.size)
		if w.change != last {
			files[w.change] = struct{}{}
			last = w.change
		}
	}
	need += int64(len(files)) * perFile
	free, err := s.target.root.Free()
	if err != nil {
		return err
	}
	if need > free {
		return &SpaceError{Dir: s.target.root.Dir(), Needed: need, Free: free}
	}
	return nil
}

// checkSystem refuses a release that this target's system cannot store unchanged.
func (s *site) checkSystem(rel *repo.Release) error {
	if !rel.Portable && runtime.GOOS == "windows" {
		return fmt.Errorf("release %d of %q was published with names that Windows cannot hold: push it with portable names", rel.Number, rel.Channel)
	}
	return nil
}

// checkVolumes fails if another volume is mounted inside the target in a folder that the commit must rename into or out
// of. Files cannot be renamed across volumes.
func (t *targetDir) checkVolumes(changes []change) error {
	seen := map[string]struct{}{}
	for i := range changes {
		c := &changes[i]
		if c.act == actNone || c.act == actTouch || c.state == stDropped {
			continue
		}
		dir := path.Dir(c.path)
		for {
			if _, ok := seen[dir]; ok || dir == "." {
				break
			}
			seen[dir] = struct{}{}
			same, err := t.root.SameVolume(dir)
			if errors.Is(err, fs.ErrNotExist) {
				dir = path.Dir(dir) // a folder that will be made
				continue
			}
			if err == nil && !same {
				err = fmt.Errorf("%q lies on another volume than the target, files cannot be moved there in one step: unmount it, or give it a channel of its own", dir)
			}
			if err != nil {
				// A file or a link in the way is not a mount point.
				if info, lerr := t.root.Lstat(dir); lerr != nil || !info.IsDir() {
					break
				}
				return err
			}
			break
		}
	}
	return nil
}

// dropLockedChanges waits, for at most Options.LockWait (an agent does not wait), until no program holds a file that the commit will touch. It drops the
// files that are still held, and at once those that an attribute protects.
func (s *site) dropLockedChanges(ctx context.Context, changes []change) error {
	var held []int32
	for i := range changes {
		switch err := s.target.probeChange(&changes[i]); {
		case durable.IsLocked(err):
			held = append(held, int32(i))
		case err != nil:
			dropChange(changes, int32(i), runs.FileFailed, err)
		}
	}
	if len(held) == 0 {
		return nil
	}
	if !s.o.Partial && s.o.LockWait > 0 {
		s.report.emitPhase(PhaseWait)
		until := s.o.Now().Add(s.o.LockWait)
		for pause := 100 * time.Millisecond; len(held) > 0 && s.o.Now().Before(until); pause = min(2*pause, 5*time.Second) {
			if err := sleepContext(ctx, min(pause, until.Sub(s.o.Now()))); err != nil {
				return err
			}
			if err := s.remote.checkGate(ctx); err != nil {
				return err
			}
			still := held[:0]
			for _, i := range held {
				if s.target.probeChange(&changes[i]) != nil {
					still = append(still, i)
				}
			}
			held = still
		}
	}
	for _, i := range held {
		err := s.target.probeChange(&changes[i])
		if durable.IsLocked(err) {
			err = fmt.Errorf("%w: close the program that has it open, then pull again", err)
		}
		if err != nil {
			dropChange(changes, i, outcomeOf(err), err)
		}
	}
	return nil
}

// dropChange cancels a change and the changes that depend on it: moves from or to it, and the change for which it was to
// make way.
func dropChange(changes []change, i int32, out runs.Outcome, cause error) {
	c := &changes[i]
	if c.state == stDropped {
		return
	}
	c.state, c.out, c.cause = stDropped, out, cause
	if c.to >= 0 {
		dropChange(changes, c.to, out, fmt.Errorf("it is to be moved from %q: %w", c.path, cause))
	}
	if c.from >= 0 {
		dropChange(changes, c.from, out, fmt.Errorf("it is to be moved to %q: %w", c.path, cause))
	}
	if c.makesWay >= 0 {
		dropChange(changes, c.makesWay, out, fmt.Errorf("%q must make way: %w", c.path, cause))
	}
	if c.act == actRemove || c.act == actRmdir {
		holdFolders(changes, c.path, out, cause)
	}
	if c.act == actMkdir { // nothing can be put below
		for j := int(i) + 1; j < len(changes) && isBelow(c.path, changes[j].path); j++ {
			dropChange(changes, int32(j), out, fmt.Errorf("%q cannot be made: %w", c.path, cause))
		}
	}
}

// holdFolders cancels the deletion of all folders above name, because name stays in them. It returns the folders whose
// deletion it has cancelled.
func holdFolders(changes []change, name string, out runs.Outcome, cause error) (held []string) {
	if cause != nil {
		cause = fmt.Errorf("%q stays in it: %w", name, cause)
	}
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		c := changeAt(changes, d)
		if c == nil || c.act != actRmdir || c.state == stDropped {
			break
		}
		c.state, c.out, c.cause = stDropped, out, cause
		held = append(held, d)
		if c.makesWay >= 0 {
			dropChange(changes, c.makesWay, runs.FileFailed, fmt.Errorf("%q must make way, and %q stays in it", d, name))
		}
	}
	return held
}

// sleepContext waits for d or until the context ends.
func sleepContext(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
