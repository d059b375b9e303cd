package crash

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/durable"
)

// disk models a file system that loses power. A power cut keeps everything that was synced and any part of the rest.
// The disk is replayed from the changes that an observer recorded.
//
// It guarantees the following, as POSIX and every journaling file system (ext4, XFS, Btrfs, NTFS) do:
//
//   - After SyncFile: the file's bytes, length, mode and time, but not its name.
//   - After SyncDir: the names in that folder, but not the folder's own name. If that name is lost,
//     so are the names in it.
//   - After SyncAll: everything.
//   - A rename is atomic, also between two folders: both names change, or neither. It replaces a file
//     in one step.
//   - A change of names reaches the disk only if the disk has its folders; a removed folder is empty there.
//   - The bytes of a 4 KiB page that was synced and not written since.
//
// Everything else that was not synced may be lost, and the model loses it at random. A name may refer to a file without
// its bytes: the file is empty, full of zeros, or has only some of its pages. Changes of names survive up to some
// moment, or each independently; the same is true of modes and times. The model assumes no order among unsynced
// changes. Nor does it assume ext4's auto_da_alloc, which writes a file's bytes before a rename that replaces another
// file.
//
// The model excludes drives that report a write before it is durable, and file systems that lose synced data.
type disk struct {
	root *inode
	ops  []nameOp // unsynced changes of names
}

// inode is a file or folder.
type inode struct {
	dir   bool
	names map[string]*inode // of a folder, as the process sees it
	kept  map[string]*inode // of a folder, as the disk has it

	data    []byte // of a file, as the disk has it
	mode    fs.FileMode
	mtime   time.Time
	pending []durable.Op
}

// nameOp is one atomic change of names.
type nameOp struct {
	halves []half
}

// half sets or removes one name.
type half struct {
	in   *inode
	name string
	set  *inode // nil: remove the name if it still refers to gone
	gone *inode
}

func newFolder() *inode {
	return &inode{dir: true, mode: 0o755, names: map[string]*inode{}, kept: map[string]*inode{}}
}

