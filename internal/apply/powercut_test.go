package apply

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightferry/internal/durable"
)

// simDisk simulates a disk that tracks which changes were synced. It replays the changes that a durable.Observer
// recorded.
//
// Its rules are the worst case of a Linux file system with a journal. Bytes of a file are lost unless the file, or
// everything, was synced after the write. Each unsynced write can be lost alone. A change of names is lost unless
// its folder, or everything, was synced after it. Any subset of the unsynced name changes may survive if each finds
// the names that it needs. A rename is atomic.
type simDisk struct {
	names map[string]*simFile // state after a power cut
}

type simFile struct {
	dir     bool
	data    []byte
	mode    fs.FileMode
	mtime   time.Time
	pending []durable.Op // unsynced writes and truncations
}

func (f *simFile) clone() *simFile {
	c := *f
	c.data, c.pending = slices.Clone(f.data), slices.Clone(f.pending)
	return &c
}

// readDisk reads a folder as fully synced.
func readDisk(t *testing.T, dir string) *simDisk {
	t.Helper()
	d := &simDisk{names: map[string]*simFile{}}
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
		f := &simFile{dir: e.IsDir(), mode: info.Mode().Perm(), mtime: info.ModTime()}
		if !f.dir {
			if f.data, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		d.names[filepath.ToSlash(rel)] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// step is an unsynced change of names.
type step struct {
	op   durable.Op
	file *simFile // made by Create or Mkdir
}

// cut returns the disk's state after ops and a power cut.
func (d *simDisk) cut(ops []durable.Op, rnd *rand.Rand) *simDisk {
	kept := map[string]*simFile{} // synced state
	live := map[string]*simFile{} // state visible to the process
	for p, f := range d.names {
		c := f.clone()
		kept[p], live[p] = c, c
	}
	var steps []step
	for _, op := range ops {
		switch op.Kind {
		case durable.Create:
			f := live[op.Name]
			if f == nil {
				f = &simFile{mode: op.Mode &^ 0o022, mtime: time.Now()}
				live[op.Name] = f
				steps = append(steps, step{op, f})
			}
			f.pending = append(f.pending, durable.Op{Kind: durable.Truncate}, durable.Op{Kind: durable.Truncate, Size: op.Size})
		case durable.Write, durable.Truncate:
			if f := live[op.Name]; f != nil {
				f.pending = append(f.pending, op)
			}
		case durable.Chmod:
			if f := live[op.Name]; f != nil {
				f.mode = op.Mode
			}
		case durable.Chtimes:
			if f := live[op.Name]; f != nil && rnd.IntN(2) == 0 {
				f.mtime = op.Time
			}
		case durable.SyncFile:
			if f := live[op.Name]; f != nil {
				f.settle(func() bool { return true })
			}
		case durable.SyncDir:
			var rest []step
			for _, s := range steps {
				if path.Dir(s.op.Name) == op.Name || s.op.To != "" && path.Dir(s.op.To) == op.Name {
					s.apply(kept)
				} else {
					rest = append(rest, s)
				}
			}
			steps = rest
		case durable.SyncAll:
			for _, s := range steps {
				s.apply(kept)
			}
			steps = nil
			for _, f := range live {
				f.settle(func() bool { return true })
			}
		default:
			s := step{op: op}
			if op.Kind == durable.Mkdir {
				s.file = &simFile{dir: true, mode: op.Mode}
			}
			s.apply(live)
			steps = append(steps, s)
		}
	}
	// Survivors are either all changes up to some point, as with an ordered journal, or any subset.
	upTo, any := rnd.IntN(len(steps)+1), rnd.IntN(2) == 0
	for i, s := range steps {
		if any && rnd.IntN(2) == 0 || !any && i < upTo {
			s.apply(kept)
		}
	}
	out := &simDisk{names: map[string]*simFile{}}
	for p, f := range kept {
		c := f.clone()
		c.settle(func() bool { return rnd.IntN(2) == 0 })
		out.names[p] = c
	}
	return out
}

// apply applies a change of names if the names that it needs exist.
func (s step) apply(names map[string]*simFile) {
	parent := func(p string) bool {
		dir := path.Dir(p)
		return dir == "." || names[dir] != nil && names[dir].dir
	}
	switch s.op.Kind {
	case durable.Create, durable.Mkdir:
		if names[s.op.Name] == nil && parent(s.op.Name) {
			names[s.op.Name] = s.file
		}
	case durable.Remove:
		for p := range names {
			if isBelow(s.op.Name, p) {
				return // not empty
			}
		}
		delete(names, s.op.Name)
	case durable.Rename:
		f := names[s.op.Name]
		if to := names[s.op.To]; f == nil || !parent(s.op.To) || to != nil && to.dir {
			return
		}
		delete(names, s.op.Name)
		names[s.op.To] = f
	}
}

// settle applies the pending writes that keep selects.
func (f *simFile) settle(keep func() bool) {
	for _, op := range f.pending {
		if !keep() {
			continue
		}
		switch n := int64(len(f.data)); {
		case op.Kind == durable.Truncate && op.Size <= n:
			f.data = f.data[:op.Size]
		case op.Kind == durable.Truncate:
			f.data = append(f.data, make([]byte, op.Size-n)...)
		default:
			if end := op.Off + int64(len(op.Data)); end > n {
				f.data = append(f.data, make([]byte, end-n)...)
			}
			copy(f.data[op.Off:], op.Data)
		}
	}
	f.pending = nil
}

// lay writes the simulated disk to a folder.
func (d *simDisk) lay(t *testing.T, dir string) {
	t.Helper()
	var paths []string
	for p := range d.names {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		f := d.names[p]
		name := filepath.Join(dir, filepath.FromSlash(p))
		var err error
		if f.dir {
			err = os.Mkdir(name, 0o755)
		} else if err = os.WriteFile(name, f.data, 0o644); err == nil {
			err = os.Chtimes(name, f.mtime, f.mtime)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
