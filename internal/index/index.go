// Package index is the format of the index: segments, which map chunk ids to
// locations in packs, and the root, which lists the live segments. See
// docs/format/segment.md and docs/format/index-root.md.
//
// A segment is a sorted table cut into pages of PageRecords records. Its
// footer holds each page's first id and SHA-256. So a reader that needs a few
// chunks of a large repository fetches only a few pages, and can verify them.
package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

const (
	// Kind and Version identify a segment in its header.
	Kind    = "segm"
	Version = 1

	// RecordSize is the length of one record in bytes.
	RecordSize = digest.Size + 5*4
	// PageRecords is the number of records of every page but the last.
	PageRecords = 2048
	// PageSize is the length in bytes of a full page before sealing.
	PageSize = PageRecords * RecordSize
	// MaxRecords bounds the records of one segment.
	MaxRecords = 1 << 28
	// MaxPacks bounds the packs of one segment.
	MaxPacks = 1 << 20
	// MaxFooter bounds a segment's footer as stored, in bytes.
	MaxFooter = 128 << 20
)

// Pack names a pack in a segment's table.
type Pack struct {
	_      struct{}      `cbor:",toarray"`
	Digest digest.Digest `json:"digest"`
	Salt   []byte        `json:"salt,omitempty"` // of a sealed pack, else empty
	Size   uint32        `json:"size"`           // of the whole object, bytes
}

// Record maps one chunk to its location.
type Record struct {
	ID   digest.Digest
	Pack uint32 // ordinal in the segment's table of packs
	At   pack.Location
}

