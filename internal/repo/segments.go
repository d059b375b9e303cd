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
	"nightferry/internal/index"
)

// casTries bounds how often a writer tries to replace the index root against
// other writers. Each failure means that another writer succeeded.
const casTries = 64

// ErrContended means that a writer gave up because other writers kept replacing
// the index root first.
var ErrContended = errors.New("other writers were faster")

// ReplaceRoot replaces the index root with the root as changed by change, and
// returns the new index. It tries again if another writer was faster. now is
// the store's clock when the root was read. change may be called more than
// once. If change returns nil without changing the root, it is still written.
func (r *Repo) ReplaceRoot(ctx context.Context, change func(root *index.Root, now clock.Store) error) (*Index, error) {
	gone := uint64(0) // sequence of the root that named a missing segment
	for range casTries {
		x, err := r.Index(ctx)
		if err != nil {
			return nil, err
		}
		root := *x.root
		root.Segments = slices.Clone(root.Segments)
		root.Condemned = slices.Clone(root.Condemned)
		if err := change(&root, x.date); err != nil {
			// Another writer merged a segment, and gc deleted it, so that
			// change does not find it: the next root does not name it.
			if errors.Is(err, fs.ErrNotExist) && x.root.Sequence != gone {
				gone = x.root.Sequence
				continue
			}
			return nil, err
		}
		root.Sequence++
		b, err := index.EncodeRoot(&root)
		if err != nil {
			return nil, err
		}
		info, err := putObject(ctx, r.objects.store, rootKey, b, replaceCond(x.etag))
		if err == nil {
			return r.newIndex(&root, info), nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("replace the index root: %w", err)
		}
	}
	return nil, fmt.Errorf("replace the index root: %w %d times in a row: nothing is lost, run it again later", ErrContended, casTries)
}

// AddSegment indexes the chunks of a batch: it stores a segment, then lists it
// in the index root, and merges segments if there are too many.
func (s *Segments) AddSegment(ctx context.Context, b *Batch) error {
	if len(b.records) == 0 {
		return nil
	}
	ref, err := s.storeBatch(ctx, b)
	if err != nil {
		return err
	}
	oldest := s.repo.unnamed.oldest(b.packs)
	done := merges{segs: s}
	_, err = s.repo.ReplaceRoot(ctx, func(root *index.Root, now clock.Store) error {
		// If a segment named a pack that gc has deleted meanwhile, every later
		// push would believe that its chunks are stored.
		if err := s.repo.inTime(oldest, now); err != nil {
			return err
		}
		if slices.ContainsFunc(root.Segments, func(r index.SegmentRef) bool { return r.Digest == ref.Digest }) {
			return nil
		}
		root.Segments = slices.Insert(root.Segments, 0, ref)
		return done.shrinkRoot(ctx, root, now)
	})
	if err == nil {
		s.repo.unnamed.remove(b.packs)
	}
	return err
}

// shrinkRoot merges neighbours, the pair with the fewest records first, until the
// root lists no more segments than allowed. It merges only neighbours, because
// newer segments must stay before older ones.
func (m *merges) shrinkRoot(ctx context.Context, root *index.Root, now clock.Store) error {
	for len(root.Segments) > index.MaxSegments {
		best := 0
		sum := func(i int) uint64 { return root.Segments[i].Records + root.Segments[i+1].Records }
		for i := range len(root.Segments) - 1 {
			if sum(i) < sum(best) {
				best = i
			}
		}
		merged, err := m.mergeCached(ctx, root.Segments[best:best+2], root.Condemned, nil, now)
		if err != nil {
			return fmt.Errorf("merge index segments: %w", err)
		}
		root.Segments = slices.Replace(root.Segments, best, best+2, merged)
	}
	return nil
}

func condemnedSet(root *index.Root) map[digest.Digest]bool {
	m := make(map[digest.Digest]bool, len(root.Condemned))
	for _, c := range root.Condemned {
		m[c.Pack] = true
	}
	return m
}

// Forget rewrites the index without the given packs. It replaces every segment
// that names one, and removes the packs from the condemned list. The packs'
// objects stay; the caller deletes them afterwards. If check is not nil, it is
// called with each root before the root is replaced, and may change it.
func (s *Segments) Forget(ctx context.Context, drop map[digest.Digest]bool, check func(*index.Root) error) (*Index, error) {
	done := merges{segs: s}
	return s.repo.ReplaceRoot(ctx, func(root *index.Root, now clock.Store) error {
		if check != nil {
			if err := check(root); err != nil {
				return err
			}
		}
		var out []index.SegmentRef
		for _, ref := range root.Segments {
			l, err := s.openLocal(ctx, ref)
			if err != nil {
				return err
			}
			hit := slices.ContainsFunc(l.footer.Packs, func(p index.Pack) bool { return drop[p.Digest] })
			if err := l.close(); err != nil {
				return err
			}
			if hit {
				if ref, err = done.mergeCached(ctx, []index.SegmentRef{ref}, root.Condemned, drop, now); err != nil {
					return err
				}
			}
			if ref.Records > 0 {
				out = append(out, ref)
			}
		}
		root.Segments = out
		root.Condemned = slices.DeleteFunc(root.Condemned, func(c index.Condemned) bool { return drop[c.Pack] })
		return nil
	})
}

// merges caches merge results while a writer tries to replace the root. Without
// it, the next try, on top of a faster writer's root, would redo most of the
// work, and lose again meanwhile.
type merges struct {
	segs      *Segments
	condemned []index.Condemned // the condemned packs for which the results hold
	results   map[string]merged // by the digests of the inputs
}

