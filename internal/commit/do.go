package commit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"nightferry/internal/durable"
)

// doStep makes one step, unless it is made already.
func (c *Commit) doStep(s Step) error {
	switch s.Kind {
	case Out:
		return c.moveOut(s)
	case Clear:
		return c.clearSlot(s)
	case Recase:
		return c.finishRecase(s)
	case Mkdir:
		return c.makeFolder(s)
	case Place:
		return c.placeFile(s)
	case Touch:
		delete(c.opened, s.Path)
		return c.setModeTime(s.Path, s)
	case Delete:
		return c.deleteFile(s)
	default:
		return c.removeFolder(s)
	}
}

// undoStep reverts a step of the first half. It replaces nothing: the site may have made an entry of the same name
// meanwhile.
func (c *Commit) undoStep(s Step) error {
	if s.Kind == Clear {
		// If the site has made another entry there, the folder's files go to Options.Aside.
		if err := c.makeFolder(s); !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !notFolder(err) {
			return err
		}
		return nil
	}
	// The slot shows whether the step was made.
	slot, err := c.statName(s.Slot)
	if err != nil || (slot == nil) != (s.Kind == Recase) {
		return err
	}
	now, err := c.statName(s.Path)
	if err != nil {
		return err
	}
	if s.Kind == Recase {
		if now == nil {
			return nil
		}
		return c.root.Rename(s.Path, s.Slot)
	}
	if now == nil {
		err = c.root.RenameNew(s.Slot, s.Path)
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !notFolder(err) {
			return err
		}
		// The site has made a file at the path, removed the folder, or put a file in its place.
	}
	return c.setAside(s)
}

// setAside keeps a file that cannot go back to its path. It may be the site's own.
func (c *Commit) setAside(s Step) error {
	to := c.o.Aside + "/" + rand.Text()
	if err := c.root.MkdirAll(to, 0o755); err != nil {
		return err
	}
	to += "/" + path.Base(s.Path)
	if err := c.root.Rename(s.Slot, to); err != nil {
		return err
	}
	c.o.OnAside(fmt.Errorf("%q was changed at the site while its old file was out of the way: the site's entry stays, the old file is kept as %q", s.Path, to))
	return nil
}

// statName returns the stat of a name, or nil if it does not exist. A name below a non-folder does not exist either.
func (c *Commit) statName(name string) (fs.FileInfo, error) {
	info, err := c.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		return nil, nil
	}
	return info, err
}