func (r *Record) appendTo(b []byte) []byte {
	b = append(b, r.ID[:]...)
	for _, v := range [...]uint32{r.Pack, r.At.Block, r.At.Stored, r.At.Offset, r.At.Size} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func parseRecord(b []byte) (r Record) {
	copy(r.ID[:], b)
	b = b[digest.Size:]
	u := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	r.Pack = u(0)
	r.At = pack.Location{Block: u(1), Stored: u(2), Offset: u(3), Size: u(4)}
	return r
}

// validateRecord checks a record's numbers against the limits of a pack.
func (r *Record) validateRecord(packs int) error {
	if !fitsPack(packs, uint64(r.Pack), uint64(r.At.Block), uint64(r.At.Stored), uint64(r.At.Offset), uint64(r.At.Size)) {
		return fmt.Errorf("segment: record %s points outside of a pack: %w", r.ID.Short(), frame.ErrDamaged)
	}
	return nil
}

// fitsPack takes its numbers as uint64, so that no sum of two overflows.
func fitsPack(packs int, ordinal, block, stored, offset, size uint64) bool {
	return ordinal < uint64(packs) && block >= pack.PreludeSize && stored >= 1 && stored <= pack.MaxStored &&
		block+stored <= pack.MaxSize && size >= 1 && offset+size <= pack.MaxBlock
}

// Page describes one page in a footer.
type Page struct {
	_      struct{}      `cbor:",toarray"`
	First  digest.Digest `json:"first"`  // the id of its first record
	Digest digest.Digest `json:"digest"` // SHA-256 of the page as stored
}

// Footer describes the content of a segment.
type Footer struct {
	_       struct{} `cbor:",toarray"`
	Records uint64   `json:"records"`
	Pages   []Page   `json:"pages"`
	Packs   []Pack   `json:"packs"`
}

// Validate checks the footer for internal consistency.
func (f *Footer) Validate() error {
	if f.Records > MaxRecords || uint64(len(f.Pages)) != (f.Records+PageRecords-1)/PageRecords {
		return fmt.Errorf("segment footer: %d records in %d pages: %w", f.Records, len(f.Pages), frame.ErrDamaged)
	}
	for i := 1; i < len(f.Pages); i++ {
		if f.Pages[i-1].First.Compare(f.Pages[i].First) >= 0 {
			return fmt.Errorf("segment footer: pages out of order: %w", frame.ErrDamaged)
		}
	}
	if len(f.Packs) > MaxPacks {
		return fmt.Errorf("segment footer: %d packs, at most %d are allowed: %w", len(f.Packs), MaxPacks, frame.ErrDamaged)
	}
	for _, p := range f.Packs {
		if (len(p.Salt) != 0 && len(p.Salt) != seal.SaltSize) || p.Size < pack.PreludeSize+pack.TrailerSize || p.Size > pack.MaxSize {
			return fmt.Errorf("segment footer: pack %s: %w", p.Digest.Short(), frame.ErrDamaged)
		}
	}
	return nil
}

// PageRange returns the offset and length of page i in the segment. overhead
// is the number of bytes that sealing adds to a page.
func (f *Footer) PageRange(i, overhead int) (offset, length int64) {
	n := PageRecords
	if i == len(f.Pages)-1 {
		n = int(f.Records - uint64(i)*PageRecords)
	}
	return pack.PreludeSize + int64(i)*int64(PageSize+overhead), int64(n*RecordSize + overhead)
}

// Find returns the ordinal of the page that would hold id, or -1.
func (f *Footer) Find(id digest.Digest) int {
	i, found := slices.BinarySearchFunc(f.Pages, id, func(p Page, id digest.Digest) int { return p.First.Compare(id) })
	if !found {
		i--
	}
	return i
}

// OpenPage verifies page i against the footer, opens it and checks that every
// record in it points into a pack.
func (f *Footer) OpenPage(obj *seal.Object, i int, stored []byte) (Records, error) {
	off, n := f.PageRange(i, obj.Overhead())
	if int64(len(stored)) != n || digest.Of(stored) != f.Pages[i].Digest {
		return nil, fmt.Errorf("segment page %d does not match its footer: %w", i, frame.ErrDamaged)
	}
	b := stored
	if obj != nil {
		var err error
		if b, err = obj.Open(nil, stored, uint64(off)); err != nil {
			return nil, fmt.Errorf("segment page %d: %w", i, err)
		}
	}
	r := Records(b)
	if err := f.checkPage(i, r); err != nil {
		return nil, fmt.Errorf("segment page %d: %w", i, err)
	}
	return r, nil
}

// checkPage validates page i against the footer: Find relies on the first ids.
func (f *Footer) checkPage(i int, r Records) error {
	if err := r.Check(len(f.Packs)); err != nil {
		return err
	}
	if !bytes.Equal(r.ID(0), f.Pages[i].First[:]) ||
		i+1 < len(f.Pages) && bytes.Compare(r.ID(r.Len()-1), f.Pages[i+1].First[:]) >= 0 {
		return fmt.Errorf("its ids are not those that the footer says: %w", frame.ErrDamaged)
	}
	for b := []byte(r); len(b) >= RecordSize; b = b[RecordSize:] {
		u := func(i int) uint64 { return uint64(binary.BigEndian.Uint32(b[digest.Size+4*i:])) }
		if u(1)+u(2) > uint64(f.Packs[u(0)].Size) {
			return fmt.Errorf("record %x points past the end of its pack: %w", b[:6], frame.ErrDamaged)
		}
	}
	return nil
}

// Records is one opened page: sorted records of RecordSize bytes each.
type Records []byte

// Len returns the number of records.
func (r Records) Len() int { return len(r) / RecordSize }

// At returns record i.
func (r Records) At(i int) Record { return parseRecord(r[i*RecordSize:]) }

// ID returns the id of record i, aliasing the page.
func (r Records) ID(i int) []byte { return r[i*RecordSize : i*RecordSize+digest.Size] }

// Find returns the first record with the given id.
func (r Records) Find(id digest.Digest) (Record, bool) {
	lo, hi := 0, r.Len()
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(r.ID(mid), id[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < r.Len() && bytes.Equal(r.ID(lo), id[:]) {
		return r.At(lo), true
	}
	return Record{}, false
}

// Check validates every record of the page and their order.
func (r Records) Check(packs int) error {
	var last []byte
	for b := []byte(r); len(b) >= RecordSize; b = b[RecordSize:] {
		u := func(i int) uint64 { return uint64(binary.BigEndian.Uint32(b[digest.Size+4*i:])) }
		if !fitsPack(packs, u(0), u(1), u(2), u(3), u(4)) {
			return fmt.Errorf("segment: record %x points outside of a pack: %w", b[:6], frame.ErrDamaged)
		}
		if last != nil && bytes.Compare(last, b[:digest.Size]) >= 0 {
			return fmt.Errorf("segment: records out of order: %w", frame.ErrDamaged)
		}
		last = b[:digest.Size]
	}
	return nil
}

// ParseFooter opens a footer as stored at offset.
func ParseFooter(obj *seal.Object, stored []byte, offset int64) (*Footer, error) {
	if len(stored) > MaxFooter {
		return nil, fmt.Errorf("segment footer: %d bytes, at most %d are allowed: %w", len(stored), MaxFooter, frame.ErrDamaged)
	}
	body := stored
	if obj != nil {
		var err error
		if body, err = obj.Open(nil, stored, uint64(offset)); err != nil {
			return nil, fmt.Errorf("segment footer: %w", err)
		}
	}
	f, err := parseFooter(body)
	if err != nil {
		return nil, fmt.Errorf("segment footer: %w", err)
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return f, nil
}

func parseFooter(body []byte) (*Footer, error) {
	const (
		id      = 2 + digest.Size // a byte string of its length
		minPage = 1 + id + id
		minPack = 1 + id + 1 + 1
	)
	r := frame.NewReader(body)
	r.Struct(3)
	f := Footer{Records: r.Uint(MaxRecords)}
	f.Pages = make([]Page, r.Array(MaxRecords/PageRecords, minPage))
	for i := range f.Pages {
		r.Struct(2)
		r.Fixed(f.Pages[i].First[:])
		r.Fixed(f.Pages[i].Digest[:])
	}
	f.Packs = make([]Pack, r.Array(MaxPacks, minPack))
	for i := range f.Packs {
		r.Struct(3)
		r.Fixed(f.Packs[i].Digest[:])
		f.Packs[i].Salt = r.Bytes(seal.SaltSize)
		f.Packs[i].Size = uint32(r.Uint(pack.MaxSize))
	}
	return &f, r.Close()
}
