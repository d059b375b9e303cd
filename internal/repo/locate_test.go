package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/testbed"
)

// condemn lists packs as condemned.
func (p *press) condemn(r *Repo, packs ...digest.Digest) {
	p.t.Helper()
	if _, err := r.ReplaceRoot(p.t.Context(), func(root *index.Root, _ clock.Store) error {
		for _, d := range packs {
			root.Condemned = append(root.Condemned, index.Condemned{Pack: d, Since: 1})
		}
		slices.SortFunc(root.Condemned, func(a, b index.Condemned) int { return a.Pack.Compare(b.Pack) })
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
}

func TestLocate(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(6, 1000)
		old := p.add(r, s, chunks[:4]...)
		young := p.add(r, s, chunks[2:]...) // chunks 2 and 3 are in both
		x := p.index(r)
		known, err := s.Known(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = known.Close() }()
		all := append(ids(r, chunks), digest.Of([]byte("nowhere")), ids(r, chunks)[0]) // one twice
		check := func(what string, found []Place, missing []digest.Digest, err error, packs ...digest.Digest) {
			t.Helper()
			if err != nil || len(missing) != 1 || missing[0] != digest.Of([]byte("nowhere")) {
				t.Fatalf("%s: missing %v, %v", what, missing, err)
			}
			for i, want := range packs {
				at := slices.IndexFunc(found, func(f Place) bool { return f.ID == ids(r, chunks)[i] })
				if at < 0 || x.Packs()[found[at].Pack].Digest != want {
					t.Errorf("%s: chunk %d is not taken from the right pack", what, i)
				}
			}
		}
		o, y := old.Digest, young.Digest
		found, missing, err := x.Locate(t.Context(), all)
		check("newest first", found, missing, err, o, o, y, y, y, y)
		if len(found) != 6 || !slices.IsSortedFunc(found, func(a, b Place) int { return a.ID.Compare(b.ID) }) {
			t.Errorf("%d places, or not sorted", len(found))
		}
		found, missing, err = known.Locate(all[:7])
		check("by local copies", found, missing, err, o, o, y, y, y, y)

		// A condemned pack serves only chunks that no other pack has.
		p.condemn(r, y)
		x = p.index(r)
		found, missing, err = x.Locate(t.Context(), all)
		check("condemned", found, missing, err, o, o, o, o, y, y)
		again, err := s.Known(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = again.Close() }()
		found, missing, err = again.Locate(all[:7])
		check("condemned, by local copies", found, missing, err, o, o, o, o, y, y)
		for i, want := range []bool{true, true, true, true, false, false} {
			if has, err := again.Has(all[i]); has != want || err != nil {
				t.Errorf("a publisher may rely on chunk %d: %v, %v", i, has, err)
			}
		}
	})
}

// A segment above the threshold is read by its footer and the pages that may
// hold an id, each proven.
func TestLocateInALargeSegment(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		const n = 170_000 // 8.8 MB
		all := p.synthetic(p.mustOpen(nil), n)
		count := testbed.Count(p.store)
		r := p.mustOpen(count)
		x := p.index(r)
		count.Reset()
		want := all[1234:1244]
		found, missing, err := x.Locate(t.Context(), append(slices.Clone(want), digest.Of([]byte("nowhere"))))
		if err != nil || len(found) != 10 || len(missing) != 1 {
			t.Fatalf("%d found, %d missing, %v", len(found), len(missing), err)
		}
		if c := count.Counts(); c.Gets > 12 || c.Got > 11<<20 || c.Lists != 0 {
			t.Errorf("%+v", c)
		}
		count.Reset()
		if _, _, err := x.Locate(t.Context(), want[:1]); err != nil {
			t.Fatal(err)
		}
		if c := count.Counts(); c.Gets != 2 || c.Got > 200<<10 {
			t.Errorf("one id took %+v", c)
		}

		// A page that is altered in the store, or on its way.
		key := SegmentKey(x.Root().Segments[0].Digest)
		testbed.FlipBit(t, p.store, key, 4<<20, 3)
		if _, _, err := x.Locate(t.Context(), all); err == nil {
			t.Error("an altered page was believed")
		}
		testbed.FlipBit(t, p.store, key, 4<<20, 3)
		testbed.FlipBit(t, p.store, key, -9, 3) // in the footer
		if _, _, err := x.Locate(t.Context(), want); err == nil {
			t.Error("an altered footer was believed")
		}
		testbed.FlipBit(t, p.store, key, -9, 3)
		once := false
		flip := testbed.FlipReads(p.store, func(k string, off, _ int64) (int64, bool) {
			hit := k == key && off < 1<<20 && !once
			once = once || hit
			return 30_000, hit
		})
		if found, _, err := p.index(p.mustOpen(flip)).Locate(t.Context(), all); err != nil || len(found) != n || flip.Flips() != 1 {
			t.Errorf("after one flip on the way: %d found, %v", len(found), err)
		}
	})
}

