package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

const (
	// PageKind and PageVersion identify a manifest page in its header.
	PageKind    = "page"
	PageVersion = 1
	// ListKind and ListVersion identify a chunk-list page in its header.
	ListKind    = "list"
	ListVersion = 1

	// MaxPage bounds a page of either kind in bytes: a page is a chunk.
	MaxPage = chunk.MaxSize
	// MaxPageEntries bounds the entries of a page: more do not fit.
	MaxPageEntries = MaxPage / minEntry
	// MaxListRefs bounds the references of a chunk-list page.
	MaxListRefs = 4096

	minEntry     = 43         // bytes of the smallest entry in CBOR
	minListEntry = 1 + 34 + 1 // and of the smallest ListRef

	// A page is cut at content-defined places, pageTarget bytes from one
	// another on average, but minPageBytes at least and maxPageBytes at most.
	// Readers take any cut.
	pageTarget   = 80 << 10
	minPageBytes = 16 << 10
	maxPageBytes = 384 << 10

	minListRefs = 256
	listMask    = 1<<10 - 1 // one chunk in 1024 ends a list
)

type page struct {
	_       struct{} `cbor:",toarray"`
	Entries []Entry
}

type list struct {
	_      struct{} `cbor:",toarray"`
	Chunks []chunk.Ref
}

// EncodePage returns the page that holds entries, at least one. It applies
// the checks that DecodePage applies to a release that need not be portable,
// so that it never writes an unreadable page.
func EncodePage(entries []Entry) ([]byte, error) {
	if err := checkPage(entries, false); err != nil {
		return nil, err
	}
	p, err := frame.Encode(PageKind, PageVersion, &page{Entries: entries})
	if err == nil && len(p) > MaxPage {
		return nil, fmt.Errorf("manifest page of %d bytes at %q exceeds %d", len(p), entries[0].Path, MaxPage)
	}
	return p, err
}

// DecodePage reads a page and validates each entry and their order. portable
// is the flag of the release: see CheckPath.
func DecodePage(b []byte, portable bool) ([]Entry, error) {
	body, err := frame.Body(PageKind, PageVersion, MaxPage, b)
	if err != nil {
		return nil, err
	}
	r := frame.NewReader(body)
	r.Struct(1)
	entries := make([]Entry, r.Array(MaxPageEntries, minEntry))
	for i := range entries {
		if err := entries[i].readFrame(r); err != nil {
			return nil, fmt.Errorf("manifest page: %w", err)
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("manifest page: %w", err)
	}
	if err := checkPage(entries, portable); err != nil {
		return nil, err
	}
	return entries, nil
}

func (e *Entry) readFrame(r *frame.Reader) (err error) {
	r.Struct(8)
	e.Path = r.Text(MaxPath)
	e.Kind = Kind(r.Uint(uint64(Dir)))
	e.Size = int64(r.Uint(chunk.MaxHole))
	e.MTime = r.Int()
	e.Mode = uint16(r.Uint(0o777))
	r.Fixed(e.Digest[:])
	if e.Chunks, err = chunk.ReadRefs(r, MaxInline); err != nil {
		return fmt.Errorf("entry %q: %w", e.Path, err)
	}
	if n := r.Array(MaxLists, minListEntry); n > 0 {
		e.Lists = make([]ListRef, n)
	}
	for i := range e.Lists {
		r.Struct(2)
		r.Fixed(e.Lists[i].ID[:])
		e.Lists[i].Size = int64(r.Uint(chunk.MaxHole))
	}
	return r.Err()
}

func checkPage(entries []Entry, portable bool) error {
	if len(entries) == 0 {
		return fmt.Errorf("manifest page: holds no entry: %w", frame.ErrDamaged)
	}
	for i := range entries {
		if err := entries[i].Validate(portable); err != nil {
			return err
		}
		if i > 0 && ComparePaths(entries[i-1].Path, entries[i].Path) >= 0 {
			return fmt.Errorf("manifest page: %q is out of order: %w", entries[i].Path, frame.ErrDamaged)
		}
	}
	return nil
}

// EncodeList returns the chunk-list page that holds refs.
func EncodeList(refs []chunk.Ref) ([]byte, error) {
	if len(refs) == 0 || len(refs) > MaxListRefs {
		return nil, fmt.Errorf("chunk list: %d chunks: %w", len(refs), frame.ErrDamaged)
	}
	if err := chunk.CheckRefs(refs); err != nil {
		return nil, fmt.Errorf("chunk list: %w", err)
	}
	return frame.Encode(ListKind, ListVersion, &list{Chunks: refs})
}

// DecodeList reads a chunk-list page that must cover size bytes of its file.
func DecodeList(b []byte, size int64) ([]chunk.Ref, error) {
	body, err := frame.Body(ListKind, ListVersion, MaxPage, b)
	if err != nil {
		return nil, err
	}
	r := frame.NewReader(body)
	r.Struct(1)
	refs, err := chunk.ReadRefs(r, MaxListRefs)
	if err == nil {
		err = r.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("chunk list: %w", err)
	}
	// At most MaxListRefs sizes of at most MaxHole: the sum cannot overflow.
	var sum int64
	for _, c := range refs {
		sum += c.Size
	}
	if len(refs) == 0 || sum != size {
		return nil, fmt.Errorf("chunk list covers %d bytes, its file says %d: %w", sum, size, frame.ErrDamaged)
	}
	return refs, nil
}

// PageBuilder cuts a stream of entries into pages. A hash of an entry's path,
// weighted by the entry's encoded size, decides whether a page ends after it.
// So a change of one entry changes one page and, except rarely near the size
// bounds, moves no other cut.
type PageBuilder struct {
	// Emit takes each finished page: its bytes, its first path, its entries.
	Emit func(page []byte, first string, entries int) error

	entries []Entry
	bytes   int
}

// estimateSize bounds the encoded length of an entry from above.
func estimateSize(e *Entry) int { return 96 + len(e.Path) + 48*len(e.Chunks) + 48*len(e.Lists) }

// Add takes the next entry in path order.
func (b *PageBuilder) Add(e Entry) error {
	n := estimateSize(&e)
	if len(b.entries) > 0 && b.bytes+n > maxPageBytes {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.entries = append(b.entries, e)
	b.bytes += n
	if b.bytes >= minPageBytes {
		h := sha256.Sum256([]byte(e.Path))
		if int64(binary.BigEndian.Uint32(h[:]))*pageTarget < int64(n)<<32 {
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
	first, n := b.entries[0].Path, len(b.entries)
	b.entries, b.bytes = b.entries[:0], 0
	return b.Emit(p, first, n)
}

// Finish emits the last page.
func (b *PageBuilder) Finish() error { return b.flush() }

// CutLists cuts the chunk references of a large file into chunk-list pages at
// content-defined places. It passes each page to emit, which returns its id.
func CutLists(refs []chunk.Ref, emit func(page []byte) (digest.Digest, error)) ([]ListRef, error) {
	var out []ListRef
	for len(refs) > 0 {
		if len(out) == MaxLists {
			return nil, fmt.Errorf("file of more than %d chunk lists, about 1 TiB: split it", MaxLists)
		}
		n := 0
		var size int64
		for n < len(refs) {
			r := refs[n]
			size += r.Size
			n++
			if n >= MaxListRefs || n >= minListRefs && (int(r.ID[0])<<8|int(r.ID[1]))&listMask == 0 && !r.Hole() {
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
	return out, nil
}
