package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/maphash"
	"strings"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// TreeHash computes the tree digest of entries in path order. It is the
// SHA-256 of one line per entry: "<64 hex digits>  <path>\n" for a file, as
// sha256sum prints it, and "dir  <path>\n" for a folder. It covers names and
// content but not times and modes, so that anyone can compute it with
// coreutils.
type TreeHash struct {
	h   hash.Hash
	buf []byte
}

// Add takes the next entry.
func (t *TreeHash) Add(kind Kind, path string, d digest.Digest) {
	if t.h == nil {
		t.h = sha256.New()
	}
	b := t.buf[:0]
	if kind == Dir {
		b = append(b, "dir"...)
	} else {
		b = hex.AppendEncode(b, d[:])
	}
	b = append(append(append(b, "  "...), path...), '\n')
	t.h.Write(b)
	t.buf = b
}

// Sum returns the tree digest of the entries added so far.
func (t *TreeHash) Sum() digest.Digest {
	if t.h == nil {
		return digest.Of(nil)
	}
	return digest.Digest(t.h.Sum(nil))
}

// Checker validates a whole tree from a stream of entries. It checks the order across pages, and that every parent is
// an earlier folder. No two names in a folder may differ only by case. Finally it compares totals and tree digest. Its
// memory is a hash for each name in the folders on the path to the current entry. Among a million names in one folder,
// the odds of a hash collision are 1 to 10^7. The seed differs for every Checker, so a second try passes.
type Checker struct {
	Portable bool

	totals Totals
	tree   TreeHash
	last   string
	stack  []folder
	seed   maphash.Seed
	fold   []byte
	spare  []map[uint64]struct{} // emptied, so that a tree of small folders makes few maps
}

type folder struct {
	path  string
	names map[uint64]struct{} // folded names seen, hashed
}

// AliasError reports a name that cannot exist beside another on Windows.
type AliasError struct{ Path string }

func (e *AliasError) Error() string {
	return fmt.Sprintf("name %q: differs only by case from another in its folder", e.Path)
}

// Add takes the next entry. Errors are *PathError, *AliasError or wrap
// frame.ErrDamaged. After an *AliasError the caller can add further entries,
// to list all aliases.
func (c *Checker) Add(e *Entry) error {
	if c.stack == nil {
		c.seed = maphash.MakeSeed()
		c.stack = []folder{{}}
	} else if ComparePaths(c.last, e.Path) >= 0 {
		return fmt.Errorf("entry %q is out of order: %w", e.Path, frame.ErrDamaged)
	}
	c.last = e.Path
	parent, name := "", e.Path
	if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
		parent, name = e.Path[:i], e.Path[i+1:]
	}
	for c.stack[len(c.stack)-1].path != parent {
		if len(c.stack) == 1 {
			return fmt.Errorf("entry %q: its parent is no folder of the release: %w", e.Path, frame.ErrDamaged)
		}
		c.leaveFolder()
	}
	top := &c.stack[len(c.stack)-1]
	if e.Kind == Dir {
		c.totals.Dirs++
		defer func() { c.stack = append(c.stack, folder{path: e.Path}) }()
	} else {
		c.totals.Files++
		c.totals.Bytes += e.Size
	}
	if c.totals.Files+c.totals.Dirs > MaxEntries || c.totals.Bytes > MaxBytes {
		return fmt.Errorf("entry %q: more than %d entries or %d bytes: %w", e.Path, MaxEntries, int64(MaxBytes), frame.ErrDamaged)
	}
	c.tree.Add(e.Kind, e.Path, e.Digest)
	if c.Portable && !top.addName(c, name) {
		return &AliasError{Path: e.Path}
	}
	return nil
}

// addName records a name of the folder. It returns false if an alias of it is
// there.
func (f *folder) addName(c *Checker, name string) bool {
	c.fold = appendFold(c.fold[:0], name)
	key := maphash.Bytes(c.seed, c.fold)
	if _, dup := f.names[key]; dup {
		return false
	}
	if n := len(c.spare); f.names == nil && n > 0 {
		f.names, c.spare = c.spare[n-1], c.spare[:n-1]
	} else if f.names == nil {
		f.names = map[uint64]struct{}{}
	}
	f.names[key] = struct{}{}
	return true
}

// leaveFolder drops the innermost folder: no later entry can be in it.
func (c *Checker) leaveFolder() {
	n := len(c.stack) - 1
	// Clearing a large map costs more than making a small one.
	if m := c.stack[n].names; m != nil && len(m) <= 256 {
		clear(m)
		c.spare = append(c.spare, m)
	}
	c.stack = c.stack[:n]
}

// Sum returns the totals and the tree digest of the entries added so far.
func (c *Checker) Sum() (Totals, digest.Digest) { return c.totals, c.tree.Sum() }

// Finish compares the added entries with the release's totals and tree
// digest.
func (c *Checker) Finish(r *Release) error {
	if t, d := c.Sum(); t != r.Totals || d != r.Tree {
		return fmt.Errorf("manifest holds %d files, %d folders, %d bytes, tree %s; the release says %d, %d, %d, %s: %w",
			t.Files, t.Dirs, t.Bytes, d.Short(), r.Totals.Files, r.Totals.Dirs, r.Totals.Bytes, r.Tree.Short(), frame.ErrDamaged)
	}
	return nil
}
