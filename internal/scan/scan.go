// Package scan sees what lies in a folder without reading any of it: [Walk]
// streams every name with its size and times, [Patterns] choose among them, and
// a catalogue keeps what was known of each file when its bytes were last read.
//
// Everything is in path order: the order in which a walk with sorted names
// meets things, so that a folder's content directly follows it.
package scan

import "nightferry/internal/manifest"

// Kind is what a name stands for.
type Kind uint8

const (
	File    Kind = iota + 1
	Dir          // an ordinary folder
	Link         // a symlink, a junction, or any other reparse point that stands for another name
	Special      // a device, pipe or socket
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "folder"
	case Link:
		return "link"
	case Special:
		return "special file"
	}
	return "unknown"
}

// Stat is what the file system tells of a file without opening it. Two equal
// Stats of one name mean that the bytes are the same only as far as CTime is
// known and its clock is finer than the changes; see the catalogue's Checked.
type Stat struct {
	Size  int64  // bytes; 0 for folders
	MTime int64  // last write, ns since 1970
	CTime int64  // inode change time or NTFS ChangeTime, ns since 1970; 0 where unknown
	ID    uint64 // inode or file id; 0 where unknown
	Mode  uint16 // Unix permission bits with setuid, setgid, sticky (07777); 0 on Windows
}

// Opened is what the file system tells of an open file.
type Opened struct {
	Kind  Kind
	Stat  Stat
	Birth int64 // when it was made, ns since 1970; 0 where unknown
}

// Item is one name in the tree.
type Item struct {
	Path string // slash-separated, relative to the walked folder; shares memory with its siblings' paths
	Kind Kind   // 0 when Err kept it from being known
	Stat Stat
	// Mount says that a folder is on another volume than the one that holds it. Windows shows such a folder as a Link.
	Mount bool
	Err   error // it could not be looked at, or, for a folder, not be listed: nothing below it is reported
}

// Compare orders paths as a walk meets them; it is manifest.ComparePaths.
func Compare(a, b string) int { return manifest.ComparePaths(a, b) }

// Less reports whether a walk meets path a before path b.
func Less(a, b string) bool { return Compare(a, b) < 0 }
