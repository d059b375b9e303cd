package commit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// If a program opens a file during a replay, the step is retried for about this long. No other step runs meanwhile.
const (
	lockedTries = 6
	lockedPause = 20 * time.Millisecond // before the second try, doubled for each further one
)

// Left is a step that could not be made.
type Left struct {
	Step
	Err error
}

// Replay makes the journal's steps. It returns the steps of the second half that cannot be made now; all others are
// made. late means that another process wrote the journal. If the first half cannot be made, the error is a
// *BlockedError, and nothing was changed.
func (c *Commit) Replay(ctx context.Context, late bool) (left []Left, err error) {
	c.late = late
	defer c.closeUp()
	var first bool
	sum, err := c.readJournal(func(s Step) error { first = first || s.Kind.inFirstHalf(); return nil })
	if err != nil {
		return nil, err
	}
	if first {
		if err := c.clearWay(ctx, sum); err != nil {
			return nil, err
		}
	}
	_, err = c.readJournal(func(s Step) error {
		if s.Kind.inFirstHalf() {
			return nil
		}
		if err := c.o.Stopped(ctx); err != nil {
			return err
		}
		if err := c.retryStep(ctx, s); err != nil {
			left = append(left, Left{s, err})
		}
		return nil
	})
	c.closeUp()
	if err == nil {
		err = c.syncAll()
	}
	return left, err
}

// clearWay makes the first half. If any step of it fails, clearWay reverts all of them.
func (c *Commit) clearWay(ctx context.Context, sum digest.Digest) error {
	moved, err := c.firstHalfDone(sum)
	if moved || err != nil {
		return err
	}
	var done []Step
	_, err = c.readJournal(func(s Step) error {
		if !s.Kind.inFirstHalf() {
			return nil
		}
		if err := c.o.Stopped(ctx); err != nil {
			return err
		}
		if err := c.retryStep(ctx, s); err != nil {
			return &BlockedError{Path: s.Path, Err: err}
		}
		done = append(done, s)
		return nil
	})
	if err == nil {
		// The first half must be durable before any step of the second half.
		if err := c.syncAll(); err != nil {
			return err
		}
		return c.root.WriteFile(c.pathOf(Moved), sum[:], 0o644)
	}
	var blocked *BlockedError
	if !errors.As(err, &blocked) {
		return err
	}
	for i := len(done) - 1; i >= 0; i-- {
		if uerr := c.undoStep(done[i]); uerr != nil {
			return fmt.Errorf("%w; and taking the commit back failed, it will be finished by the next pull: %w", blocked.Err, uerr)
		}
	}
	if err := c.Forget(); err != nil {
		return errors.Join(blocked.Err, err)
	}
	return blocked
}

// retryStep makes a step, and retries it while a file is locked.
func (c *Commit) retryStep(ctx context.Context, s Step) error {
	pause := lockedPause
	for n := 1; ; n++ {
		err := c.doStep(s)
		if errors.Is(err, fs.ErrPermission) && c.openUp(s.Path) {
			err = c.doStep(s)
		}
		if err == nil {
			c.noteChanged(s)
		}
		if err == nil || n == lockedTries || !durable.IsLocked(err) || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 2
	}
}

// noteChanged records the folders whose names a step may have changed.
func (c *Commit) noteChanged(s Step) {
	if !durable.NeedsFileSync(c.root) || s.Kind == Touch {
		return
	}
	c.synced[path.Dir(s.Path)] = struct{}{}
	if s.Slot != "" {
		c.synced[path.Dir(s.Slot)] = struct{}{}
	}
}

// syncAll makes all steps durable.
func (c *Commit) syncAll() error {
	for dir := range c.synced {
		if err := c.root.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !notFolder(err) {
			return err
		}
	}
	clear(c.synced)
	return c.root.SyncAll()
}

// openUp gives this account the right to change names in the folders of a path, if only the folders' own bits deny
// it. It reports whether it changed any. closeUp restores the bits. If the process dies before, the next run finds
// the folder's mode wrong and repairs it.
func (c *Commit) openUp(name string) (opened bool) {
	if !c.o.Keeps.Modes {
		return false
	}
	for i := range name {
		if name[i] != '/' {
			continue
		}
		dir := name[:i]
		info, err := c.root.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o700 == 0o700 {
			continue
		}
		if c.root.Chmod(dir, info.Mode().Perm()|0o700) == nil {
			c.opened[dir], opened = info.Mode().Perm(), true
		}
	}
	return opened
}

// closeUp restores the bits that openUp changed. Folders that cannot be restored stay in c.opened, for LeftOpen.
func (c *Commit) closeUp() {
	for dir, mode := range c.opened {
		info, err := c.statName(dir)
		if err == nil && info != nil && info.IsDir() {
			err = c.root.Chmod(dir, mode)
		}
		if err == nil {
			delete(c.opened, dir)
		}
	}
}
