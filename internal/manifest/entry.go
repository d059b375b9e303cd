// Package manifest is the format of a release's tree: entries in path order,
// cut into pages at content-defined places, and the release object, which
// lists the pages. It uses no files, network or clock. See
// docs/format/manifest-page.md, chunk-list-page.md and release.md.
package manifest

import (
	"fmt"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// Kind of an entry.
type Kind uint8

const (
	// File is a regular file.
	File Kind = 0
	// Dir is a folder; every folder of the tree has an entry, empty or not.
	Dir Kind = 1
)

func (k Kind) String() string {
	if k == Dir {
		return "dir"
	}
	return "file"
}

// Bounds of an entry.
const (
	// MaxInline is the number of chunk references an entry holds itself; a
	// file with more refers to chunk-list pages.
	MaxInline = 64
	// MaxLists bounds the chunk-list pages of one file, and with them the
	// size of a file: about 1 TiB at the default chunk size.
	MaxLists = 8192
)

// ListRef names a chunk-list page and how much of the file it covers.
type ListRef struct {
	_    struct{}      `cbor:",toarray"`
	ID   digest.Digest `json:"id"`
	Size int64         `json:"size"` // bytes of the file, not of the page
}

// Entry is one file or folder of a release.
//
// The content of a file is given in one of four forms: empty (Size 0); one
// chunk whose id is the file's digest (no Chunks, no Lists; only if ids are
// plain SHA-256 and the file is not all zeros); Chunks, at most MaxInline; or
// Lists. A file uses the first of these forms that can hold it.
type Entry struct {
	_      struct{}      `cbor:",toarray"`
	Path   string        `json:"path"` // slash-separated, relative, checked by CheckPath
	Kind   Kind          `json:"kind"`
	Size   int64         `json:"size"`   // bytes
	MTime  int64         `json:"mtime"`  // nanoseconds since 1970 UTC; 0 for a folder
	Mode   uint16        `json:"mode"`   // Unix permission bits, at most 0o777
	Digest digest.Digest `json:"digest"` // SHA-256 of the file's bytes; zero for a folder
	Chunks []chunk.Ref   `json:"chunks"`
	Lists  []ListRef     `json:"lists"`
}

// Refs returns the chunk references of a file without Lists.
func (e *Entry) Refs() []chunk.Ref {
	if e.Kind == File && e.Size > 0 && len(e.Chunks) == 0 && len(e.Lists) == 0 {
		return []chunk.Ref{{ID: e.Digest, Size: e.Size}}
	}
	return e.Chunks
}

// SameContent reports whether both have the same bytes, or are both folders.
func (e *Entry) SameContent(o *Entry) bool {
	return e.Kind == o.Kind && e.Size == o.Size && e.Digest == o.Digest
}

// SiteMode returns the entry's mode at a site. The owner can always read a
// file and list a folder; otherwise the site could not verify its content.
func (e *Entry) SiteMode() uint16 {
	if e.Kind == Dir {
		return e.Mode | 0o500
	}
	return e.Mode | 0o400
}

// Validate checks the entry alone: its bounds, and that its sizes add up.
func (e *Entry) Validate(portable bool) error {
	if err := CheckPath(e.Path, portable); err != nil {
		return err
	}
	bad := func(why string) error {
		return fmt.Errorf("entry %q: %s: %w", e.Path, why, frame.ErrDamaged)
	}
	if e.Mode > 0o777 {
		return bad("mode has more than permission bits")
	}
	switch e.Kind {
	case Dir:
		if e.Size != 0 || e.MTime != 0 || !e.Digest.IsZero() || len(e.Chunks) != 0 || len(e.Lists) != 0 {
			return bad("a folder with content")
		}
		return nil
	case File:
	default:
		return bad(fmt.Sprintf("kind %d is not known", e.Kind))
	}
	if e.Size < 0 || e.Size > chunk.MaxHole || e.Digest.IsZero() {
		return bad("size or digest out of bounds")
	}
	if len(e.Chunks) > MaxInline || len(e.Lists) > MaxLists || (len(e.Chunks) > 0 && len(e.Lists) > 0) {
		return bad("too many chunk references")
	}
	if len(e.Chunks) == 0 && len(e.Lists) == 0 {
		if e.Size > chunk.MaxSize {
			return bad("no chunk references")
		}
		if e.Size == 0 && e.Digest != emptyDigest {
			return bad("an empty file with another digest than nothing has")
		}
		return nil
	}
	if len(e.Chunks) == 1 && e.Chunks[0].ID == e.Digest {
		return bad("its one chunk is the file and must not be listed")
	}
	if err := chunk.CheckRefs(e.Chunks); err != nil {
		return bad(err.Error())
	}
	// Neither sum overflows: at most MaxLists sizes of at most MaxHole.
	var sum int64
	for _, c := range e.Chunks {
		sum += c.Size
	}
	for _, l := range e.Lists {
		if l.Size < 1 || l.Size > chunk.MaxHole || l.ID.IsZero() {
			return bad("chunk list out of bounds")
		}
		sum += l.Size
	}
	if sum != e.Size {
		return bad(fmt.Sprintf("its chunks hold %d bytes, it claims %d", sum, e.Size))
	}
	return nil
}

// emptyDigest is the SHA-256 of no bytes.
var emptyDigest = digest.Of(nil)
