package commit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// The names of the journal and of its companion, which says that the first half is
// done, in Options.Dir.
const (
	Journal = "journal"
	Moved   = "journal.moved"
)

// Options of a Commit.
type Options struct {
	Dir   string         // folder of the root for the journal
	Stage string         // folder in which new files are made
	Out   string         // folder in it where files wait that make way
	Next  string         // a file that lasts no longer than the journal
	Keeps durable.Traits // what the root's file system keeps

	// Stopped is asked before each step, and ends the replay with its error.
	Stopped func(context.Context) error
	// OnDecline is told of a mode or a time that the target refuses. What is in place
	// is right otherwise.
	OnDecline func(error)
}

// Commit is the commit of one folder. It is for one goroutine.
type Commit struct {
	root   *durable.Root
	o      Options
	late   bool                   // it was begun by an earlier process
	opened map[string]fs.FileMode // folders that can be written to only now, with their own bits
	placer *durable.Placer
	synced map[string]struct{} // folders that have changed, where SyncAll does not suffice
}

// New returns the commit of a folder, which has a journal or not.
func New(root *durable.Root, o Options) *Commit {
	return &Commit{root: root, o: o, opened: map[string]fs.FileMode{}, placer: durable.NewPlacer(root, o.Stage), synced: map[string]struct{}{}}
}

// BlockedError reports that the first half of a commit could not be done. It was
// taken back: nothing is committed.
type BlockedError struct {
	Path string
	Err  error
}

func (e *BlockedError) Error() string { return fmt.Sprintf("commit %q: %v", e.Path, e.Err) }
func (e *BlockedError) Unwrap() error { return e.Err }

// ErrNone reports that no commit is under way.
var ErrNone = errors.New("no journal")

var (
	errEdited = errors.New("it was changed while this run was under way: pull again")
	errTaken  = errors.New("the new file was taken away before it was in its place: is it a virus scanner that does so? let it leave .nightferry alone, then pull again")
)

func (c *Commit) name(base string) string { return c.o.Dir + "/" + base }

// LeftOpen reports whether a folder may have been opened up for a replay and not
// closed again.
func (c *Commit) LeftOpen(dir string) bool {
	_, open := c.opened[dir]
	return open || c.late
}

// Forget ends a commit. The journal's name goes first: without it its companion
// means nothing.
func (c *Commit) Forget() error {
	c.late = false
	for _, name := range []string{c.name(Journal), c.name(Moved), c.o.Next} {
		if err := c.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if name == c.name(Journal) {
			if err := c.root.SyncDir(c.o.Dir); err != nil {
				return err
			}
		}
	}
	return nil
}
