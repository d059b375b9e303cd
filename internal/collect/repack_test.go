package collect

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/index"
	"nightferry/internal/repo"
)

// counted counts the reads from a store.
type counted struct {
	bucket.Store
	gets atomic.Int64
}

func (s *counted) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, key, off, n)
}

// TestGCMergesSmallPacks: the small packs of many small releases become few, a first pull needs fewer requests, and
// nothing is lost. A gc that has merged finds nothing to merge.
func TestGCMergesSmallPacks(t *testing.T) {
	const releases = 20
	sealKeys(t, func(t *testing.T, key []byte) {
		l := newLab(t, nil, key)
		for i := range releases {
			l.write(fmt.Sprintf("f%03d", i), 20<<10, uint64(i))
			l.mustPush()
		}
		measure := func() (packs int, gets int64) {
			t.Helper()
			s := &counted{Store: l.store}
			if _, err := apply.Run(t.Context(), s, t.TempDir(), apply.Options{Channel: labChannel, Now: l.clock.Now, Key: l.seal}); err != nil {
				t.Fatal(err)
			}
			err := l.store.List(t.Context(), repo.PacksPrefix, func(bucket.Info) error { packs++; return nil })
			if err != nil {
				t.Fatal(err)
			}
			return packs, s.gets.Load()
		}
		packs, gets := measure()
		all := Options{Keep: releases}
		if rep := l.mustGC(all); rep.Repacked != 0 {
			t.Errorf("packs that a push may still need were merged: %+v", rep)
		}
		l.clock.advance(l.grace)
		dry := all
		dry.DryRun = true
		if rep := l.mustGC(dry); rep.Merged < releases {
			t.Errorf("the dry run announces %+v", rep)
		}
		if rep := l.mustGC(all); rep.Merged < releases || rep.Condemned != rep.Merged || rep.Deleted != 0 || rep.Postponed != 0 {
			t.Errorf("%+v", rep)
		}
		if now, _ := measure(); now <= packs {
			t.Errorf("%d packs are left of %d: a reader may still need the old ones", now, packs)
		}
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(all); rep.Merged != 0 || rep.Repacked != 0 || rep.Deleted < releases {
			t.Errorf("%+v", rep)
		}
		l.healthy()
		after, fewer := measure()
		t.Logf("%d packs and %d reads of a first pull before, %d and %d after", packs, gets, after, fewer)
		if after > 2 || fewer > gets-releases/2 {
			t.Errorf("%d packs, %d reads: before %d, %d", after, fewer, packs, gets)
		}
	})
}

// TestFaultMatrixOfMerging: whichever request of a gc that merges small packs fails, and however, nothing is lost, and
// later runs leave no garbage.
func TestFaultMatrixOfMerging(t *testing.T) {
	sealKeys(t, func(t *testing.T, key []byte) {
		s := newScene(t, key)
		for i := range 3 {
			s.l.write(fmt.Sprint("f", i), 40<<10, uint64(i))
			s.l.mustPush()
		}
		s.l.clock.advance(2 * s.l.grace)
		merge := Options{Keep: 3, MinSmall: 2}
		gc := func(l *lab, store bucket.Store) error {
			rep, err := l.gc(store, merge)
			if err == nil && rep.Merged != 3 {
				t.Errorf("the scene differs from the plan: %+v", rep)
			}
			return err
		}
		s.matrix(t, gc, func(t *testing.T, l *lab) {
			l.healthy()
			for range 5 {
				if _, err := l.gc(nil, merge); err != nil {
					t.Fatal(err)
				}
				l.clock.advance(2 * l.grace)
			}
			if rep := l.healthy(); rep.Garbage != 0 || rep.Releases != 3 || rep.Packs != 1 {
				t.Errorf("%+v", rep)
			}
		})
	})
}

// TestGCBoundsRepacking: one run moves at most maxRepack bytes of needed chunks, and it does not merge a few packs.
func TestGCBoundsRepacking(t *testing.T) {
	plan := func(sparse, small int, liveRaw uint64) (*gc, *plan) {
		g, p := &gc{o: Options{MinSmall: DefaultMinSmall}}, &plan{}
		var list []uint32
		for i := range sparse + small {
			p.use = append(p.use, packUse{live: 1, liveRaw: liveRaw})
			if i < sparse {
				p.victims = append(p.victims, uint32(i))
			} else {
				list = append(list, uint32(i))
			}
		}
		g.addSmall(p, list)
		return g, p
	}
	for _, c := range []struct {
		sparse, small     int
		liveRaw           uint64
		victims           int
		merged, postponed int64
	}{
		{0, DefaultMinSmall - 1, 1, 0, 0, 0},
		{2, DefaultMinSmall - 1, 1, 2, 0, 0},
		{2, DefaultMinSmall, 1, 2 + DefaultMinSmall, DefaultMinSmall, 0},
		{0, 2 * DefaultMinSmall, maxRepack / DefaultMinSmall, DefaultMinSmall, DefaultMinSmall, DefaultMinSmall},
		{3, DefaultMinSmall, maxRepack / 2, 2, 0, 1 + DefaultMinSmall},
		{1, 0, 2 * maxRepack, 1, 0, 0}, // one pack is always moved
	} {
		if g, p := plan(c.sparse, c.small, c.liveRaw); len(p.victims) != c.victims || g.rep.Merged != c.merged || g.rep.Postponed != c.postponed {
			t.Errorf("%+v: %d victims, %+v", c, len(p.victims), g.rep)
		}
	}
	u := &packUse{live: 1, chunks: smallChunks}
	if isSmall(index.Pack{Digest: digest.Digest{1}, Size: 100}, u) {
		t.Error("a pack that is full of tiny chunks is small")
	}
}
