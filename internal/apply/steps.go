package apply

import (
	"fmt"
	"io/fs"

	"nightferry/internal/manifest"
)

// outSlot is where the old file of a change waits.
func (s *site) outSlot(i int32) string { return fmt.Sprintf("%s/%d", s.out, i) }

// goesFirst reports whether the change makes way for another: the folder it
// lies in must become a file.
func goesFirst(changes []change, c *change) bool {
	return c.under >= 0 && changes[c.under].state != stDropped
}

// steps yields a journal, in the order in which its steps are to be made.
type steps func(yield func(op) error) error

// steps is the journal of the changes.
func (s *site) steps(changes []change, recase []op, aside map[int32]struct{}) steps {
	return func(yield func(op) error) error {
		for _, o := range recase {
			if err := yield(o); err != nil {
				return err
			}
		}
		passes := [...]func(i int32, c *change) (op, bool){
			func(i int32, c *change) (op, bool) { // out of the way
				_, alias := aside[i]
				if c.to < 0 && c.way != wayEntry && !alias && (c.act != actRemove || !goesFirst(changes, c)) {
					return op{}, false
				}
				o := op{kind: opOut, path: c.path, slot: s.outSlot(i), size: c.disk().Size, mtime: c.disk().MTime}
				if !c.onDisk {
					o.size = -1
				}
				return o, true
			},
			nil, // clears, in reverse
			func(_ int32, c *change) (op, bool) {
				return op{kind: opMkdir, path: c.path, mode: c.mode}, c.act == actMkdir
			},
			func(i int32, c *change) (op, bool) {
				o := op{kind: opPlace, over: c.onDisk, path: c.path, mode: c.mode, size: c.size, mtime: c.mtime}
				if c.from >= 0 {
					o.slot = s.outSlot(c.from)
				} else {
					o.slot = c.stageName()
				}
				return o, c.act == actPlace
			},
			func(_ int32, c *change) (op, bool) {
				return op{kind: opTouch, path: c.path, mode: c.mode, size: c.size, mtime: c.mtime}, c.act == actTouch && !c.isDir()
			},
			func(i int32, c *change) (op, bool) {
				_, alias := aside[i]
				return op{kind: opDelete, path: c.path, size: c.disk().Size, mtime: c.disk().MTime, linked: !c.onDisk},
					c.act == actRemove && c.to < 0 && !alias && !goesFirst(changes, c)
			},
		}
		for n, pass := range passes {
			if pass == nil {
				if err := backwards(changes, func(c *change) (op, bool) {
					return op{kind: opClear, path: c.path, mode: 0o755}, c.way == wayFolder || c.act == actRmdir && goesFirst(changes, c)
				}, yield); err != nil {
					return err
				}
				continue
			}
			for i := range changes {
				c := &changes[i]
				if c.state == stDropped {
					continue
				}
				if o, ok := passes[n](int32(i), c); ok {
					if err := yield(o); err != nil {
						return err
					}
				}
			}
		}
		if err := backwards(changes, func(c *change) (op, bool) {
			return op{kind: opRmdir, path: c.path}, c.act == actRmdir && !goesFirst(changes, c)
		}, yield); err != nil {
			return err
		}
		// Last, because a folder that must not be written to could not have
		// been filled.
		return backwards(changes, func(c *change) (op, bool) {
			return op{kind: opTouch, dir: true, path: c.path, mode: c.mode}, s.keeps.Modes && (c.act == actMkdir || c.act == actTouch && c.isDir())
		}, yield)
	}
}

// isDir reports whether the release has a folder there.
func (c *change) isDir() bool { return c.digest.IsZero() }

// backwards yields in reverse path order: what lies in a folder before it.
func backwards(changes []change, pick func(*change) (op, bool), yield func(op) error) error {
	for i := len(changes) - 1; i >= 0; i-- {
		if changes[i].state == stDropped {
			continue
		}
		if o, ok := pick(&changes[i]); ok {
			if err := yield(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// aliases finds, on a file system that ignores case, what the new names would
// meet under another case: a folder is given its new name, a file is set aside
// before the new one comes. What cannot be is dropped.
func (s *site) aliases(changes []change) (recase []op, aside map[int32]struct{}) {
	if !s.keeps.Fold {
		return nil, nil
	}
	old := map[string]int32{}
	for i := range changes {
		// Also a folder that the site's own stays in: it still takes the new name.
		if c := &changes[i]; (c.act == actRemove || c.act == actRmdir) && (c.state != stDropped || c.out == Extra) {
			old[manifest.Fold(c.path)] = int32(i)
		}
	}
	aside = map[int32]struct{}{}
	for i := range changes {
		c := &changes[i]
		if c.state == stDropped || !c.meets() {
			continue
		}
		j, named := old[manifest.Fold(c.path)]
		known := named && changes[j].state != stDropped
		info, err := s.root.Lstat(c.path)
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
			recase = append(recase, op{kind: opOut, dir: true, path: from, slot: s.outSlot(int32(i)), size: -1},
				op{kind: opRecase, path: c.path, slot: s.outSlot(int32(i))})
		case c.act == actPlace && known && info.IsDir() && changes[j].act == actRmdir:
			// A folder of ours becomes a file: all of it makes way.
			for k := j; k < int32(len(changes)) && (k == j || below(changes[j].path, changes[k].path)); k++ {
				changes[k].under = int32(i)
			}
		case known && !info.IsDir():
			aside[j] = struct{}{}
		case c.act == actPlace && info.Mode().IsRegular():
			recase = append(recase, op{kind: opOut, path: c.path, slot: s.outSlot(int32(i)), size: -1})
		default:
			s.drop(changes, int32(i), Failed, fmt.Errorf("%w: something of the site's own has this name in another case: move it away", fs.ErrExist))
		}
	}
	return recase, aside
}
