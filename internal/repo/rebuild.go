package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"nightferry/internal/bucket"
	"nightferry/internal/frame"
	"nightferry/internal/index"
)

// Rebuild replaces the whole index by the batches that fill passes to add. The old root stays until everything is
// stored, whether it is good, damaged or gone; packs that it lists as condemned stay condemned. If a newer program
// wrote the root, Rebuild fails with a *frame.NewerError, because the root may hold facts that this program cannot
// read. No other program may write to the repository meanwhile. A push's packs that are stored during the rebuild
// would be forgotten, and uploaded again by the next push.
func (s *Segments) Rebuild(ctx context.Context, fill func(add func(*Batch) error) error) (*Index, error) {
	r := s.repo
	old, info, err := readObject(ctx, r.objects.store, rootKey, index.MaxRoot)
	if err != nil && !isMissing(err) {
		return nil, err
	}
	var root index.Root
	var newer *frame.NewerError
	if was, decErr := index.DecodeRoot(old); errors.As(decErr, &newer) {
		return nil, fmt.Errorf("%s: %w", rootKey, decErr)
	} else if decErr == nil {
		root = index.Root{Sequence: was.Sequence + 1, Lost: was.Lost + 1, Condemned: was.Condemned}
	} else {
		// The lost root's count is unknown; the time is certainly higher.
		n := uint64(r.StoreTime().Unix())
		root = index.Root{Sequence: n, Lost: n}
	}
	done := merges{segs: s}
	err = fill(func(b *Batch) error {
		ref, err := s.storeBatch(ctx, b)
		if err != nil {
			return err
		}
		root.Segments = slices.Insert(root.Segments, 0, ref)
		return done.shrinkRoot(ctx, &root, r.StoreTime())
	})
	if err != nil {
		return nil, err
	}
	b, err := index.EncodeRoot(&root)
	if err != nil {
		return nil, err
	}
	if info, err = putObject(ctx, r.objects.store, rootKey, b, replaceCond(info.ETag)); err != nil {
		return nil, fmt.Errorf("replace the index root: %w: end what else writes to the repository and rebuild again", err)
	}
	return r.newIndex(&root, info), nil
}

// storeBatch makes a segment of a batch and keeps a local copy of it.
func (s *Segments) storeBatch(ctx context.Context, b *Batch) (index.SegmentRef, error) {
	slices.SortFunc(b.records, func(x, y index.Record) int { return x.ID.Compare(y.ID) })
	records := slices.CompactFunc(b.records, func(x, y index.Record) bool { return x.ID == y.ID })
	obj, ref, err := index.Build(s.repo.identity.keys, b.packs, records)
	if err != nil {
		return ref, err
	}
	if _, err := s.repo.objects.store.Put(ctx, SegmentKey(ref.Digest), bucket.Body{R: bytes.NewReader(obj), Size: int64(len(obj)), SHA256: ref.Digest}, bucket.Cond{}); err != nil {
		return ref, err
	}
	_, _, err = s.writeCopy(ref, func(w io.Writer) (index.SegmentRef, error) {
		if s.repo.identity.keys == nil {
			_, err := w.Write(obj)
			return ref, err
		}
		plain, own, err := index.Build(nil, b.packs, records)
		if err == nil {
			_, err = w.Write(plain)
		}
		return own, err
	})
	return ref, err
}

// mergeName returns a random name for an unfinished merged segment, because
// another process may use the folder.
func mergeName() string { return "merge-" + rand.Text() + tempSuffix }
