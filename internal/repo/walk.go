package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/index"
)

// Condemned reports whether the root lists a pack as condemned: readers may
// still use it, publishers may not.
func (x *Index) Condemned(pack digest.Digest) bool { return x.condemned[pack] }

// Walk calls fn for every chunk of the index, in ascending order of ids, with
// all its places: those of the newest segment first, as in Locate. The places
// are valid until fn returns. Afterwards Packs lists every pack that the index
// names, also those without a chunk. Memory does not grow with the number of
// chunks.
func (s *Segments) Walk(ctx context.Context, x *Index, fn func([]Place) error) (err error) {
	segs, err := s.openAll(ctx, x)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(segs)) }()
	cursors := make([]cursor, len(segs))
	packs := make([][]uint32, len(segs))
	for i, l := range segs {
		cursors[i] = newCursor(l)
		packs[i] = make([]uint32, len(l.footer.Packs))
		for j, p := range l.footer.Packs {
			packs[i][j] = x.packOrdinal(p)
		}
	}
	places := make([]Place, 0, len(segs))
	for n := 0; ; n++ {
		if n&0xffff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		least, err := leastOf(cursors)
		if least == nil || err != nil {
			return err
		}
		id := least.ID
		places = places[:0]
		for i := range cursors {
			if rec := &cursors[i].rec; cursors[i].ok && rec.ID == id {
				places = append(places, Place{ID: id, Pack: packs[i][rec.Pack], At: rec.At})
				cursors[i].next()
			}
		}
		if err := fn(places); err != nil {
			return err
		}
	}
}

// leastOf returns the record with the least id among the cursors' current ones,
// nil if all are at their end.
func leastOf(cursors []cursor) (least *index.Record, err error) {
	for i := range cursors {
		rec, err := cursors[i].peek()
		if err != nil {
			return nil, err
		}
		if rec != nil && (least == nil || bytes.Compare(rec.ID[:], least.ID[:]) < 0) {
			least = rec
		}
	}
	return least, nil
}

// CheckSegment reads every byte of a segment from the store. It proves the
// segment against the root's reference and for consistency.
func (x *Index) CheckSegment(ctx context.Context, ref index.SegmentRef) error {
	key := SegmentKey(ref.Digest)
	body, info, err := x.repo.objects.store.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := checkDigest(body, info.Size, ref.Size, ref.Digest); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	seg, err := openSegment(ctx, x.repo.objects, x.repo.identity.keys, ref)
	if err != nil {
		return err
	}
	return seg.eachRecord(ctx, func(index.Record) error { return nil })
}
