package durable

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"time"
)

// Traits describes the metadata that a root's file system keeps. Code that judges a file by its metadata uses them.
// Otherwise a mode or time that the file system cannot keep would look like a change.
type Traits struct {
	Modes    bool  `json:"modes"`    // permission bits
	Fold     bool  `json:"fold"`     // names that differ only in case are the same name
	Compose  bool  `json:"compose"`  // names that differ only in Unicode normalization are the same name
	Alters   bool  `json:"alters"`   // some names are listed in another form than they were made in
	Sparse   bool  `json:"sparse"`   // ranges that were never written take no space
	Inodes   bool  `json:"inodes"`   // inode numbers and change times survive a remount
	Grain    int64 `json:"grain"`    // resolution of modification times, nanoseconds; 0: none are kept
	Earliest int64 `json:"earliest"` // the earliest modification time, nanoseconds since 1970
	Latest   int64 `json:"latest"`   // the latest one
}

// Time returns the modification time that the file system stores for want: the nearest one inside its range. Both
// are nanoseconds since 1970.
func (t *Traits) Time(want int64) int64 { return min(max(want, t.Earliest), t.Latest) }

// SameTime reports whether have is the modification time that the file system stores for want.
func (t *Traits) SameTime(have, want int64) bool {
	if t.Grain == 0 {
		return true
	}
	return within(have, t.Time(want), t.Grain)
}

// within reports whether a and b are less than d apart.
func within(a, b, d int64) bool {
	apart := max(a, b) - min(a, b)
	return apart >= 0 && apart < d // less than 0: an overflow
}

// Nanoseconds returns a time as nanoseconds since 1970. A time before 1677 or after 2262, which 64 bits cannot
// hold, becomes the nearest possible one.
func Nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < math.MinInt64/1_000_000_000:
		return math.MinInt64
	case s >= math.MaxInt64/1_000_000_000:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// ReadTraits returns traits that [WriteTraits] stored.
func ReadTraits(r *Root, name string) (t Traits, err error) {
	f, err := r.Open(name)
	if err != nil {
		return t, err
	}
	err = json.NewDecoder(io.LimitReader(f, 1<<10)).Decode(&t)
	return t, errors.Join(wrap("read", name, err), f.Close())
}

// WriteTraits stores traits in a file of the root.
func WriteTraits(r *Root, name string, t Traits) error {
	b, err := json.Marshal(t)
	if err != nil {
		return wrap("write", name, err)
	}
	return r.WriteFile(name, b, 0o644)
}

// ProbeTraits determines the traits with a temporary file in the folder dir. The file bypasses the Observer,
// because it holds no data that a crash could lose.
func ProbeTraits(r *Root, dir string) (t Traits, err error) {
	name := tempName(path.Join(dir, "x"))
	f, err := openOurs(r, name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return t, wrap("probe the file system in", dir, err)
	}
	defer func() { err = errors.Join(err, wrap("remove", name, r.remove(name))) }()
	const hole = 1 << 20
	if f.Truncate(hole) == nil {
		info, serr := f.Stat()
		t.Sparse = serr == nil && isSparse(r, info)
	}
	if err := f.Close(); err != nil {
		return t, wrap("probe the file system in", dir, err)
	}
	if err := t.names(r, dir); err != nil {
		return t, wrap("probe the file system in", dir, err)
	}
	t.Modes = hasModes && keepsMode(r, name, 0o640) && keepsMode(r, name, 0o751)
	t.Inodes = keepsInodes(r)
	t.times(func(want int64) (int64, bool) {
		if r.chtimes(name, time.Unix(0, want)) != nil {
			return 0, false
		}
		info, err := r.lstat(name)
		if err != nil {
			return 0, false
		}
		return Nanoseconds(info.ModTime()), true
	})
	return t, nil
}

// ErrShort means that a file system shortens names, so that two different ones become one.
var ErrShort = errors.New("the file system shortens names: mount it with support for long names")

// names determines how the file system changes names, in a temporary folder of dir.
func (t *Traits) names(r *Root, dir string) (err error) {
	folder := tempName(path.Join(dir, "x"))
	if err := r.mkdir(folder, 0o700); err != nil {
		return err
	}
	var made []string
	defer func() {
		for _, name := range made {
			err = errors.Join(err, r.remove(path.Join(folder, name)))
		}
		err = errors.Join(err, r.remove(folder))
	}()
	for _, name := range []string{"UPPER.TXT", "Mixed and longer than 8.3", "caf\u00e9", "ange\u0301"} {
		f, err := r.openFile(path.Join(folder, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			continue // a name that cannot be made is reported where it is needed
		}
		if err := f.Close(); err != nil {
			return err
		}
		made = append(made, name)
	}
	exists := func(name string) bool {
		_, err := r.lstat(path.Join(folder, name))
		return err == nil
	}
	if exists("Mixed and longer than 8.4") {
		return ErrShort
	}
	t.Fold, t.Compose = exists("upper.txt"), exists("cafe\u0301")
	list, err := r.ReadDir(folder)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, e := range list {
		listed[e.Name()] = true
	}
	for _, name := range made {
		t.Alters = t.Alters || !listed[name]
	}
	return nil
}

// keepsMode reports whether the file system keeps a mode of the file.
func keepsMode(r *Root, name string, mode fs.FileMode) bool {
	if r.root.Chmod(name, mode) != nil {
		return false
	}
	info, err := r.lstat(name)
	return err == nil && info.Mode().Perm() == mode
}

// times determines resolution and range. set sets a time and returns the stored one.
func (t *Traits) times(set func(want int64) (int64, bool)) {
	const usual = 1_000_000_001_123_456_789 // of 2001, an odd second
	have, ok := set(usual)
	if !ok {
		return
	}
	for _, grain := range []int64{100, 1e3, 1e6, 1e7, 1e9, 2e9} {
		if within(have, usual, grain) {
			t.Grain = grain
			break
		}
	}
	// Try the limits from the widest to the narrowest. Skip a limit if the system stores a time far from it, as an
	// overflowing counter does.
	year := func(y int) int64 { return time.Date(y, 1, 2, 0, 0, 0, 0, time.UTC).UnixNano() }
	t.Earliest, t.Latest = year(1981), year(2037)
	have, ok = set(-usual)
	before := ok && within(have, -usual, t.Grain) // ntfs-3g rounds times before 1970
	for _, at := range []int64{math.MinInt64, math.MinInt32 * 1e9, 0, year(1980)} {
		if at < 0 && !before {
			continue
		}
		if have, ok := set(at); ok && (have >= at || within(have, at, t.Grain)) && have <= t.Earliest {
			t.Earliest = have
			break
		}
	}
	for _, at := range []int64{math.MaxInt64, math.MaxUint32 * 1e9, math.MaxInt32 * 1e9} {
		if have, ok := set(at); ok && have <= at && have >= t.Latest {
			t.Latest = have
			break
		}
	}
}
