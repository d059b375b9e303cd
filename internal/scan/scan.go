// Package scan lists folders without reading file contents: [Walk] streams every name with its size and times, and
// [Patterns] select among them. A catalogue keeps the state of each file from when its bytes were last read.
//
// Everything is in path order: the order of a walk with sorted names, in which a folder's content directly follows it.
package scan

import "nightferry/internal/manifest"

// Kind is the type of a directory entry.
type Kind uint8

const (
	File    Kind = iota + 1
	Dir          // an ordinary folder
	Link         // a symlink, a junction, or any other reparse point that refers to another name
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

// Stat is the file system's data about a file, read without opening it. Two equal Stats of one name mean equal bytes
// only if CTime is known and its clock is finer than the changes; see the catalogue's Checked.
type Stat struct {
	Size  int64  // bytes; 0 for folders
	MTime int64  // last write, ns since 1970
	CTime int64  // inode change time or NTFS ChangeTime, ns since 1970; 0 if unknown
	ID    uint64 // inode or file id; 0 if unknown
	Mode  uint16 // Unix permission bits with setuid, setgid, sticky (07777); 0 on Windows
}

// Opened is the file system's data about an open file.
type Opened struct {
	Kind  Kind
	Stat  Stat
	Birth int64 // creation time, ns since 1970; 0 if unknown
}

// Item is one name in the tree.
type Item struct {
	Path string // slash-separated, relative to the walked folder; shares memory with its siblings' paths
	Kind Kind   // 0 if Err prevented finding it
	Stat Stat
	// Mount marks a folder on another volume than its parent. Windows shows such a folder as a Link.
	Mount bool
	Err   error // the stat failed or, for a folder, the listing; nothing below it is reported
}

// Compare orders paths as a walk does; it is manifest.ComparePaths.
func Compare(a, b string) int { return manifest.ComparePaths(a, b) }

// Less reports whether a walk visits path a before path b.
func Less(a, b string) bool { return Compare(a, b) < 0 }