func TestSmallSegmentIsProven(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(3, 1000)
		p.add(r, s, chunks...)
		x := p.index(r)
		key := SegmentKey(x.Root().Segments[0].Digest)
		for _, at := range []int64{0, 60, 100, -1} {
			testbed.FlipBit(t, p.store, key, at, 0)
			if _, _, err := x.Locate(t.Context(), ids(r, chunks)); err == nil {
				t.Errorf("altered at %d and believed", at)
			}
			if _, err := r.Segments(p.folder()).Known(t.Context(), x); err == nil {
				t.Errorf("altered at %d and copied", at)
			}
			if err := x.CheckSegment(t.Context(), x.Root().Segments[0]); err == nil {
				t.Errorf("altered at %d and passed", at)
			}
			testbed.FlipBit(t, p.store, key, at, 0)
		}
	})
}

// A segment was merged away and deleted after the root was read.
func TestLocateAfterAMerge(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(60, 200)
		p.add(r, s, chunks[0])
		x, y := p.index(r), p.index(r)
		gone := SegmentKey(x.Root().Segments[0].Digest)
		for _, c := range chunks[1:] {
			p.add(r, s, c)
			if !slices.ContainsFunc(p.index(r).Root().Segments, func(ref index.SegmentRef) bool { return SegmentKey(ref.Digest) == gone }) {
				break
			}
		}
		testbed.DeleteObject(t, p.store, gone)
		if found, missing, err := x.Locate(t.Context(), ids(r, chunks[:1])); len(found) != 1 || len(missing) != 0 || err != nil {
			t.Errorf("%v %v %v", found, missing, err)
		}
		k, err := r.Segments(p.folder()).Known(t.Context(), y)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = k.Close() }()
		if has, err := k.Has(ids(r, chunks)[0]); !has || err != nil {
			t.Errorf("%v %v", has, err)
		}
		// A segment that the newest root names and that is gone is an error.
		testbed.DeleteObject(t, p.store, SegmentKey(p.index(r).Root().Segments[0].Digest))
		var e *bucket.Error
		if _, _, err := p.index(r).Locate(t.Context(), ids(r, chunks)); !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
	})
}

// Write access to the bucket includes the root. A segment that is shorter than the root claims, with the
// right digest, is reported as damaged and causes no out-of-bounds slice.
func TestLocateInAShortSegment(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		p.add(r, s, p.chunks(2, 1000)...)
		good := p.index(r).Root().Segments[0]
		whole := p.get(SegmentKey(good.Digest))
		for _, n := range []int64{0, 1, good.Footer - 1, good.Footer, good.Size - 1} {
			ref := good
			ref.Digest = digest.Of(whole[:n])
			p.put(SegmentKey(ref.Digest), whole[:n])
			if _, err := r.ReplaceRoot(t.Context(), func(root *index.Root, _ clock.Store) error {
				root.Segments = []index.SegmentRef{ref}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.index(r).Locate(t.Context(), []digest.Digest{{1}}); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("%d of %d bytes: %v", n, good.Size, err)
			}
			if _, err := s.Known(t.Context(), p.index(r)); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("%d of %d bytes, for a local copy: %v", n, good.Size, err)
			}
		}
	})
}

// The repository has 10 000 000 chunks in twelve segments, none of which holds
// all. 1 % of it is located within seconds and within 256 MiB.
func TestLocateInAHugeIndex(t *testing.T) {
	n, want := 1_000_000, 10_000
	if testbed.Soak() {
		n, want = 10_000_000, 100_000
	}
	p := newPress(t, nil)
	var all []digest.Digest
	for range 12 {
		ids := p.synthetic(p.mustOpen(nil), n/12)
		rnd := rand.New(rand.NewPCG(1, uint64(len(all))))
		rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		all = append(all, slices.Clone(ids[:want/12])...)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	count := testbed.Count(p.store)
	began := time.Now()
	x := p.index(p.mustOpen(count))
	found, missing, err := x.Locate(context.Background(), all)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	if err != nil || len(found) != len(all) || len(missing) != 0 {
		t.Fatalf("%d of %d found, %v", len(found), len(all), err)
	}
	t.Logf("%d of %d chunks in %v, heap +%d MiB, %+v", len(all), n, took, (int64(after.HeapSys)-int64(before.HeapSys))>>20, count.Counts())
	// How long it takes is the benchmark's to judge. It depends on the number of reads: one for each segment's table.
	if c := count.Counts(); c.Gets > 20 || c.Lists != 0 {
		t.Errorf("it took %+v", c)
	}
}
