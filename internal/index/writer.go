package index

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

// Writer streams a segment: records in ascending order of their ids, then the
// footer. It holds one page and the footer in memory, for any number of
// records.
type Writer struct {
	w      io.Writer
	sum    hash.Hash
	obj    *seal.Object
	salt   []byte
	at     int64
	page   []byte
	last   digest.Digest
	footer Footer
}

// NewWriter starts a segment on w. The Pack ordinals of the records index
// packs, which has at most MaxPacks elements.
func NewWriter(w io.Writer, keys *seal.Keys, packs []Pack) (*Writer, error) {
	if err := (&Footer{Packs: packs}).Validate(); err != nil {
		return nil, fmt.Errorf("write segment: %w", err)
	}
	salt := keys.NewSalt()
	obj, err := keys.Object(Kind, salt)
	if err != nil {
		return nil, err
	}
	s := &Writer{w: w, sum: sha256.New(), obj: obj, salt: salt, page: make([]byte, 0, PageSize), footer: Footer{Packs: packs}}
	return s, s.writeBytes(pack.Prelude(Kind, Version, keys.Cipher(), salt))
}

func (s *Writer) writeBytes(b []byte) error {
	s.sum.Write(b)
	s.at += int64(len(b))
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	return nil
}

// Add appends one record, whose id must be greater than the previous one.
func (s *Writer) Add(r Record) error {
	if s.footer.Records > 0 && s.last.Compare(r.ID) >= 0 {
		return fmt.Errorf("segment: record %s is out of order", r.ID.Short())
	}
	if err := r.validateRecord(len(s.footer.Packs)); err != nil {
		return err
	}
	if s.footer.Records == MaxRecords {
		return fmt.Errorf("segment: more than %d records", MaxRecords)
	}
	if len(s.page) == 0 {
		s.footer.Pages = append(s.footer.Pages, Page{First: r.ID})
	}
	s.page = r.appendTo(s.page)
	s.last = r.ID
	s.footer.Records++
	if len(s.page) == PageSize {
		return s.flush()
	}
	return nil
}

func (s *Writer) flush() error {
	if len(s.page) == 0 {
		return nil
	}
	stored := s.page
	if s.obj != nil {
		stored = s.obj.Seal(nil, s.page, uint64(s.at))
	}
	s.footer.Pages[len(s.footer.Pages)-1].Digest = digest.Of(stored)
	s.page = s.page[:0]
	return s.writeBytes(stored)
}

// Finish writes the footer and returns the reference for the root.
func (s *Writer) Finish() (SegmentRef, error) {
	if err := s.flush(); err != nil {
		return SegmentRef{}, err
	}
	body, err := frame.Marshal(&s.footer)
	if err != nil {
		return SegmentRef{}, fmt.Errorf("encode segment footer: %w", err)
	}
	stored := body
	if s.obj != nil {
		stored = s.obj.Seal(nil, body, uint64(s.at))
	}
	if _, err := ParseFooter(s.obj, stored, s.at); err != nil {
		return SegmentRef{}, fmt.Errorf("segment does not read back: %w", err)
	}
	at := s.at
	if err := s.writeBytes(stored); err != nil {
		return SegmentRef{}, err
	}
	return SegmentRef{Digest: digest.Digest(s.sum.Sum(nil)), Size: s.at, Records: s.footer.Records,
		Footer: at, FooterDigest: digest.Of(stored), Salt: s.salt}, nil
}

// Build writes a small segment of sorted records into memory.
func Build(keys *seal.Keys, packs []Pack, records []Record) ([]byte, SegmentRef, error) {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, keys, packs)
	if err != nil {
		return nil, SegmentRef{}, err
	}
	for _, r := range records {
		if err := w.Add(r); err != nil {
			return nil, SegmentRef{}, err
		}
	}
	ref, err := w.Finish()
	return buf.Bytes(), ref, err
}