type merged struct {
	ref index.SegmentRef
	at  clock.Store // when the try that stored it began
}

func (m *merges) mergeCached(ctx context.Context, refs []index.SegmentRef, condemned []index.Condemned, drop map[digest.Digest]bool, now clock.Store) (index.SegmentRef, error) {
	if m.results == nil || !slices.Equal(m.condemned, condemned) {
		m.condemned, m.results = slices.Clone(condemned), map[string]merged{}
	}
	var key []byte
	for _, ref := range refs {
		key = append(key, ref.Digest[:]...)
	}
	// gc may have deleted a result that was stored too long ago, because no
	// root names it yet.
	if r, ok := m.results[string(key)]; ok && m.segs.repo.inTime(r.at, now) == nil {
		return r.ref, nil
	}
	ref, err := m.segs.mergeSegments(ctx, refs, condemnedSet(&index.Root{Condemned: condemned}), drop)
	if err == nil {
		m.results[string(key)] = merged{ref, now}
	}
	return ref, err
}

// mergeSegments stores one segment that holds the records of refs, newest first,
// without those in dropped packs. Of two records for one chunk the newest in a
// pack that is not condemned is kept.
func (s *Segments) mergeSegments(ctx context.Context, refs []index.SegmentRef, condemned, drop map[digest.Digest]bool) (ref index.SegmentRef, err error) {
	m := merger{condemned: condemned, drop: drop, byPack: map[digest.Digest]uint32{}}
	defer func() { err = errors.Join(err, m.close()) }()
	for _, ref := range refs {
		l, err := s.openLocal(ctx, ref)
		if err != nil {
			return ref, err
		}
		m.addSegment(l)
	}
	object := mergeName()
	err = s.dir.WriteStream(object, 0o600, func(w io.Writer) error {
		ref, err = m.writeMerged(w, s.repo, true)
		return err
	})
	if err != nil {
		return ref, err
	}
	if _, _, err = s.writeCopy(ref, func(w io.Writer) (index.SegmentRef, error) { return m.writeMerged(w, s.repo, false) }); err != nil {
		return ref, err
	}
	f, err := s.dir.Open(object)
	if err != nil {
		return ref, err
	}
	_, err = s.repo.objects.store.Put(ctx, SegmentKey(ref.Digest), bucket.Body{R: f, Size: ref.Size, SHA256: ref.Digest}, bucket.Cond{})
	return ref, errors.Join(err, f.Close(), s.dir.Remove(object))
}

type merger struct {
	condemned, drop map[digest.Digest]bool
	in              []*local
	packs           []index.Pack
	byPack          map[digest.Digest]uint32
}

func (m *merger) addSegment(l *local) {
	m.in = append(m.in, l)
	for _, p := range l.footer.Packs {
		if _, ok := m.byPack[p.Digest]; !ok && !m.drop[p.Digest] {
			m.byPack[p.Digest] = uint32(len(m.packs))
			m.packs = append(m.packs, p)
		}
	}
}

func (m *merger) close() (err error) {
	for _, l := range m.in {
		err = errors.Join(err, l.close())
	}
	return err
}

// writeMerged merges by id. sealed writes as the repository does, else plain.
func (m *merger) writeMerged(w io.Writer, r *Repo, sealed bool) (index.SegmentRef, error) {
	keys := r.identity.keys
	if !sealed {
		keys = nil
	}
	out, err := index.NewWriter(w, keys, m.packs)
	if err != nil {
		return index.SegmentRef{}, err
	}
	cursors := make([]cursor, len(m.in))
	for i, l := range m.in {
		cursors[i] = newCursor(l)
	}
	for {
		least, err := leastOf(cursors)
		if err != nil {
			return index.SegmentRef{}, err
		}
		if least == nil {
			return out.Finish()
		}
		id := least.ID
		var keep *index.Record
		doomed := false
		for i := range cursors {
			rec, _ := cursors[i].peek()
			if rec == nil || rec.ID != id {
				continue
			}
			p := m.in[i].footer.Packs[rec.Pack].Digest
			if !m.drop[p] && (keep == nil || doomed && !m.condemned[p]) {
				keep = &index.Record{ID: id, Pack: m.byPack[p], At: rec.At}
				doomed = m.condemned[p]
			}
			cursors[i].next()
		}
		if keep != nil {
			if err := out.Add(*keep); err != nil {
				return index.SegmentRef{}, err
			}
		}
	}
}

// cursor walks a local copy's records one by one.
type cursor struct {
	l    *local
	page int
	buf  []byte // of the page, for all pages in turn: garbage of a large index would double the heap
	recs index.Records
	at   int
	rec  index.Record
	ok   bool
}

func newCursor(l *local) cursor { return cursor{l: l} }

func (c *cursor) peek() (*index.Record, error) {
	if c.ok {
		return &c.rec, nil
	}
	if c.at == c.recs.Len() {
		if c.page == len(c.l.footer.Pages) {
			return nil, nil
		}
		off, n := c.l.footer.PageRange(c.page, 0)
		if c.buf == nil {
			c.buf = make([]byte, index.PageSize)
		}
		b := c.buf[:n]
		if _, err := c.l.file.ReadAt(b, off); err != nil {
			return nil, err
		}
		c.recs, c.at = index.Records(b), 0
		if err := c.recs.Check(len(c.l.footer.Packs)); err != nil {
			return nil, err
		}
		c.page++
	}
	c.rec, c.ok = c.recs.At(c.at), true
	return &c.rec, nil
}

func (c *cursor) next() { c.at, c.ok = c.at+1, false }
