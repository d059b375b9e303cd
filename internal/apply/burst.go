package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
)

// A file that a program opens in the middle of the burst is tried again for
// about this long; the burst goes on to its end meanwhile for nobody.
const (
	lockedTries = 6
	lockedPause = 20 * time.Millisecond // before the second try, doubled for each further one
)

// blockedError says that the first half of a commit could not be done. It was
// taken back: nothing is committed.
type blockedError struct {
	path string
	err  error
}

func (e *blockedError) Error() string { return fmt.Sprintf("commit %q: %v", e.path, e.err) }
func (e *blockedError) Unwrap() error { return e.err }

// burst does what the journal says, from wherever an earlier burst came to. It
// returns the steps of the second half that cannot be done now, with the
// reasons: the rest is done.
func (s *site) burst(ctx context.Context) (left []op, why []error, err error) {
	var first bool
	sum, err := s.readJournal(func(o op) error { first = first || o.kind.first(); return nil })
	if err != nil {
		return nil, nil, err
	}
	if first {
		if err := s.clearWay(ctx, sum); err != nil {
			s.closeUp()
			return nil, nil, err
		}
	}
	_, err = s.readJournal(func(o op) error {
		if o.kind.first() {
			return nil
		}
		if err := s.stopped(ctx); err != nil {
			return err
		}
		if err := s.tries(ctx, o); err != nil {
			left, why = append(left, o), append(why, err)
		}
		return nil
	})
	s.closeUp()
	if err == nil {
		err = s.root.SyncAll()
	}
	return left, why, err
}

// ErrUnfinished says that an order to stop came in the middle of a commit. Each
// file is whole, the old or the new; the next run begins by finishing it.
var ErrUnfinished = errors.New("stopped in the middle of a commit, which the next run finishes")

// stopped ends a burst, which nothing else does, for an order to stop: after it
// nothing is written. Where ctx has ended for another reason, such as the window's
// end, that hides an order which comes later: Gate knows.
func (s *site) stopped(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return s.halted(ctx)
}

// halted returns ErrUnfinished if ctx or Gate reports a halt order.
func (s *site) halted(ctx context.Context) error {
	var order *halt.Error
	if errors.As(context.Cause(ctx), &order) || s.o.Gate != nil && errors.As(s.o.Gate(context.WithoutCancel(ctx)), &order) {
		return fmt.Errorf("%w: %w", ErrUnfinished, order)
	}
	return nil
}

// clearWay does the first half, or, if any of it cannot be done, takes all of
// it back.
func (s *site) clearWay(ctx context.Context, sum digest.Digest) error {
	moved, err := s.moved(sum)
	if moved || err != nil {
		return err
	}
	var done []op
	_, err = s.readJournal(func(o op) error {
		if !o.kind.first() {
			return nil
		}
		if err := s.stopped(ctx); err != nil {
			return err
		}
		if err := s.tries(ctx, o); err != nil {
			return &blockedError{path: o.path, err: err}
		}
		done = append(done, o)
		return nil
	})
	if err == nil {
		// None of the second half may survive a power cut without this.
		if err := s.root.SyncAll(); err != nil {
			return err
		}
		return s.root.WriteFile(movedName, sum[:], 0o644)
	}
	var blocked *blockedError
	if !errors.As(err, &blocked) {
		return err
	}
	for i := len(done) - 1; i >= 0; i-- {
		if uerr := s.undo(done[i]); uerr != nil {
			return fmt.Errorf("%w; and taking the commit back failed, it will be finished by the next pull: %w", blocked.err, uerr)
		}
	}
	if err := s.forgetJournal(); err != nil {
		return errors.Join(blocked.err, err)
	}
	return blocked
}

// tries makes a step, and repeats what a lock forbids. It does not end with ctx
// at once: a burst that was begun goes on.
func (s *site) tries(ctx context.Context, o op) error {
	pause := lockedPause
	for n := 1; ; n++ {
		err := s.do(o)
		if errors.Is(err, fs.ErrPermission) && s.openUp(o) {
			err = s.do(o)
		}
		if err == nil || n == lockedTries || !durable.IsLocked(err) || ctx.Err() != nil {
			return err
		}
		if sleep(ctx, pause) != nil {
			return err
		}
		pause *= 2
	}
}

// openUp gives this account the right to change names in the folders of a
// step, where only the folders' own bits deny it. It reports whether it changed
// one. The bits come back in closeUp; should the run die before, whoever finishes
// the commit finds the folder's mode wrong and mends it.
func (s *site) openUp(o op) (opened bool) {
	if !s.keeps.Modes {
		return false
	}
	for i := range o.path {
		if o.path[i] != '/' {
			continue
		}
		dir := o.path[:i]
		info, err := s.root.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o700 == 0o700 {
			continue
		}
		if s.root.Chmod(dir, info.Mode().Perm()|0o700) == nil {
			if s.opened == nil {
				s.opened = map[string]fs.FileMode{}
			}
			s.opened[dir], opened = info.Mode().Perm(), true
		}
	}
	return opened
}

// closeUp takes the rights back that openUp gave. What cannot be taken back stays
// in s.opened, and is recorded as what the next run must look at.
func (s *site) closeUp() {
	for dir, mode := range s.opened {
		info, err := s.there(dir)
		if err == nil && info != nil && info.IsDir() {
			err = s.root.Chmod(dir, mode)
		}
		if err == nil {
			delete(s.opened, dir)
		}
	}
}

