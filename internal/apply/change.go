package apply

import (
	"slices"
	"strings"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// act is what a change does to its path.
type act uint8

const (
	actNone   act = iota // no change on disk: the file turned out to be right
	actMkdir             // make the folder
	actPlace             // put a new file there, replacing a file or nothing
	actTouch             // mode and time only
	actRemove            // delete a file
	actRmdir             // delete a folder, if it is empty then
)

// inTheWay says which entry must leave the path before the change can be made.
type inTheWay uint8

const (
	wayFree   inTheWay = iota // nothing, or a file that the new one replaces
	wayEntry                  // a file or a link where something else must be: moved out
	wayFolder                 // a folder where a file must be: emptied and removed
)

// state of a change.
type state uint8

const (
	stReady   state = iota // to be done; for actPlace: staged and proven
	stUnknown              // content on the disk must be read first
	stLacking              // actPlace: not staged yet
	stDropped              // not done, its outcome was reported already
)

// parts are the chunk references of a file that is more than one chunk.
type parts struct {
	chunks []chunk.Ref
	lists  []manifest.ListRef
}

// foundEntry is the entry found at a change's path when the plan was made.
type foundEntry struct {
	digest digest.Digest // zero unless known: catalogued and untouched since, or read
	stat   scan.Stat
}

// foundDigest returns the digest of the entry at the path; zero if it is unknown or there is none.
func (c *change) foundDigest() digest.Digest {
	if c.found == nil {
		return digest.Digest{}
	}
	return c.found.digest
}

// foundStat returns the stat of the entry at the path.
func (c *change) foundStat() scan.Stat {
	if c.found == nil {
		return scan.Stat{}
	}
	return c.found.stat
}

// change is one path at which the target differs from the release, or may.
// There may be very many: keep it small.
type change struct {
	path       string
	parts      *parts
	cause      error
	digest     digest.Digest // of the release's file, zero for a deletion
	found      *foundEntry   // nil: no entry that matters
	size       int64
	mtime      int64
	held       int64  // bytes of it from this machine
	from       int32  // the change whose old file is moved here, or -1
	to         int32  // the change that takes this one's old file, or -1
	makesWay   int32  // the wayFolder change for which this one must make way, or -1
	chunksLeft int32  // chunks not staged yet
	entry      uint32 // 1 + ordinal of the release's entry; 0: none
	copy       uint32 // distinguishes the staged files of one digest
	mode       uint16
	act        act
	way        inTheWay
	state      state
	out        runs.Outcome
	onDisk     bool // there is a file at path
	asReleased bool // and its stat shows that it is the last release's: the catalogue knows its chunks
	owned      bool // the catalogue has the path
	restated   bool // only inode number, change time or mode are new
	fresh      bool // this run made the staged file: ranges not written are zeros
}

// isBelow reports whether path is inside dir.
func isBelow(dir, path string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir)
}

// stageName returns the path of the staged file. It depends only on the content, so that a later run finds the
// file, for any release.
func (c *change) stageName() string {
	s := c.digest.String()
	b := make([]byte, 0, len(stageDir)+len(s)+8)
	b = append(append(append(b, stageDir...), '/'), s[:2]...)
	b = append(append(b, '/'), s[2:]...)
	if c.copy > 0 {
		b = appendInt(append(b, '-'), int64(c.copy))
	}
	return string(b)
}

// changeAt returns the change at a path, or nil.
func changeAt(changes []change, path string) *change {
	i, found := changeIndex(changes, path)
	if !found {
		return nil
	}
	return &changes[i]
}

// changeIndex returns the index of the change at a path, and whether there is one.
func changeIndex(changes []change, path string) (int, bool) {
	return slices.BinarySearchFunc(changes, path, func(c change, p string) int { return scan.Compare(c.path, p) })
}

// outcomeOf returns Locked for a lock, which may go away, and Failed for any other error.
func outcomeOf(err error) runs.Outcome {
	if durable.IsLocked(err) {
		return runs.FileLocked
	}
	return runs.FileFailed
}
