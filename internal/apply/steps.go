package apply

import (
	"fmt"
	"io/fs"

	"nightferry/internal/commit"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// outSlot returns the name, in the commit's own folder, to which a change's old file is moved.
func outSlot(out string, i int32) string { return fmt.Sprintf("%s/%d", out, i) }

// goesFirst reports whether the change makes way for another: its folder must become a file.
func goesFirst(changes []change, c *change) bool {
	return c.makesWay >= 0 && changes[c.makesWay].state != stDropped
}

// stepper turns changes into the steps of a commit.
type stepper struct {
	changes []change
	out     string             // the commit's own folder for entries moved out of the way
	modes   bool               // the target keeps modes
	recase  []commit.Step      // from aliases: these steps come first
	aside   map[int32]struct{} // from aliases: files that make way for a name in another case
}

// phase is one pass over the changes.
type phase struct {
	name     string
	backward bool // a folder's content comes before the folder
	pick     func(p *stepper, i int32, c *change) (commit.Step, bool)
}

// commitPhases are the passes, in order.
func commitPhases() []phase {
	return []phase{
		{"move out of the way", false, (*stepper).moveOut},
		{"clear folders", true, (*stepper).clearFolder},
		{"make folders", false, (*stepper).mkdirStep},
		{"place files", false, (*stepper).placeStep},
		{"touch files", false, (*stepper).touchFile},
		{"delete files", false, (*stepper).removeStep},
		{"remove folders", true, (*stepper).rmdirStep},
		// Last, because a read-only folder could not be filled.
		{"touch folders", true, (*stepper).touchFolder},
	}
}

// yieldSteps yields the journal.
func (p *stepper) yieldSteps(yield func(commit.Step) error) error {
	for _, s := range p.recase {
		if err := yield(s); err != nil {
			return err
		}
	}
	for _, ph := range commitPhases() {
		for n := range p.changes {
			i := n
			if ph.backward {
				i = len(p.changes) - 1 - n
			}
			c := &p.changes[i]
			if c.state == stDropped {
				continue
			}
			if s, ok := ph.pick(p, int32(i), c); ok {
				if err := yield(s); err != nil {
					return fmt.Errorf("%s: %w", ph.name, err)
				}
			}
		}
	}
	return nil
}

func (p *stepper) moveOut(i int32, c *change) (commit.Step, bool) {
	_, alias := p.aside[i]
	if c.to < 0 && c.way != wayEntry && !alias && (c.act != actRemove || !goesFirst(p.changes, c)) {
		return commit.Step{}, false
	}
	s := commit.Step{Kind: commit.Out, Path: c.path, Slot: outSlot(p.out, i), Size: c.foundStat().Size, MTime: c.foundStat().MTime}
	if !c.onDisk {
		s.Size, s.Linked = -1, true
	}
	return s, true
}

func (p *stepper) clearFolder(_ int32, c *change) (commit.Step, bool) {
	return commit.Step{Kind: commit.Clear, Path: c.path, Mode: 0o755}, c.way == wayFolder || c.act == actRmdir && goesFirst(p.changes, c)
}

func (p *stepper) mkdirStep(_ int32, c *change) (commit.Step, bool) {
	return commit.Step{Kind: commit.Mkdir, Path: c.path, Mode: c.mode}, c.act == actMkdir
}

func (p *stepper) placeStep(_ int32, c *change) (commit.Step, bool) {
	s := commit.Step{Kind: commit.Place, Over: c.onDisk, Path: c.path, Mode: c.mode, Size: c.size, MTime: c.mtime}
	if c.from >= 0 {
		s.Slot = outSlot(p.out, c.from)
	} else {
		s.Slot = c.stageName()
	}
	return s, c.act == actPlace
}

func (p *stepper) touchFile(_ int32, c *change) (commit.Step, bool) {
	return commit.Step{Kind: commit.Touch, Path: c.path, Mode: c.mode, Size: c.size, MTime: c.mtime}, c.act == actTouch && !c.isDir()
}

func (p *stepper) removeStep(i int32, c *change) (commit.Step, bool) {
	_, alias := p.aside[i]
	return commit.Step{Kind: commit.Delete, Path: c.path, Size: c.foundStat().Size, MTime: c.foundStat().MTime, Linked: !c.onDisk},
		c.act == actRemove && c.to < 0 && !alias && !goesFirst(p.changes, c)
}

func (p *stepper) rmdirStep(_ int32, c *change) (commit.Step, bool) {
	return commit.Step{Kind: commit.Rmdir, Path: c.path}, c.act == actRmdir && !goesFirst(p.changes, c)
}

func (p *stepper) touchFolder(_ int32, c *change) (commit.Step, bool) {
	return commit.Step{Kind: commit.Touch, Dir: true, Path: c.path, Mode: c.mode}, p.modes && (c.act == actMkdir || c.act == actTouch && c.isDir())
}

// isDir reports whether the release has a folder at the path.
func (c *change) isDir() bool { return c.digest.IsZero() }

// findAliases handles file systems and folders that ignore case or Unicode normalization: it finds existing names that
// differ from new ones only in that. It renames such a folder, and sets such a file aside before the new one comes. It drops changes for which neither is
// possible.
func (s *site) findAliases(changes []change) (recase []commit.Step, aside map[int32]struct{}) {
	// One folder of the target may fold names though the others do not.
	keeps := durable.Traits{Fold: true, Compose: true}
	key := func(path string) string { return scan.NameKey(&keeps, path) }
	old := map[string]int32{}
	for i := range changes {
		// Include folders that stay because the site's own files are in them: they still take the new name.
		if c := &changes[i]; (c.act == actRemove || c.act == actRmdir) && (c.state != stDropped || c.out == runs.FileExtra) {
			old[key(c.path)] = int32(i)
		}
	}
	if len(old) == 0 && !s.target.keeps.Fold && !s.target.keeps.Compose {
		return nil, nil
	}
	aside = map[int32]struct{}{}
	for i := range changes {
		c := &changes[i]
		if c.state == stDropped || !c.makesName() {
			continue
		}
		j, named := old[key(c.path)]
		if !named && !s.target.keeps.Fold && !s.target.keeps.Compose {
			continue
		}
		known := named && changes[j].state != stDropped
		info, err := s.target.root.Lstat(c.path)
		if err != nil {
			continue // nothing there
		}
		switch {
		case c.act == actMkdir && info.IsDir():
			from := c.path
			if named {
				from = changes[j].path
			}
			if known {
				changes[j].act = actNone
			}
			recase = append(recase, commit.Step{Kind: commit.Out, Dir: true, Path: from, Slot: outSlot(s.out, int32(i)), Size: -1},
				commit.Step{Kind: commit.Recase, Path: c.path, Slot: outSlot(s.out, int32(i))})
		case c.act == actPlace && known && info.IsDir() && changes[j].act == actRmdir:
			// A folder of ours becomes a file: all its content makes way.
			for k := j; k < int32(len(changes)) && (k == j || isBelow(changes[j].path, changes[k].path)); k++ {
				changes[k].makesWay = int32(i)
			}
		case known && !info.IsDir():
			aside[j] = struct{}{}
		case c.act == actPlace && info.Mode().IsRegular():
			recase = append(recase, commit.Step{Kind: commit.Out, Path: c.path, Slot: outSlot(s.out, int32(i)), Size: -1})
		default:
			dropChange(changes, int32(i), runs.FileFailed, fmt.Errorf("%w: something of the site's own has this name in another case: move it away", fs.ErrExist))
		}
	}
	return recase, aside
}
