package scan

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// WalkOptions of [Walk].
type WalkOptions struct {
	// Skip, if set, omits a path and, for a folder, everything below it. It
	// is called by several goroutines at once.
	Skip func(path string, dir bool) bool
	// Workers is the number of goroutines that list folders ahead of fn. 0:
	// one per processor but at least 4, because network shares respond
	// slowly.
	Workers int
	// Names, if set, translates the listed names.
	Names *Names
}

const (
	// aheadDirs bounds the listed and unconsumed folders per level of the
	// tree, aheadItems (softly) their entries over all levels: some 6 MiB.
	aheadDirs  = 16
	aheadItems = 32 << 10
)

// Walk calls fn for everything below dir, in path order, on the caller's
// goroutine. It does not report dir itself, which is the only link it
// follows.
//
// If a path cannot be stat'ed or listed, Walk reports an Item with Err; it
// never omits the path or treats it as an empty folder. If the path was
// removed after its name was listed, [Vanished] is true for the error. If dir
// itself cannot be listed, Walk returns the error. An error of fn ends the
// walk and is returned unchanged.
func Walk(ctx context.Context, dir string, o WalkOptions, fn func(Item) error) (err error) {
	l, err := openLister(dir)
	if err != nil {
		return fmt.Errorf("list %q: %w", dir, err)
	}
	defer func() {
		if cerr := l.close(); err == nil {
			err = cerr
		}
	}()
	if o.Workers <= 0 {
		o.Workers = max(4, runtime.GOMAXPROCS(0))
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &walker{lister: l, skip: o.Skip, names: o.Names, ahead: map[string]*listing{}, jobs: make(chan *listing, 2*o.Workers)}
	var wg sync.WaitGroup
	for range o.Workers {
		wg.Go(func() { w.runWorker(ctx) })
	}
	defer func() {
		cancel()
		close(w.jobs)
		wg.Wait()
	}()
	return w.walkTree(ctx, dir, fn)
}

// lister reads one folder at a time; each system has its own. It is safe for
// use by several goroutines, each with its own scratch.
//
//	openLister(dir string) (*lister, error)
//	(*lister) listFolder(dir string, skip, *scratch) ([]Item, volume, error)   unsorted
//	(*lister) close() error

type walker struct {
	lister *lister
	skip   func(string, bool) bool
	names  *Names
	jobs   chan *listing
	ahead  map[string]*listing // handed to workers, not yet consumed
	items  atomic.Int64        // entries in finished listings, not yet consumed
	own    scratch
}

// volume identifies the volume of a folder. It is known only after the folder
// is opened, because opening may mount a file system there.
type volume struct {
	dev  uint64 // 0: unknown
	root bool   // the folder is the top of a mounted file system
}

// listing is one folder's content, complete or still being read.
type listing struct {
	dir   string
	done  chan struct{}
	items []Item
	on    volume
	err   error
}

// level is a folder on the path from the root to the current item.
type level struct {
	items  []Item
	on     volume
	next   int // the next item to report
	start  int // the next item to hand to the workers, if it is a folder
	ahead  int // folders handed to the workers and not yet consumed
	parent *level
}

func (w *walker) walkTree(ctx context.Context, root string, fn func(Item) error) error {
	items, on, err := w.listFolder("", &w.own)
	if err != nil {
		return fmt.Errorf("list %q: %w", root, err)
	}
	top := &level{items: items, on: on}
	w.prefetch(top)
	for n := 0; top != nil; n++ {
		if top.next == len(top.items) {
			top = top.parent
			continue
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		it := &top.items[top.next]
		top.next++
		if it.Kind != Dir || it.Err != nil {
			if err := fn(*it); err != nil {
				return err
			}
			continue
		}
		items, on, err := w.takeListing(ctx, top, it.Path)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		it.Err = err
		it.Mount = err == nil && (on.root || on.dev != top.on.dev)
		if err := fn(*it); err != nil {
			return err
		}
		if len(items) > 0 {
			top = &level{items: items, on: on, parent: top}
		}
		w.prefetch(top)
	}
	return nil
}

// takeListing returns the listing of a folder, and reads it itself if no worker has
// it.
func (w *walker) takeListing(ctx context.Context, f *level, dir string) ([]Item, volume, error) {
	l := w.ahead[dir]
	if l == nil {
		return w.listFolder(dir, &w.own)
	}
	delete(w.ahead, dir)
	f.ahead--
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, volume{}, context.Cause(ctx)
	}
	w.items.Add(-int64(len(l.items)))
	return l.items, l.on, l.err
}

// prefetch hands the next folders of the walk to the workers, starting with
// the innermost level.
func (w *walker) prefetch(f *level) {
	for inner := true; f != nil; f = f.parent {
		f.start = max(f.start, f.next)
		for ; f.start < len(f.items) && f.ahead < aheadDirs; f.start++ {
			it := &f.items[f.start]
			if it.Kind != Dir || it.Err != nil {
				continue
			}
			if w.items.Load() > aheadItems && (!inner || f.ahead > 1) {
				return
			}
			l := &listing{dir: it.Path, done: make(chan struct{})}
			select {
			case w.jobs <- l:
				w.ahead[it.Path] = l
				f.ahead++
			default:
				return
			}
		}
		inner = false
	}
}

func (w *walker) runWorker(ctx context.Context) {
	var own scratch
	for l := range w.jobs {
		if ctx.Err() == nil {
			l.items, l.on, l.err = w.listFolder(l.dir, &own)
			w.items.Add(int64(len(l.items)))
		}
		close(l.done)
	}
}

func (w *walker) listFolder(dir string, s *scratch) ([]Item, volume, error) {
	items, on, err := w.lister.listFolder(dir, w.skip, s)
	if err != nil {
		return nil, volume{}, err // a partial listing would look like deletions
	}
	if w.names != nil {
		for i := range items {
			items[i].Path = w.names.translate(items[i].Path)
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	if w.names != nil { // a volume that another system filled may hold two entries that this one cannot distinguish
		items = slices.CompactFunc(items, func(a, b Item) bool { return a.Path == b.Path })
	}
	return items, on, nil
}
