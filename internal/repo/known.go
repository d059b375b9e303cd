package repo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/pack"
)

// Segments keeps plain copies of the live segments in a local folder. With
// them, a publisher can check for every new chunk whether it is stored. A copy
// is named <digest of the segment>-<digest of the copy>. It is proven as a
// whole when it is opened, because a wrong "stored already" would lose data.
type Segments struct {
	repo *Repo
	dir  *durable.Root
}

// Segments opens the folder of local copies, which the caller keeps open.
func (r *Repo) Segments(dir *durable.Root) *Segments { return &Segments{repo: r, dir: dir} }

// local is an open local copy.
type local struct {
	file   *os.File
	footer *index.Footer
}

func (l *local) close() error { return l.file.Close() }

// openLocal returns the local copy of a segment, and fetches it if there is none.
func (s *Segments) openLocal(ctx context.Context, ref index.SegmentRef) (*local, error) {
	names, err := s.dir.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		_, sum, ok := strings.Cut(n.Name(), "-")
		if !ok || !strings.HasPrefix(n.Name(), ref.Digest.String()) {
			continue
		}
		if l, err := s.openCopy(n.Name(), ref, sum); err == nil {
			return l, nil
		}
		// Damaged: fetch it again.
		if err := s.dir.Remove(n.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	name, sum, err := s.fetchSegment(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.openCopy(name, ref, sum)
}

func (s *Segments) openCopy(name string, ref index.SegmentRef, sum string) (l *local, err error) {
	f, err := s.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	h := sha256.New()
	size, err := io.Copy(h, bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, err
	}
	if digest.Digest(h.Sum(nil)).String() != sum {
		return nil, fmt.Errorf("local copy of %s: %w", SegmentKey(ref.Digest), frame.ErrDamaged)
	}
	at := pack.PreludeSize + int64(ref.Records)*index.RecordSize
	if at > size {
		return nil, fmt.Errorf("local copy of %s: %w", SegmentKey(ref.Digest), frame.ErrDamaged)
	}
	b := make([]byte, size-at)
	if _, err := f.ReadAt(b, at); err != nil {
		return nil, err
	}
	footer, err := index.ParseFooter(nil, b, at)
	if err != nil {
		return nil, err
	}
	return &local{file: f, footer: footer}, nil
}

func (s *Segments) fetchSegment(ctx context.Context, ref index.SegmentRef) (name, sum string, err error) {
	seg, err := openSegment(ctx, s.repo.objects, s.repo.identity.keys, ref)
	if err != nil {
		return "", "", err
	}
	return s.writeCopy(ref, func(w io.Writer) (index.SegmentRef, error) {
		out, err := index.NewWriter(w, nil, seg.footer.Packs)
		if err != nil {
			return index.SegmentRef{}, err
		}
		if err := seg.eachRecord(ctx, out.Add); err != nil {
			return index.SegmentRef{}, err
		}
		return out.Finish()
	})
}

// writeCopy makes a local copy; fill returns the copy's own reference.
func (s *Segments) writeCopy(ref index.SegmentRef, fill func(io.Writer) (index.SegmentRef, error)) (name, sum string, err error) {
	var own index.SegmentRef
	temp := ref.Digest.String() + rand.Text() + tempSuffix
	err = s.dir.WriteStream(temp, 0o600, func(w io.Writer) (err error) {
		own, err = fill(w)
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("keep a local copy of the index: %w", err)
	}
	sum = own.Digest.String()
	name = ref.Digest.String() + "-" + sum
	return name, sum, s.dir.Rename(temp, name)
}

// tempSuffix marks unfinished files.
const tempSuffix = ".tmp"

// staleTemp is the age at which an unfinished file belongs to no running
// process.
const staleTemp = 24 * time.Hour

// Prune removes local copies of segments that root does not list. Copies that
// another process is reading are left for a later Prune.
func (s *Segments) Prune(root *index.Root) error {
	live := map[string]bool{}
	for _, ref := range root.Segments {
		live[ref.Digest.String()] = true
	}
	names, err := s.dir.ReadDir(".")
	if err != nil {
		return err
	}
	for _, n := range names {
		id, _, _ := strings.Cut(n.Name(), "-")
		dead := !live[id]
		if strings.HasSuffix(n.Name(), tempSuffix) || durable.IsTemp(n.Name()) {
			i, err := n.Info()
			dead = err == nil && s.repo.now().Sub(i.ModTime()) > staleTemp // of this machine's disk, by this machine's clock
		}
		if dead {
			_ = s.dir.Remove(n.Name())
		}
	}
	return nil
}

// window is how many records are read around the guessed place of an id. Ids
// are uniform, so within a page of 2048 the true place is within ±64 of the
// interpolated one in more than 99 % of look-ups. The others read the whole
// page.
const window = 128

// findRecord looks up one id with one small read.
func (l *local) findRecord(id digest.Digest, buf []byte) (index.Record, bool, error) {
	p := l.footer.Find(id)
	if p < 0 {
		return index.Record{}, false, nil
	}
	off, size := l.footer.PageRange(p, 0)
	n := int(size / index.RecordSize)
	lo, hi := 0, n
	if n > 2*window {
		guess := guessRecord(l.footer, p, n, id)
		lo, hi = max(0, guess-window/2), min(n, guess+window/2)
		recs, err := l.readRecords(off, lo, hi, buf)
		if err != nil {
			return index.Record{}, false, err
		}
		below := lo > 0 && bytes.Compare(id[:], recs.ID(0)) < 0
		above := hi < n && bytes.Compare(id[:], recs.ID(recs.Len()-1)) > 0
		if !below && !above {
			rec, ok := recs.Find(id)
			return rec, ok, nil
		}
		lo, hi = 0, n
	}
	recs, err := l.readRecords(off, lo, hi, buf)
	if err != nil {
		return index.Record{}, false, err
	}
	rec, ok := recs.Find(id)
	return rec, ok, nil
}

func (l *local) readRecords(off int64, lo, hi int, buf []byte) (index.Records, error) {
	b := buf[:(hi-lo)*index.RecordSize]
	_, err := l.file.ReadAt(b, off+int64(lo)*index.RecordSize)
	return index.Records(b), err
}

func guessRecord(f *index.Footer, page, n int, id digest.Digest) int {
	first := binary.BigEndian.Uint64(f.Pages[page].First[:8])
	next := ^uint64(0)
	if page+1 < len(f.Pages) {
		next = binary.BigEndian.Uint64(f.Pages[page+1].First[:8])
	}
	at := binary.BigEndian.Uint64(id[:8])
	if next <= first {
		return 0
	}
	return int(float64(at-first) / float64(next-first) * float64(n))
}

// Known reports whether chunks are stored already. It is not safe for
// concurrent use.
type Known struct {
	index     *Index
	segs      []*local
	condemned map[digest.Digest]bool
	buf       []byte
}

// Known opens the local copies of all live segments of x, and fetches missing
// ones.
func (s *Segments) Known(ctx context.Context, x *Index) (*Known, error) {
	segs, err := s.openAll(ctx, x)
	if err != nil {
		return nil, err
	}
	return &Known{index: x, segs: segs, condemned: x.condemned, buf: make([]byte, index.PageSize)}, nil
}

// openAll opens the local copies of all live segments of x. If a segment is
// gone from the store, it reads the root again.
func (s *Segments) openAll(ctx context.Context, x *Index) (segs []*local, err error) {
	for i := 0; i < len(x.root.Segments); i++ {
		l, err := s.openLocal(ctx, x.root.Segments[i])
		if err == nil {
			segs = append(segs, l)
			continue
		}
		err = errors.Join(err, closeAll(segs))
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := x.rereadRoot(ctx, err); err != nil {
			return nil, err
		}
		segs, i = nil, -1
	}
	return segs, nil
}

func closeAll(segs []*local) (err error) {
	for _, l := range segs {
		err = errors.Join(err, l.close())
	}
	return err
}

// Has reports whether a chunk is in a pack that a publisher may rely on: one
// that is not condemned.
func (k *Known) Has(id digest.Digest) (bool, error) {
	for _, l := range k.segs {
		rec, ok, err := l.findRecord(id, k.buf)
		if err != nil {
			return false, fmt.Errorf("look up chunk %s: %w", id.Short(), err)
		}
		if ok && int(rec.Pack) < len(l.footer.Packs) && !k.condemned[l.footer.Packs[rec.Pack].Digest] {
			return true, nil
		}
	}
	return false, nil
}

// Locate is Index.Locate on the local copies: it sends no request. The places
// refer to the packs of the Index that Known was given.
func (k *Known) Locate(ids []digest.Digest) (found []Place, missing []digest.Digest, err error) {
	for _, id := range ids {
		var place *Place
		for _, l := range k.segs {
			rec, ok, err := l.findRecord(id, k.buf)
			if err != nil {
				return nil, nil, fmt.Errorf("look up chunk %s: %w", id.Short(), err)
			}
			if !ok || int(rec.Pack) >= len(l.footer.Packs) {
				continue
			}
			p := l.footer.Packs[rec.Pack]
			doomed := k.condemned[p.Digest]
			if place == nil || !doomed {
				place = &Place{ID: id, Pack: k.index.packOrdinal(p), At: rec.At}
			}
			if !doomed {
				break
			}
		}
		if place == nil {
			missing = append(missing, id)
		} else {
			found = append(found, *place)
		}
	}
	return found, missing, nil
}

// Places returns every place of a chunk, that of the newest segment first.
func (k *Known) Places(id digest.Digest) (all []Place, err error) {
	for _, l := range k.segs {
		rec, ok, err := l.findRecord(id, k.buf)
		if err != nil {
			return nil, fmt.Errorf("look up chunk %s: %w", id.Short(), err)
		}
		if ok && int(rec.Pack) < len(l.footer.Packs) {
			all = append(all, Place{ID: id, Pack: k.index.packOrdinal(l.footer.Packs[rec.Pack]), At: rec.At})
		}
	}
	return all, nil
}

// Packs returns every pack that the live segments name.
func (k *Known) Packs() map[digest.Digest]index.Pack {
	packs := map[digest.Digest]index.Pack{}
	for _, l := range k.segs {
		for _, p := range l.footer.Packs {
			packs[p.Digest] = p
		}
	}
	return packs
}

// Close closes the local copies.
func (k *Known) Close() error { return closeAll(k.segs) }