// do makes one step, if it is not done already.
func (s *site) do(o op) error {
	switch o.kind {
	case opOut:
		return s.doOut(o)
	case opClear:
		return s.doClear(o)
	case opRecase:
		return s.doRecase(o)
	case opMkdir:
		return s.doMkdir(o)
	case opPlace:
		return s.doPlace(o)
	case opTouch:
		delete(s.opened, o.path)
		return s.touch(o.path, o)
	case opDelete:
		return s.doDelete(o)
	default:
		return s.doRmdir(o)
	}
}

// there describes a name, nil where nothing has it. A name below something
// that is no folder has nothing either.
func (s *site) there(name string) (fs.FileInfo, error) {
	info, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		return nil, nil
	}
	return info, err
}

func (s *site) doOut(o op) error {
	if slot, err := s.there(o.slot); slot != nil || err != nil {
		return err
	}
	info, err := s.there(o.path)
	if info == nil || err != nil {
		return err
	}
	if info.IsDir() != o.dir || o.size >= 0 && (info.Size() != o.size || durable.Nanoseconds(info.ModTime()) != o.mtime) {
		return errEdited
	}
	return s.root.Rename(o.path, o.slot)
}

var errEdited = errors.New("it was changed by somebody while this run was under way: pull again")

func (s *site) undo(o op) error {
	switch o.kind {
	case opOut:
		if slot, err := s.there(o.slot); slot == nil || err != nil {
			return err
		}
		return s.root.Rename(o.slot, o.path)
	case opRecase:
		if slot, err := s.there(o.slot); slot != nil || err != nil {
			return err
		}
		return s.root.Rename(o.path, o.slot)
	default:
		return s.doMkdir(o)
	}
}

func (s *site) doClear(o op) error {
	info, err := s.there(o.path)
	if info == nil || err != nil || !info.IsDir() {
		return err
	}
	return s.root.Remove(o.path)
}

// doRecase ends what an opOut began: some systems keep the old case unless a
// folder goes through another name.
func (s *site) doRecase(o op) error {
	if slot, err := s.there(o.slot); slot == nil || err != nil {
		return err
	}
	return s.root.Rename(o.slot, o.path)
}

func (s *site) doMkdir(o op) error {
	err := s.root.Mkdir(o.path, fs.FileMode(o.mode)|0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, lerr := s.root.Lstat(o.path); lerr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (s *site) doPlace(o op) error {
	if !strings.HasPrefix(o.slot, outDir+"/") {
		// A staged file needs nothing more. Most are of this kind: one call
		// each.
		err := s.place(o)
		if errors.Is(err, fs.ErrNotExist) {
			if info, serr := s.there(o.slot); info == nil && serr == nil {
				return s.placed()
			}
		}
		return err
	}
	info, err := s.there(o.slot)
	if err != nil {
		return err
	}
	if info == nil {
		if err := s.placed(); err != nil {
			return err
		}
		// A power cut may have kept the name and lost the mode or the time.
		return s.touch(o.path, o)
	}
	// A moved file still has its old mode and time.
	if err := s.touch(o.slot, o); err != nil {
		return err
	}
	return s.place(o)
}

func (s *site) place(o op) error {
	if s.placer == nil {
		s.placer = s.root.Placer(stageDir)
	}
	return s.placer.Place(o.slot, o.path, o.over)
}

// placed says what a slot means that is gone: the file is in its place already,
// unless no other run has begun with this commit.
func (s *site) placed() error {
	if s.late {
		return nil
	}
	return errTaken
}

var errTaken = errors.New("the new file was taken away before it was in its place: is it a virus scanner that does so? let it leave .nightferry alone, then pull again")

// touch sets mode and time where they differ, of a file only if it has the
// size that it had when it was proven.
func (s *site) touch(name string, o op) error {
	info, err := s.there(name)
	if info == nil || err != nil || info.IsDir() != o.dir || !o.dir && (!info.Mode().IsRegular() || info.Size() != o.size) {
		return err
	}
	if err := s.tolerate(s.setMode(name, info, o.mode)); err != nil {
		return err
	}
	if o.dir || s.keeps.SameTime(durable.Nanoseconds(info.ModTime()), o.mtime) {
		return nil
	}
	return s.tolerate(s.root.Chtimes(name, time.Unix(0, s.keeps.Time(o.mtime))))
}

func (s *site) doDelete(o op) error {
	info, err := s.there(o.path)
	if info == nil || err != nil {
		return err
	}
	if info.IsDir() || o.linked == info.Mode().IsRegular() ||
		!o.linked && (info.Size() != o.size || durable.Nanoseconds(info.ModTime()) != o.mtime) {
		return nil // somebody put something else there: it is theirs
	}
	return s.root.Remove(o.path)
}

func (s *site) doRmdir(o op) error {
	info, err := s.there(o.path)
	if info == nil || err != nil || !info.IsDir() {
		return err
	}
	list, err := s.root.ReadDir(o.path)
	if err != nil || len(list) > 0 {
		return err // the site's own keeps the folder
	}
	return s.root.Remove(o.path)
}