// notFolder reports whether err means that part of a path is a file.
func notFolder(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

func (s *Step) isUnchanged(info fs.FileInfo) bool {
	return info.Size() == s.Size && durable.Nanoseconds(info.ModTime()) == s.MTime
}

func (c *Commit) moveOut(s Step) error {
	if slot, err := c.statName(s.Slot); slot != nil || err != nil {
		return err
	}
	info, err := c.statName(s.Path)
	if info == nil || err != nil {
		return err
	}
	if !s.isExpected(info) {
		return errEdited
	}
	if err := c.root.Rename(s.Path, s.Slot); err != nil {
		return err
	}
	// The site may have replaced the file since the look.
	if info, err = c.statName(s.Slot); info == nil || err != nil || s.isExpected(info) {
		return err
	}
	if err := c.root.RenameNew(s.Slot, s.Path); errors.Is(err, fs.ErrExist) {
		return errors.Join(errEdited, c.setAside(s))
	} else if err != nil {
		return err
	}
	return errEdited
}

// isExpected reports whether an entry is the one that an Out moves out of the way.
func (s *Step) isExpected(info fs.FileInfo) bool {
	return info.IsDir() == s.Dir && (!s.Linked || !info.Mode().IsRegular()) && (s.Size < 0 || s.isUnchanged(info))
}

func (c *Commit) clearSlot(s Step) error {
	info, err := c.statName(s.Path)
	if info == nil || err != nil || !info.IsDir() {
		return err
	}
	return c.root.Remove(s.Path)
}

// finishRecase finishes the rename that an Out started. Some systems keep the old case unless a folder is first renamed
// to another name.
func (c *Commit) finishRecase(s Step) error {
	if slot, err := c.statName(s.Slot); slot == nil || err != nil {
		return err
	}
	return c.root.RenameNew(s.Slot, s.Path)
}

func (c *Commit) makeFolder(s Step) error {
	err := c.root.Mkdir(s.Path, fs.FileMode(s.Mode)|0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, lerr := c.root.Lstat(s.Path); lerr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (c *Commit) placeFile(s Step) error {
	if !strings.HasPrefix(s.Slot, c.o.Out+"/") {
		// A staged file needs only this call. Most steps are of this kind.
		err := c.place(s)
		if errors.Is(err, fs.ErrNotExist) {
			if info, serr := c.statName(s.Slot); info == nil && serr == nil {
				return c.checkPlaced()
			}
		}
		return err
	}
	info, err := c.statName(s.Slot)
	if err != nil {
		return err
	}
	if info == nil {
		if err := c.checkPlaced(); err != nil {
			return err
		}
		// A power cut may have kept the name but lost the mode or the time.
		return c.setModeTime(s.Path, s)
	}
	// A moved file still has its old mode and time.
	if err := c.setModeTime(s.Slot, s); err != nil {
		return err
	}
	return c.place(s)
}

// place renames a file to its path. A path that was free must still be free: else the file there is the site's own.
func (c *Commit) place(s Step) error {
	err := c.placer.Place(s.Slot, s.Path, s.Over)
	if !c.late || !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A power cut may have kept both names of a file that an earlier process placed.
	if info, serr := c.statName(s.Path); serr != nil || info == nil || !info.Mode().IsRegular() || info.Size() != s.Size || !c.o.Keeps.SameTime(durable.Nanoseconds(info.ModTime()), s.MTime) {
		return err
	}
	return c.placer.Place(s.Slot, s.Path, true)
}

// checkPlaced handles a missing slot. If another process started this commit, the file is in its place already; otherwise
// the staged file was taken away.
func (c *Commit) checkPlaced() error {
	if c.late {
		return nil
	}
	return errTaken
}

// setModeTime sets mode and time if they differ. It touches a file only if it has the size that was verified. If the
// file has further hard links, a copy replaces it: the other names may be outside of the target.
func (c *Commit) setModeTime(name string, s Step) error {
	info, err := c.statName(name)
	if info == nil || err != nil || info.IsDir() != s.Dir || !s.Dir && (!info.Mode().IsRegular() || info.Size() != s.Size) {
		return err
	}
	same := s.Dir || c.o.Keeps.SameTime(durable.Nanoseconds(info.ModTime()), s.MTime)
	if same && durable.SameMode(c.root, &c.o.Keeps, name, uint16(info.Mode().Perm()), s.Mode) {
		return nil
	}
	if !s.Dir {
		if info, err = c.separate(name, info); err != nil {
			return err
		}
	}
	if err := c.Tolerate(durable.SetMode(c.root, &c.o.Keeps, name, info, s.Mode)); err != nil {
		return err
	}
	if same {
		return nil
	}
	return c.Tolerate(c.root.Chtimes(name, time.Unix(0, c.o.Keeps.Time(s.MTime))))
}

// separate replaces a file that has further hard links by a copy, and returns the stat of the file that has the name
// then.
func (c *Commit) separate(name string, info fs.FileInfo) (fs.FileInfo, error) {
	shared, err := durable.HasOtherNames(c.root, name, info)
	if !shared || err != nil {
		return info, err
	}
	to := c.o.Stage + "/" + rand.Text()
	err = c.copyFile(name, to, info.Size())
	if err == nil {
		err = c.root.Chtimes(to, info.ModTime())
	}
	if err == nil {
		err = c.placer.Place(to, name, true)
	}
	if err != nil {
		_ = c.root.Remove(to) // if it stays, the sweep of the staging folder removes it
		return nil, fmt.Errorf("separate %q from its other hard links: %w", name, err)
	}
	c.noteChanged(Step{Kind: Place, Path: name, Slot: to})
	return c.root.Lstat(name)
}

// copyFile copies a file of size bytes to a new name, durably.
func (c *Commit) copyFile(from, to string, size int64) (err error) {
	in, err := c.root.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := c.root.Create(to, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	var done int64
	for err == nil {
		var n int
		n, err = in.Read(buf)
		if n > 0 {
			if _, werr := out.WriteAt(buf[:n], done); werr != nil {
				err = werr
			}
			done += int64(n)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
		if done != size {
			err = errEdited
		}
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// Tolerate passes the error of a refused mode or time to Options.OnDecline. It returns every other error.
func (c *Commit) Tolerate(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		c.o.OnDecline(err)
		return nil
	}
	return err
}

func (c *Commit) deleteFile(s Step) error {
	info, err := c.statName(s.Path)
	if info == nil || err != nil {
		return err
	}
	if info.IsDir() || s.Linked == info.Mode().IsRegular() || !s.Linked && !s.isUnchanged(info) {
		return nil // it was replaced, so it is the site's own
	}
	return c.root.Remove(s.Path)
}

func (c *Commit) removeFolder(s Step) error {
	info, err := c.statName(s.Path)
	if info == nil || err != nil || !info.IsDir() {
		return err
	}
	list, err := c.root.ReadDir(s.Path)
	if err != nil || len(list) > 0 {
		return err // the folder holds the site's own files
	}
	return c.root.Remove(s.Path)
}
