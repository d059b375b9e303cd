// Package durable changes files. A crash or a power cut leaves the old state or the new one, and no change leaves the
// given folder.
//
// Every operation takes a slash-separated name relative to a [Root]. It cannot leave the root, no matter which
// links another account plants there. It uses an os.Root or, on Linux, openat2(2), which gives the same guarantee
// in one call instead of opening each folder on the way. A name is also refused if a symlink, junction or other
// reparse point is in its path, even one that points inside. A release never creates links, so another program did.
//
// The package does not know the meaning of the files. It is the only caller of rename in the project.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// OpKind is a kind of change that an [Observer] sees.
type OpKind uint8

// The changes that reach an Observer. Probe changes nothing: with it, a test on any system can simulate a locked
// file.
const (
	Create OpKind = iota + 1
	Write
	Truncate
	Rename
	Remove
	Mkdir
	SyncFile
	SyncDir
	SyncAll
	Chmod
	Chtimes
	Probe
)

var opNames = [...]string{Create: "create", Write: "write", Truncate: "truncate", Rename: "rename", Remove: "remove",
	Mkdir: "mkdir", SyncFile: "sync", SyncDir: "syncdir", SyncAll: "syncall", Chmod: "chmod", Chtimes: "chtimes", Probe: "probe"}

func (k OpKind) String() string {
	if int(k) < len(opNames) && opNames[k] != "" {
		return opNames[k]
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// Op is one change that is about to be made. Name (and To, for a rename) are slash-separated and relative to the
// root. Data is the caller's buffer: an Observer that keeps it must copy it.
type Op struct {
	Kind     OpKind
	Name, To string
	Off      int64
	Data     []byte
	Size     int64 // the length a Create or Truncate sets, in bytes
	Mode     fs.FileMode
	Time     time.Time
}

// Observer is called before every change. It exists for tests: one records the operations and replays the possible
// states after a power cut, one kills the process between two operations, one returns "disk full". If it returns an
// error, the operation returns that error and does nothing.
type Observer interface {
	Before(Op) error
}

// Options of a Root.
type Options struct {
	Observer Observer // nil: none
	Create   bool     // create the folder and its parents if they are missing
	Trusted  bool     // refuse a folder that an untrusted account can change: ErrUntrusted
	// Keeper, on Windows and for an administrator, trusts one ordinary account with the folder: that of a service. On
	// Unix it has no effect: see BecomeOwner.
	Keeper bool
	// Ours, if set, names a folder in which this program made every file. If a mode or the read-only attribute
	// denies an operation below it, the account restores its own rights and repeats the operation.
	Ours string
}

// Root is a folder inside which files are changed. It is safe for concurrent use. On Windows the folder cannot be
// removed while it is open.
type Root struct {
	folder
	obs   Observer
	ours  string // Options.Ours
	whole bool   // SyncAll suffices
}

// Open opens dir. It refuses a dir whose last element is a symlink, a junction or another reparse point, unless
// that is a volume's mount point. Otherwise a change of the link would silently change the folder.
func Open(dir string, o Options) (*Root, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder %q: %w", dir, err)
	}
	if o.Create {
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return nil, wrap("create folder", dir, err)
		}
	}
	info, err := os.Lstat(abs)
	if err != nil {
		return nil, wrap("open folder", dir, err)
	}
	mounted := isVolumeMount(abs, info)
	switch {
	case isLink(info) && !mounted:
		return nil, fmt.Errorf("open folder %q: %w: name the folder it points to instead", dir, ErrLink)
	case !info.IsDir() && !mounted:
		return nil, fmt.Errorf("open folder %q: it is not a folder", dir)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, wrap("open folder", dir, err)
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(wrap("open folder", dir, err), root.Close())
	}
	r := &Root{folder: folder{root: root, dir: abs, self: self, one: looksUpInOne(self)}, obs: o.Observer, ours: o.Ours, whole: syncsWhole(self)}
	// OpenRoot follows links: a link planted between Lstat and OpenRoot would have led elsewhere.
	if now, err := self.Stat(); err != nil || (!mounted && !os.SameFile(now, info)) {
		return nil, errors.Join(fmt.Errorf("open folder %q: it was replaced while it was opened: try again", dir), err, r.Close())
	}
	if o.Trusted {
		keeper := noAccount
		if o.Keeper {
			keeper = keeperOf(abs)
		}
		if err := judgeFolder(abs, info, keeper); err != nil {
			return nil, errors.Join(wrap("open folder", dir, err), r.Close())
		}
	}
	return r, nil
}

// Dir returns the folder's absolute path, in the system's own form.
func (r *Root) Dir() string { return r.dir }

// Close releases the folder. Files opened in it stay open.
func (r *Root) Close() error { return errors.Join(r.self.Close(), r.root.Close()) }

func (r *Root) before(op Op) error {
	if r.obs == nil {
		return nil
	}
	return r.obs.Before(op)
}

// vet is check for operations that refuse links themselves if the system can. It then checks first only for an
// observer, which must not see refused operations.
func (r *Root) vet(name string, last bool) error {
	if r.obs == nil && r.one && fs.ValidPath(name) && localName(name) {
		return nil
	}
	return r.check(name, last)
}
