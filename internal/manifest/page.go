package manifest

import (
	"crypto/sha256"
	"fmt"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

const (
	// PageKind and PageVersion open a manifest page.
	PageKind    = "page"
	PageVersion = 1
	// ListKind and ListVersion open a chunk-list page.
	ListKind    = "list"
	ListVersion = 1

	// MaxPage bounds a page of either kind in bytes: a page is a chunk.
	MaxPage = chunk.MaxSize

	minPageEntries = 64
	pageMask       = 1<<9 - 1 // one entry in 512 ends a page
	maxPageBytes   = 384 << 10
	minListRefs    = 256
	maxListRefs    = 4096
	listMask       = 1<<10 - 1 // one chunk in 1024 ends a list
)

type page struct {
	_       struct{} `cbor:",toarray"`
	Entries []Entry
}

type list struct {
	_      struct{} `cbor:",toarray"`
	Chunks []chunk.Ref
}

// EncodePage returns the page that holds entries.
func EncodePage(entries []Entry) ([]byte, error) {
	return frame.Encode(PageKind, PageVersion, &page{Entries: entries})
}

// DecodePage reads a page and validates each entry and their order.
func DecodePage(b []byte, portable bool) ([]Entry, error) {
	var p page
	if err := frame.Decode(PageKind, PageVersion, MaxPage, b, &p); err != nil {
		return nil, err
	}
	for i := range p.Entries {
		if err := p.Entries[i].Validate(portable); err != nil {
			return nil, err
		}
		if i > 0 && ComparePaths(p.Entries[i-1].Path, p.Entries[i].Path) >= 0 {
			return nil, fmt.Errorf("manifest page: %q is out of order: %w", p.Entries[i].Path, frame.ErrDamaged)
		}
	}
	return p.Entries, nil
}

// EncodeList returns the chunk-list page that holds refs.
func EncodeList(refs []chunk.Ref) ([]byte, error) {
	return frame.Encode(ListKind, ListVersion, &list{Chunks: refs})
}

// DecodeList reads a chunk-list page that must cover size bytes of its file.
func DecodeList(b []byte, size int64) ([]chunk.Ref, error) {
	var l list
	if err := frame.Decode(ListKind, ListVersion, MaxPage, b, &l); err != nil {
		return nil, err
	}
	var sum int64
	for _, c := range l.Chunks {
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("chunk list: %w: %w", frame.ErrDamaged, err)
		}
		if sum += c.Size; sum > chunk.MaxHole {
			break
		}
	}
	if sum != size {
		return nil, fmt.Errorf("chunk list covers %d bytes, its file says %d: %w", sum, size, frame.ErrDamaged)
	}
	return l.Chunks, nil
}

// PageBuilder cuts a stream of entries into pages. A page ends after an entry
// whose path hashes to it, so that editing, adding or removing one entry
// changes one page and moves no other cut.
type PageBuilder struct {
	// Emit takes each finished page: its bytes, its first path, its entries.
	Emit func(page []byte, first string, entries int) error

	entries []Entry
	bytes   int
}

// estimate bounds the encoded length of an entry from above.
func estimate(e *Entry) int { return 96 + len(e.Path) + 48*len(e.Chunks) + 48*len(e.Lists) }

// Add takes the next entry in path order.
func (b *PageBuilder) Add(e Entry) error {
	n := estimate(&e)
	if len(b.entries) > 0 && b.bytes+n > maxPageBytes {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.entries = append(b.entries, e)
	b.bytes += n
	if len(b.entries) >= minPageEntries {
		h := sha256.Sum256([]byte(e.Path))
		if (int(h[0])<<8|int(h[1]))&pageMask == 0 {
			return b.flush()
		}
	}
	return nil
}

func (b *PageBuilder) flush() error {
	if len(b.entries) == 0 {
		return nil
	}
	p, err := EncodePage(b.entries)
	if err != nil {
		return err
	}
	if len(p) > MaxPage {
		return fmt.Errorf("manifest page of %d bytes at %q exceeds %d", len(p), b.entries[0].Path, MaxPage)
	}
	first, n := b.entries[0].Path, len(b.entries)
	b.entries, b.bytes = b.entries[:0], 0
	return b.Emit(p, first, n)
}

// Finish emits what is left.
func (b *PageBuilder) Finish() error { return b.flush() }

// CutLists cuts the chunk references of a large file into chunk-list pages at
// content-defined places and hands each to emit, which returns its id.
func CutLists(refs []chunk.Ref, emit func(page []byte) (digest.Digest, error)) ([]ListRef, error) {
	var out []ListRef
	for len(refs) > 0 {
		n := 0
		var size int64
		for n < len(refs) {
			r := refs[n]
			size += r.Size
			n++
			if n >= maxListRefs || n >= minListRefs && (int(r.ID[0])<<8|int(r.ID[1]))&listMask == 0 && !r.Hole() {
				break
			}
		}
		p, err := EncodeList(refs[:n])
		if err != nil {
			return nil, err
		}
		id, err := emit(p)
		if err != nil {
			return nil, err
		}
		out = append(out, ListRef{ID: id, Size: size})
		refs = refs[n:]
	}
	if len(out) > MaxLists {
		return nil, fmt.Errorf("file of %d chunk lists, at most %d are supported (about 1 TiB): split it", len(out), MaxLists)
	}
	return out, nil
}
