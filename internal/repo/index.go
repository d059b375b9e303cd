package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

const (
	// wholeSegment is the size in bytes up to which a segment is fetched whole:
	// one request instead of two or more.
	wholeSegment = 8 << 20
	// maxGap is the number of unneeded bytes that are read through rather than
	// starting another request.
	maxGap = 1 << 20
	// keptSegments bounds the small segments, in bytes, that an Index keeps
	// from one Locate to the next: a pull locates pages, then lists, then
	// content, nearly always in the newest segments.
	keptSegments = 2 * wholeSegment
)

// Index looks up chunks. All its methods but Locate are safe for concurrent
// use.
type Index struct {
	repo      *Repo
	root      *index.Root
	etag      string
	date      clock.Store
	condemned map[digest.Digest]bool

	packs  []index.Pack
	byPack map[digest.Digest]uint32

	kept      map[digest.Digest]*segment
	keptBytes int64
}

// Place is where a chunk is stored.
type Place struct {
	ID   digest.Digest
	Pack uint32 // ordinal in Index.Packs
	At   pack.Location
}

// MissingError means that chunks are in no live pack of the index, or that
// their packs are gone from the store.
type MissingError struct {
	Chunks []digest.Digest
	Pack   string // key of the pack that is gone; "" where the index has none
}

func (e *MissingError) Error() string {
	where := "the index names no pack for them"
	if e.Pack != "" {
		where = e.Pack + " is gone from the store"
	}
	return fmt.Sprintf("%d chunks are missing (%s): run nightferry fsck STORE, then fsck --forget-missing STORE and push again to heal", len(e.Chunks), where)
}

