package commit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// The names in Options.Dir of the journal and of its companion. The companion marks the first half as done.
const (
	Journal = "journal"
	Moved   = "journal.moved"
)

// Options of a Commit.
type Options struct {
	Dir   string         // folder of the root for the journal
	Stage string         // folder in which new files are made
	Out   string         // folder in it for files that make way
	Next  string         // a file that is removed with the journal
	Aside string         // folder for old files whose path the site has taken when a commit is rolled back
	Keeps durable.Traits // the metadata that the root's file system keeps

	// Stopped is called before each step. Its error ends the replay.
	Stopped func(context.Context) error
	// OnDecline is called with a mode or time that the target refuses. The file itself is in place and right.
	OnDecline func(error)
	// OnAside is called with the reason when a file was moved to Aside.
	OnAside func(error)
}

// Commit is the commit of one folder. It is not safe for concurrent use.
type Commit struct {
	root   *durable.Root
	o      Options
	late   bool                   // an earlier process started it
	opened map[string]fs.FileMode // folders made writable for this commit, with their original bits
	placer *durable.Placer
	synced map[string]struct{} // folders that have changed, if SyncAll does not suffice
}

// New returns the commit of a folder, with or without a journal.
func New(root *durable.Root, o Options) *Commit {
	return &Commit{root: root, o: o, opened: map[string]fs.FileMode{}, placer: durable.NewPlacer(root, o.Stage), synced: map[string]struct{}{}}
}

// BlockedError means that the first half of a commit could not be done. It was rolled back: nothing is committed.
type BlockedError struct {
	Path string
	Err  error
}

func (e *BlockedError) Error() string { return fmt.Sprintf("commit %q: %v", e.Path, e.Err) }
func (e *BlockedError) Unwrap() error { return e.Err }

// ErrNone means that no commit is under way.
var ErrNone = errors.New("no journal")

var (
	errEdited = errors.New("it was changed while this run was under way: pull again")
	errTaken  = errors.New("the new file was taken away before it was in its place: is it a virus scanner that does so? let it leave .nightferry alone, then pull again")
)

func (c *Commit) pathOf(base string) string { return c.o.Dir + "/" + base }

// LeftOpen reports whether a replay may have made a folder writable without restoring its mode.
func (c *Commit) LeftOpen(dir string) bool {
	_, open := c.opened[dir]
	return open || c.late
}

// Forget ends a commit. It removes the journal first: without it, the companion has no meaning.
func (c *Commit) Forget() error {
	c.late = false
	for _, name := range []string{c.pathOf(Journal), c.pathOf(Moved), c.o.Next} {
		if _, err := durable.MakeRoom(c.root, name, false); err != nil {
			return err
		}
		if err := c.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if name == c.pathOf(Journal) {
			if err := c.root.SyncDir(c.o.Dir); err != nil {
				return err
			}
		}
	}
	return nil
}
