// Package durable changes files so that a crash or a power cut leaves the old
// state or the new one, and so that no change leaves the folder it was given.
//
// Every operation takes a slash-separated name relative to a [Root] and cannot
// be led outside whatever is planted in the folder: it goes through an os.Root
// or, on Linux, through openat2(2), which promises the same in one call where
// os.Root opens each folder on the way. A name is also refused when a symlink,
// junction or other reparse point stands in its path, even one that points
// inside: a release never creates one, so somebody else did.
//
// The package knows nothing of what the files mean. It is the only caller of
// rename in the project.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// OpKind names one kind of change, as an [Observer] sees it.
type OpKind uint8

// The changes that reach an Observer. Probe changes nothing: it lets a test on
// any system say that a file is locked.
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

// Op is one change that is about to be made. Name (and To, for a rename) are
// slash-separated and relative to the root. Data is the caller's own buffer:
// an Observer that keeps it must copy it.
type Op struct {
	Kind     OpKind
	Name, To string
	Off      int64
	Data     []byte
	Size     int64 // the length a Create or Truncate sets, in bytes
	Mode     fs.FileMode
	Time     time.Time
}

// Observer is told of every change before it is made. It exists for tests: one
// records the operations and replays what a power cut would have left, one
// kills the process between two of them, one answers "disk full". An error
// that it returns is returned by the operation, which then does nothing.
type Observer interface {
	Before(Op) error
}

// Options of a Root.
type Options struct {
	Observer Observer // nil: none
	Create   bool     // make the folder, and its parents, when it is missing
	Trusted  bool     // refuse a folder that an account that is not trusted can change: ErrUntrusted
	// Ours, if set, names a folder in which every file was made by this program.
	// If a mode or the read-only attribute denies an operation below it, the
	// account gives itself the right back and repeats the operation.
	Ours string
}

// Root is a folder inside which files are changed. It is safe for use by
// several goroutines. On Windows the folder cannot be removed while it is open.
type Root struct {
	root  *os.Root
	dir   string
	self  *os.File // the folder itself, for the calls that os.Root does not have
	obs   Observer
	ours  string // Options.Ours
	whole bool   // SyncAll suffices
	one   bool   // the system looks a name up and refuses links in one call
}

// Open opens dir. It refuses a dir whose last element is a symlink, a junction
// or another reparse point, unless that is a volume's mount point: the folder
// would be another one as soon as somebody changed the link.
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
	r := &Root{root: root, dir: abs, self: self, obs: o.Observer, ours: o.Ours, one: looksUpInOne(self), whole: syncsWhole(self)}
	// OpenRoot follows links: a link planted between the look and the open
	// would have led elsewhere.
	if now, err := self.Stat(); err != nil || (!mounted && !os.SameFile(now, info)) {
		return nil, errors.Join(fmt.Errorf("open folder %q: it was replaced while it was opened: try again", dir), err, r.Close())
	}
	if o.Trusted {
		if err := judgeFolder(abs, info); err != nil {
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

// check refuses a name that is not a plain relative path, and one in whose
// path a link stands. With last, the name's own last element must not be a
// link either. A name that does not exist passes: the operation reports it.
// What os.Root guarantees needs no check; this one is about links that stay
// inside, so that a link planted between check and use still cannot lead out.
func (r *Root) check(name string, last bool) error {
	if !fs.ValidPath(name) || !localName(name) {
		return fmt.Errorf("%w: not a relative path inside the folder", fs.ErrInvalid)
	}
	if !last {
		cut := lastSlash(name)
		if cut < 0 {
			return nil
		}
		name = name[:cut]
	}
	if name == "." {
		return nil
	}
	return r.checkChain(name)
}

// vet is check for the operations that refuse links themselves where the system
// does. Then a look beforehand is for an observer alone, which must not hear of
// what is refused.
func (r *Root) vet(name string, last bool) error {
	if r.obs == nil && r.one && fs.ValidPath(name) && localName(name) {
		return nil
	}
	return r.check(name, last)
}

// checkEach is checkChain for systems that cannot do it in one call.
func (r *Root) checkEach(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := r.lstat(name[:i])
		if err != nil {
			return nil // the operation will meet it, and say so
		}
		if isLink(info) {
			return fmt.Errorf("%w at %q: remove it", ErrLink, name[:i])
		}
	}
	return nil
}

func lastSlash(name string) int {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return i
		}
	}
	return -1
}
