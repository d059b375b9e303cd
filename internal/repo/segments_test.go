package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/index"
	"nightferry/internal/testbed"
)

// Never more than twelve segments, and nothing is lost by merging.
func TestSegmentsAreMerged(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(40, 300)
		for i, c := range chunks {
			p.add(r, s, c)
			root := p.index(r).Root()
			if n := len(root.Segments); n > index.MaxSegments || n < min(i+1, index.MaxSegments) {
				t.Fatalf("%d segments after %d", n, i+1)
			}
		}
		x := p.index(r)
		got, err := fetchAll(t, r, x, ids(r, chunks), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, r, got, chunks)
		if err := s.Prune(x.Root()); err != nil {
			t.Fatal(err)
		}
		if n := len(p.files(s)); n != len(x.Root().Segments) {
			t.Errorf("%d local copies of %d segments", n, len(x.Root().Segments))
		}
		var last digest.Digest
		n := 0
		err = s.Walk(t.Context(), x, func(places []Place) error {
			if places[0].ID.Compare(last) <= 0 {
				t.Error("out of order")
			}
			last = places[0].ID
			n++
			return nil
		})
		if n != 40 || err != nil || len(x.Packs()) != 40 {
			t.Errorf("walked %d chunks in %d packs, %v", n, len(x.Packs()), err)
		}
	})
}

// TestPruneAgesByThisMachine: unfinished local copies are aged by the clock that
// dates them, not by the store's, which here is weeks behind.
func TestPruneAgesByThisMachine(t *testing.T) {
	p := newPress(t, nil)
	s := p.mustOpen(nil).Segments(p.folder())
	for name, age := range map[string]time.Duration{"young": time.Hour, "old": staleTemp + time.Hour} {
		path := filepath.Join(s.dir.Dir(), name+tempSuffix)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, time.Time{}, p.now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Prune(&index.Root{}); err != nil {
		t.Fatal(err)
	}
	if left := p.files(s); len(left) != 1 || filepath.Base(left[0]) != "young"+tempSuffix {
		t.Errorf("left are %v", left)
	}
}

func (p *press) files(s *Segments) (names []string) {
	p.t.Helper()
	list, err := s.dir.ReadDir(".")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, filepath.Join(s.dir.Dir(), e.Name()))
	}
	return names
}

// If a chunk has two places, merging keeps the newer, but prefers a pack that
// is not condemned.
func TestMergeKeepsTheNewest(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		c := p.chunks(3, 500)
		one := p.add(r, s, c[0], c[1])
		two := p.add(r, s, c[0], c[1])
		three := p.add(r, s, c[1], c[2])
		p.condemn(r, three.Digest)
		refs := p.index(r).Root().Segments
		ref, err := s.mergeSegments(t.Context(), refs, map[digest.Digest]bool{three.Digest: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReplaceRoot(t.Context(), func(root *index.Root, _ clock.Store) error {
			root.Segments = []index.SegmentRef{ref}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		x := p.index(r)
		known, err := s.Known(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = known.Close() }()
		for i, want := range []digest.Digest{two.Digest, two.Digest, three.Digest} {
			places, err := known.Places(ids(r, c)[i])
			if err != nil || len(places) != 1 || x.Packs()[places[0].Pack].Digest != want {
				t.Errorf("chunk %d: %v %v", i, places, err)
			}
		}
		if _, ok := known.Packs()[one.Digest]; !ok {
			t.Error("merging forgot a pack: gc would never delete it")
		}
	})
}

// Eight writers add segments at once, each on its own machine; none is lost,
// and the root never lists too many.
func TestEightWriters(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		const writers, each = 8, 4
		chunks := p.chunks(writers*each, 400)
		var wg sync.WaitGroup
		errs := make(chan error, writers)
		var segs []*Segments
		var repos []*Repo
		for range writers {
			r := p.mustOpen(nil)
			repos, segs = append(repos, r), append(segs, r.Segments(p.folder()))
		}
		segs[1] = repos[1].Segments(segs[0].dir) // two share a folder
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					done := p.pack(repos[w], chunks[w*each+i])
					var b Batch
					b.Add(done)
					if err := segs[w].AddSegment(t.Context(), &b); err != nil {
						errs <- fmt.Errorf("writer %d: %w", w, err)
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		x := p.index(repos[0])
		if n := len(x.Root().Segments); n > index.MaxSegments || x.Root().Sequence != 1+writers*each {
			t.Errorf("%d segments, sequence %d", n, x.Root().Sequence)
		}
		got, err := fetchAll(t, repos[0], x, ids(repos[0], chunks), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, repos[0], got, chunks)
	})
}

// A damaged local copy is fetched again, never trusted.
func TestDamagedLocalCopies(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(5, 400)
		p.add(r, s, chunks...)
		for name, harm := range map[string]func([]byte) []byte{
			"flipped record": func(b []byte) []byte { b[60] ^= 1; return b },
			"flipped footer": func(b []byte) []byte { b[len(b)-3] ^= 1; return b },
			"short":          func(b []byte) []byte { return b[:len(b)/2] },
			"empty":          func([]byte) []byte { return nil },
		} {
			for _, f := range p.files(s) {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f, harm(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			k, err := s.Known(t.Context(), p.index(r))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, id := range ids(r, chunks) {
				if has, err := k.Has(id); !has || err != nil {
					t.Errorf("%s: %v %v", name, has, err)
				}
			}
			if has, err := k.Has(digest.Of([]byte("nowhere"))); has || err != nil {
				t.Errorf("%s: %v %v", name, has, err)
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Local copies give the same answers as the store, for every id of a large
// segment.
func TestKnownFindsAll(t *testing.T) {
	p := newPress(t, nil)
	r := p.mustOpen(nil)
	all := p.synthetic(r, 30_000)
	k, err := r.Segments(p.folder()).Known(t.Context(), p.index(r))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	for _, id := range all {
		if has, err := k.Has(id); !has || err != nil {
			t.Fatalf("%s: %v %v", id, has, err)
		}
		id[31]++
		if has, err := k.Has(id); has || err != nil {
			t.Fatalf("a neighbour of an id: %v %v", has, err)
		}
	}
}

// Forget drops packs, and the segments that are then empty.
func TestForget(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(3, 500)
		one := p.add(r, s, chunks[0])
		p.add(r, s, chunks[1], chunks[2])
		p.condemn(r, one.Digest)
		x, err := s.Forget(t.Context(), map[digest.Digest]bool{one.Digest: true}, nil)
		if err != nil || len(x.Root().Segments) != 1 || len(x.Root().Condemned) != 0 {
			t.Fatalf("%+v %v", x.Root(), err)
		}
		found, missing, err := x.Locate(t.Context(), ids(r, chunks))
		if len(found) != 2 || len(missing) != 1 || err != nil {
			t.Errorf("%v %v %v", found, missing, err)
		}
		no := errors.New("no")
		if _, err := s.Forget(t.Context(), nil, func(*index.Root) error { return no }); !errors.Is(err, no) {
			t.Errorf("%v", err)
		}
	})
}

// A root that loses to others is tried again, but not forever.
func TestRootGoneOrDamaged(t *testing.T) {
	p := newPress(t, nil)
	r := p.mustOpen(nil)
	testbed.FlipBit(t, p.store, rootKey, 12, 0)
	if _, err := r.Index(t.Context()); err == nil {
		t.Error("a damaged root was believed")
	}
	testbed.DeleteObject(t, p.store, rootKey)
	if _, err := r.Index(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "rebuild") {
		t.Errorf("%v", err)
	}
}