// Index reads the index root; segments are read when Locate needs them.
func (r *Repo) Index(ctx context.Context) (*Index, error) {
	var x *Index
	err := r.objects.readGood(ctx, rootKey, index.MaxRoot, func(b []byte, info bucket.Info) error {
		root, err := index.DecodeRoot(b)
		if err != nil {
			return fmt.Errorf("%s: %w", rootKey, err)
		}
		x = r.newIndex(root, info)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the index root is gone: rebuild it with nightferry fsck --rebuild-index STORE: %w", err)
	}
	return x, err
}

func (r *Repo) newIndex(root *index.Root, info bucket.Info) *Index {
	return &Index{repo: r, root: root, etag: info.ETag, date: clock.StoreAt(info.Date), condemned: condemnedSet(root), byPack: map[digest.Digest]uint32{}, kept: map[digest.Digest]*segment{}}
}

// rereadRoot reads the root again; the packs that Places refer to stay. It returns
// missed if the root has not changed.
func (x *Index) rereadRoot(ctx context.Context, missed error) error {
	fresh, err := x.repo.Index(ctx)
	if err != nil {
		return err
	}
	if fresh.root.Sequence == x.root.Sequence {
		return missed
	}
	x.root, x.etag, x.date, x.condemned = fresh.root, fresh.etag, fresh.date, fresh.condemned
	return nil
}

// Root returns the index root that was read.
func (x *Index) Root() *index.Root { return x.root }

// Date returns the store's clock when the root was read.
func (x *Index) Date() clock.Store { return x.date }

// Packs returns the packs that Place.Pack indexes.
func (x *Index) Packs() []index.Pack { return x.packs }

func (x *Index) packOrdinal(p index.Pack) uint32 {
	n, ok := x.byPack[p.Digest]
	if !ok {
		n = uint32(len(x.packs))
		x.packs = append(x.packs, p)
		x.byPack[p.Digest] = n
	}
	return n
}

// Locate finds chunks. It reads segments from the newest on until each chunk is
// found, and of a segment only the pages that may hold one. found is sorted by
// id; missing are ids that no segment has. Memory is proportional to ids, not
// to the index. If a segment is gone because others were merged since the root
// was read, Locate reads the root again.
func (x *Index) Locate(ctx context.Context, ids []digest.Digest) (found []Place, missing []digest.Digest, err error) {
	for {
		found, missing, err = x.locateChunks(ctx, ids)
		if !errors.Is(err, fs.ErrNotExist) {
			return found, missing, err
		}
		if err := x.rereadRoot(ctx, err); err != nil {
			return nil, nil, err
		}
	}
}

func (x *Index) locateChunks(ctx context.Context, ids []digest.Digest) (found []Place, missing []digest.Digest, err error) {
	left := slices.Clone(ids)
	slices.SortFunc(left, digest.Digest.Compare)
	left = slices.Compact(left)
	found = make([]Place, 0, len(left))
	doomed := map[digest.Digest]Place{} // found only in condemned packs so far: still readable
	for _, seg := range x.root.Segments {
		if len(left) == 0 {
			break
		}
		s, err := x.loadSegment(ctx, seg)
		if err != nil {
			return nil, nil, err
		}
		next := left[:0] // in place: the reader is always ahead of the writer
		err = s.lookup(ctx, left, func(id digest.Digest, rec *index.Record) error {
			if rec == nil {
				next = append(next, id)
				return nil
			}
			if int64(rec.Pack) >= int64(len(s.footer.Packs)) {
				return fmt.Errorf("segment: record %s names no pack: %w", id.Short(), frame.ErrDamaged)
			}
			p := s.footer.Packs[rec.Pack]
			place := Place{ID: id, Pack: x.packOrdinal(p), At: rec.At}
			if x.condemned[p.Digest] {
				if _, ok := doomed[id]; !ok {
					doomed[id] = place
				}
				next = append(next, id)
				return nil
			}
			found = append(found, place)
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", SegmentKey(seg.Digest), err)
		}
		left = next
	}
	for _, id := range left {
		if p, ok := doomed[id]; ok {
			found = append(found, p)
		} else {
			missing = append(missing, id)
		}
	}
	slices.SortFunc(found, func(a, b Place) int { return a.ID.Compare(b.ID) })
	return found, missing, nil
}

// loadSegment opens a segment, or returns the one that an earlier Locate opened.
func (x *Index) loadSegment(ctx context.Context, ref index.SegmentRef) (*segment, error) {
	if s := x.kept[ref.Digest]; s != nil {
		return s, nil
	}
	s, err := openSegment(ctx, x.repo.objects, x.repo.identity.keys, ref)
	if err == nil && s.whole != nil && x.keptBytes+ref.Size <= keptSegments {
		x.kept[ref.Digest] = s
		x.keptBytes += ref.Size
	}
	return s, err
}

// segment reads parts of one segment from the store.
type segment struct {
	from   *objects
	ref    index.SegmentRef
	obj    *seal.Object
	footer *index.Footer
	whole  []byte // of a small one
}

// openSegment reads the footer of a segment, or all of a small one.
func openSegment(ctx context.Context, from *objects, keys *seal.Keys, ref index.SegmentRef) (*segment, error) {
	key := SegmentKey(ref.Digest)
	obj, err := keys.Object(index.Kind, ref.Salt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	s := &segment{from: from, ref: ref, obj: obj}
	var tail []byte
	if ref.Size <= wholeSegment {
		err = from.readGood(ctx, key, ref.Size, func(b []byte, _ bucket.Info) error {
			// The root is not signed: a matching digest proves nothing about
			// the size.
			if int64(len(b)) != ref.Size || digest.Of(b) != ref.Digest {
				return fmt.Errorf("%s does not match what the index root says of it: %w", key, frame.ErrDamaged)
			}
			s.whole = b
			return nil
		})
		if err == nil {
			tail = s.whole[ref.Footer:]
		}
	} else {
		err = from.readRangeGood(ctx, key, ref.Footer, ref.Size-ref.Footer, func(b []byte) error {
			if digest.Of(b) != ref.FooterDigest {
				return fmt.Errorf("%s: its footer does not match the index root: %w", key, frame.ErrDamaged)
			}
			tail = b
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	s.footer, err = index.ParseFooter(obj, tail, ref.Footer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if n := len(s.footer.Pages); s.footer.Records != ref.Records || n > 0 && pageEnd(s) != ref.Footer {
		return nil, fmt.Errorf("%s: its footer contradicts the index root: %w", key, frame.ErrDamaged)
	}
	return s, nil
}

func pageEnd(s *segment) int64 {
	off, n := s.footer.PageRange(len(s.footer.Pages)-1, s.obj.Overhead())
	return off + n
}

// lookup calls fn for each of the sorted ids, in order, with its record or nil.
func (s *segment) lookup(ctx context.Context, ids []digest.Digest, fn func(digest.Digest, *index.Record) error) error {
	pages := s.wantedPages(ids)
	i := 0
	err := s.readPages(ctx, pages, func(page int, recs index.Records) error {
		// Ids before this page are in no page.
		for ; i < len(ids); i++ {
			at := s.footer.Find(ids[i])
			if at > page {
				return nil
			}
			var hit *index.Record
			if at == page {
				if rec, ok := recs.Find(ids[i]); ok {
					hit = &rec
				}
			}
			if err := fn(ids[i], hit); err != nil {
				return err
			}
		}
		return nil
	})
	for ; err == nil && i < len(ids); i++ {
		err = fn(ids[i], nil)
	}
	return err
}

func (s *segment) wantedPages(ids []digest.Digest) (pages []int) {
	for _, id := range ids {
		if p := s.footer.Find(id); p >= 0 && (len(pages) == 0 || pages[len(pages)-1] != p) {
			pages = append(pages, p)
		}
	}
	return pages
}

// readPages calls fn for each of the ascending pages, opened and proven, reading
// through gaps of up to maxGap.
func (s *segment) readPages(ctx context.Context, pages []int, fn func(int, index.Records) error) error {
	over := s.obj.Overhead()
	for len(pages) > 0 {
		start, n := s.footer.PageRange(pages[0], over)
		end, run := start+n, 1
		for ; run < len(pages); run++ {
			off, n := s.footer.PageRange(pages[run], over)
			if off-end > maxGap {
				break
			}
			end = off + n
		}
		if err := s.readRun(ctx, pages[:run], start, end, fn); err != nil {
			return err
		}
		pages = pages[run:]
	}
	return nil
}

func (s *segment) readRun(ctx context.Context, pages []int, start, end int64, fn func(int, index.Records) error) error {
	over := s.obj.Overhead()
	var body io.ReadCloser
	if s.whole == nil {
		var err error
		if body, _, err = s.from.store.Get(ctx, SegmentKey(s.ref.Digest), start, end-start); err != nil {
			return err
		}
		defer body.Close()
	}
	buf := make([]byte, index.PageSize+over)
	for at := start; len(pages) > 0; pages = pages[1:] {
		off, n := s.footer.PageRange(pages[0], over)
		stored := buf[:n]
		if body == nil {
			stored = s.whole[off : off+n]
		} else {
			if _, err := io.CopyN(io.Discard, body, off-at); err != nil {
				return err
			}
			if _, err := io.ReadFull(body, stored); err != nil {
				return err
			}
		}
		at = off + n
		recs, err := s.footer.OpenPage(s.obj, pages[0], stored)
		if err != nil && body != nil {
			s.from.notifyRetry(&ArrivalError{Key: SegmentKey(s.ref.Digest), Err: err})
			err = s.from.readRangeGood(ctx, SegmentKey(s.ref.Digest), off, n, func(b []byte) (err error) {
				recs, err = s.footer.OpenPage(s.obj, pages[0], b)
				return err
			})
		}
		if err != nil {
			return err
		}
		if err := fn(pages[0], recs); err != nil {
			return err
		}
	}
	return nil
}

// eachRecord calls fn for every record of the segment, in order.
func (s *segment) eachRecord(ctx context.Context, fn func(index.Record) error) error {
	pages := make([]int, len(s.footer.Pages))
	for i := range pages {
		pages[i] = i
	}
	return s.readPages(ctx, pages, func(_ int, recs index.Records) error {
		if err := recs.Check(len(s.footer.Packs)); err != nil {
			return err
		}
		for i := range recs.Len() {
			if err := fn(recs.At(i)); err != nil {
				return err
			}
		}
		return nil
	})
}