// readDisk reads folders, keyed by their names in the model, and treats all of their content as synced.
func readDisk(folders map[string]string) (*disk, error) {
	d := &disk{root: newFolder()}
	for name, dir := range folders {
		top := newFolder()
		d.root.names[name], d.root.kept[name] = top, top
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == dir {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			parent, base := d.find(path.Join(name, path.Dir(filepath.ToSlash(rel)))), path.Base(filepath.ToSlash(rel))
			n := newFolder()
			if !e.IsDir() {
				n = &inode{mtime: info.ModTime()}
				if n.data, err = os.ReadFile(p); err != nil {
					return err
				}
			}
			n.mode = info.Mode().Perm()
			parent.names[base], parent.kept[base] = n, n
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// clone copies the disk's content. Unsynced changes are dropped.
func (d *disk) clone() *disk {
	copies := map[*inode]*inode{}
	var walk func(*inode) *inode
	walk = func(n *inode) *inode {
		if c := copies[n]; c != nil {
			return c
		}
		c := &inode{dir: n.dir, data: slices.Clone(n.data), mode: n.mode, mtime: n.mtime}
		copies[n] = c
		if n.dir {
			c.names, c.kept = map[string]*inode{}, map[string]*inode{}
			for name, m := range n.kept {
				c.names[name], c.kept[name] = walk(m), walk(m)
			}
		}
		return c
	}
	return &disk{root: walk(d.root)}
}

// find returns the node that the process sees at a path, or nil.
func (d *disk) find(p string) *inode {
	n := d.root
	for part := range strings.SplitSeq(p, "/") {
		if part == "." {
			continue
		}
		if n == nil || !n.dir {
			return nil
		}
		n = n.names[part]
	}
	return n
}

// do applies one change.
func (d *disk) do(op durable.Op) error {
	n, in, base := d.find(op.Name), d.find(path.Dir(op.Name)), path.Base(op.Name)
	if n == nil && op.Kind != durable.Create && op.Kind != durable.Mkdir {
		return nil // it failed for the process too
	}
	if in == nil {
		return fmt.Errorf("replay %v %q: its folder is not there", op.Kind, op.Name)
	}
	switch op.Kind {
	case durable.Create:
		if n == nil {
			n = &inode{mode: op.Mode &^ 0o022, mtime: time.Now()}
			d.name(half{in: in, name: base, set: n})
		}
		n.pending = append(n.pending, durable.Op{Kind: durable.Truncate}, durable.Op{Kind: durable.Truncate, Size: op.Size})
	case durable.Mkdir:
		if n == nil {
			n = newFolder()
			n.mode = op.Mode
			d.name(half{in: in, name: base, set: n})
		}
	case durable.Write, durable.Truncate, durable.Chmod, durable.Chtimes:
		n.pending = append(n.pending, op)
	case durable.Rename:
		to := d.find(path.Dir(op.To))
		if to == nil {
			return nil // it failed for the process too
		}
		if old := to.names[path.Base(op.To)]; old != nil && old.dir {
			return nil
		}
		d.name(half{in: to, name: path.Base(op.To), set: n}, half{in: in, name: base, gone: n})
	case durable.Remove:
		if n.dir && len(n.names) > 0 {
			return nil
		}
		d.name(half{in: in, name: base, gone: n})
	case durable.SyncFile:
		n.settle(func() bool { return true })
	case durable.SyncDir:
		d.keep(func(o nameOp) bool {
			return slices.ContainsFunc(o.halves, func(h half) bool { return h.in == n })
		})
	case durable.SyncAll:
		d.keep(func(nameOp) bool { return true })
		d.settleAll(d.root, map[*inode]bool{})
	default:
		return fmt.Errorf("replay %v: no such change", op.Kind)
	}
	return nil
}

// name applies a change of names for the process and queues it for a sync.
func (d *disk) name(halves ...half) {
	for _, h := range halves {
		h.apply(h.in.names)
	}
	d.ops = append(d.ops, nameOp{halves})
}

func (h half) apply(names map[string]*inode) {
	if h.set != nil {
		names[h.name] = h.set
	} else if names[h.name] == h.gone {
		delete(names, h.name)
	}
}

// keep writes to the disk those changes of names that pick selects.
func (d *disk) keep(pick func(nameOp) bool) {
	d.ops = slices.DeleteFunc(d.ops, func(o nameOp) bool {
		if !pick(o) || !d.possible(o) {
			return false
		}
		for _, h := range o.halves {
			h.apply(h.in.kept)
		}
		return true
	})
}

// possible reports whether the disk has the folders that a change of names needs.
func (d *disk) possible(o nameOp) bool {
	for _, h := range o.halves {
		if !reaches(d.root, h.in) || len(o.halves) == 1 && h.gone != nil && len(h.gone.kept) > 0 {
			return false
		}
	}
	return true
}

// reaches reports whether, on the disk, from contains to or is to.
func reaches(from, to *inode) bool {
	if from == to {
		return true
	}
	for _, n := range from.kept {
		if n.dir && reaches(n, to) {
			return true
		}
	}
	return false
}

func (d *disk) settleAll(n *inode, seen map[*inode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	n.settle(func() bool { return true })
	for _, m := range n.names {
		d.settleAll(m, seen)
	}
}

// settle writes pending data to the disk. It asks keep for each page and for each change of length, mode or time.
func (n *inode) settle(keep func() bool) {
	for _, op := range n.pending {
		switch op.Kind {
		case durable.Truncate:
			if keep() {
				n.resize(op.Size)
			}
		case durable.Chmod:
			if keep() {
				n.mode = op.Mode
			}
		case durable.Chtimes:
			if keep() {
				n.mtime = op.Time
			}
		default:
			n.write(op, keep)
		}
	}
	n.pending = nil
}

const pageSize = 4 << 10

func (n *inode) write(op durable.Op, keep func() bool) {
	end := op.Off + int64(len(op.Data))
	if keep() { // the length may change without the bytes
		n.resize(max(end, int64(len(n.data))))
	}
	for at := op.Off; at < end; {
		next := min(end, (at/pageSize+1)*pageSize)
		if keep() {
			n.resize(max(next, int64(len(n.data))))
			copy(n.data[at:next], op.Data[at-op.Off:next-op.Off])
		}
		at = next
	}
}

func (n *inode) resize(size int64) {
	if size <= int64(len(n.data)) {
		n.data = n.data[:size]
		return
	}
	n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
}

// cut simulates a power cut.
func (d *disk) cut(rnd *rand.Rand) {
	coin := func() bool { return rnd.IntN(2) == 0 }
	never := func() bool { return false }
	always := func() bool { return true }
	data := coin
	switch rnd.IntN(5) {
	case 0: // nothing unsynced
		data = never
	case 1: // all names, no bytes
		d.keep(func(nameOp) bool { return true })
		data = never
	case 2: // all bytes, no unsynced names
		data = always
	case 3: // names up to some moment
		left := rnd.IntN(len(d.ops) + 1)
		d.keep(func(nameOp) bool { left--; return left >= 0 })
	default: // any subset
		d.keep(func(nameOp) bool { return coin() })
	}
	var walk func(*inode, map[*inode]bool)
	walk = func(n *inode, seen map[*inode]bool) {
		if !seen[n] {
			seen[n] = true
			n.settle(data)
			n.names = n.kept
			for _, name := range sorted(n.kept) {
				walk(n.kept[name], seen)
			}
		}
	}
	walk(d.root, map[*inode]bool{})
	d.ops = nil
}

func sorted(m map[string]*inode) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// lay writes one of the disk's folders to a real folder.
func (d *disk) lay(name, dir string) error { return d.find(name).lay(dir) }

func (n *inode) lay(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range sorted(n.kept) {
		m, to := n.kept[name], filepath.Join(dir, name)
		if m.dir {
			if err := m.lay(to); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(to, m.data, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(to, m.mode|0o400); err != nil {
			return err
		}
		if err := os.Chtimes(to, m.mtime, m.mtime); err != nil {
			return err
		}
	}
	return nil
}

// recorder records every change with its bytes.
type recorder struct {
	mu  sync.Mutex
	ops []durable.Op
}

// watch returns the observer for one folder of the disk.
func (r *recorder) watch(name string) durable.Observer { return &taped{r, name} }

type taped struct {
	r    *recorder
	name string
}

// Before implements durable.Observer.
func (w *taped) Before(op durable.Op) error {
	if op.Kind == durable.Probe {
		return nil
	}
	op.Name = path.Join(w.name, op.Name)
	if op.To != "" {
		op.To = path.Join(w.name, op.To)
	}
	op.Data = slices.Clone(op.Data)
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.ops = append(w.r.ops, op)
	return nil
}

// after returns the disk after the given changes and a power cut.
func (d *disk) after(ops []durable.Op, rnd *rand.Rand) (*disk, error) {
	c := d.clone()
	for _, op := range ops {
		if err := c.do(op); err != nil {
			return nil, err
		}
	}
	c.cut(rnd)
	return c, nil
}
