package repo

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nightferry/internal/digest"
	"nightferry/internal/testbed"
)

// fetchAll fetches ids and returns the chunks by id.
func fetchAll(t *testing.T, r *Repo, x *Index, ids []digest.Digest, o FetchOptions) (map[digest.Digest][]byte, error) {
	t.Helper()
	found, missing, err := x.Locate(t.Context(), ids)
	if err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	var mu sync.Mutex
	got := map[digest.Digest][]byte{}
	err = x.Fetch(t.Context(), found, o, func(_ context.Context, b *Block) error {
		mu.Lock()
		defer mu.Unlock()
		for i, p := range b.Places {
			if _, twice := got[p.ID]; twice {
				t.Errorf("chunk %s came twice", p.ID.Short())
			}
			got[p.ID] = bytes.Clone(b.Chunk(i))
		}
		return nil
	})
	return got, err
}

func same(t *testing.T, r *Repo, got map[digest.Digest][]byte, chunks [][]byte) {
	t.Helper()
	if len(got) != len(chunks) {
		t.Errorf("%d chunks came, want %d", len(got), len(chunks))
	}
	for _, c := range chunks {
		if !bytes.Equal(got[r.Keys().ChunkID(c)], c) {
			t.Errorf("chunk %s is wrong", r.Keys().ChunkID(c).Short())
		}
	}
}

// Wanted blocks within 1 MiB of one another come in one request.
func TestFetchCoalesces(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		count := testbed.Count(p.store)
		r := p.mustOpen(count)
		s := r.Segments(p.folder())
		chunks := p.chunks(40, 300<<10) // 12 MB in one pack
		p.add(r, s, chunks...)
		for _, c := range []struct {
			name  string
			want  []int
			gets  int64
			bytes int64 // at most
		}{
			{"all", nil, 1, 40*301<<10 + 4096},
			{"one", []int{7}, 1, 301 << 10},
			{"gap of three", []int{0, 4}, 1, 5 * 301 << 10},
			{"gap of four", []int{0, 5}, 2, 2 * 301 << 10},
			{"ends and middle", []int{0, 1, 20, 22, 39}, 3, 6 * 301 << 10},
		} {
			want := chunks
			if c.want != nil {
				want = nil
				for _, i := range c.want {
					want = append(want, chunks[i])
				}
			}
			x := p.index(r)
			found, _, err := x.Locate(t.Context(), ids(r, want))
			if err != nil {
				t.Fatal(err)
			}
			count.Reset()
			var told atomic.Int64
			var n atomic.Int64
			err = x.Fetch(t.Context(), found, FetchOptions{OnBytes: func(b int64) { told.Add(b) }}, func(_ context.Context, b *Block) error {
				n.Add(int64(len(b.Places)))
				return nil
			})
			got := count.Counts()
			if err != nil || n.Load() != int64(len(want)) || got.Gets != c.gets || got.Got > c.bytes || told.Load() != got.Got {
				t.Errorf("%s: %d chunks, %+v, told of %d bytes, %v", c.name, n.Load(), got, told.Load(), err)
			}
		}
	})
}

// Data damaged on the line is fetched again; damage in the store is reported.
func TestFetchDamage(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		var flips atomic.Int64
		flips.Store(2)
		flip := testbed.FlipReads(p.store, func(key string, off, n int64) (int64, bool) {
			return 500, len(key) > 6 && key[:6] == "packs/" && flips.Add(-1) >= 0
		})
		r := p.mustOpen(flip)
		s := r.Segments(p.folder())
		chunks := p.chunks(10, 20_000)
		done := p.add(r, s, chunks...)
		var retries atomic.Int64
		o := FetchOptions{OnRetry: func(error) { retries.Add(1) }}
		got, err := fetchAll(t, r, p.index(r), ids(r, chunks), o)
		if err != nil || flip.Flips() != 2 || retries.Load() != 2 {
			t.Fatalf("%d flips, %d retries, %v", flip.Flips(), retries.Load(), err)
		}
		same(t, r, got, chunks)

		key := PackKey(done.Digest)
		testbed.FlipBit(t, p.store, key, 50_000, 1)
		var corrupt *CorruptError
		if _, err := fetchAll(t, r, p.index(r), ids(r, chunks), o); !errors.As(err, &corrupt) || corrupt.Pack != key {
			t.Fatalf("%v", err)
		}
		if err := fetchOne(t, r, p.index(r), corrupt.Chunk); !errors.As(err, &corrupt) {
			t.Errorf("the chunk that is said to be damaged: %v", err)
		}
	})
}

func fetchOne(t *testing.T, r *Repo, x *Index, id digest.Digest) error {
	_, err := fetchAll(t, r, x, []digest.Digest{id}, FetchOptions{})
	return err
}

// gc has deleted a pack since the index was read: its chunks are read from
// their new place, or reported as missing.
func TestFetchFromAPackThatIsGone(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		s := r.Segments(p.folder())
		chunks := p.chunks(6, 10_000)
		old := p.add(r, s, chunks...)
		x := p.index(r)
		found, _, err := x.Locate(t.Context(), ids(r, chunks))
		if err != nil {
			t.Fatal(err)
		}
		p.add(r, s, chunks[:5]...)
		testbed.DeleteObject(t, p.store, PackKey(old.Digest))
		var missing *MissingError
		fn := func(context.Context, *Block) error { return nil }
		if err := x.Fetch(t.Context(), found, FetchOptions{}, fn); !errors.As(err, &missing) || missing.Pack != PackKey(old.Digest) {
			t.Errorf("one chunk is nowhere: %v", err)
		}
		p.add(r, s, chunks[5])
		if _, err := s.Forget(t.Context(), map[digest.Digest]bool{old.Digest: true}, nil); err != nil {
			t.Fatal(err)
		}
		told := 0
		n := atomic.Int64{}
		err = x.Fetch(t.Context(), found, FetchOptions{OnRetry: func(error) { told++ }}, func(_ context.Context, b *Block) error {
			n.Add(int64(len(b.Places)))
			return nil
		})
		if err != nil || n.Load() != 6 || told != 1 {
			t.Errorf("%d chunks, told %d times, %v", n.Load(), told, err)
		}
	})
}

// A gate that closes ends a fetch, with its own error.
func TestFetchGate(t *testing.T) {
	p := newPress(t, nil)
	r := p.mustOpen(nil)
	chunks := p.chunks(20, 1000)
	p.add(r, r.Segments(p.folder()), chunks...)
	closed := errors.New("the window is over")
	var asked atomic.Int64
	_, err := fetchAll(t, r, p.index(r), ids(r, chunks), FetchOptions{Connections: 1, Gate: func(context.Context) error {
		if asked.Add(1) > 5 {
			return closed
		}
		return nil
	}})
	if !errors.Is(err, closed) {
		t.Errorf("%v", err)
	}
}

// An index with wrong chunk places is detected, not followed.
func TestFetchByALyingIndex(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		r := p.mustOpen(nil)
		chunks := p.chunks(2, 5000)
		done := p.pack(r, chunks...)
		var b Batch
		b.Add(done)
		b.records[0].At, b.records[1].At = b.records[1].At, b.records[0].At
		if err := r.Segments(p.folder()).AddSegment(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		var corrupt *CorruptError
		if _, err := fetchAll(t, r, p.index(r), ids(r, chunks), FetchOptions{}); !errors.As(err, &corrupt) {
			t.Errorf("%v", err)
		}
	})
}

// A line that flips a different bit in every response is tolerated: no block
// ever arrives intact, but a majority vote over the copies restores it.
func TestFetchOverALineThatFlipsBits(t *testing.T) {
	p := newPress(t, nil)
	var n atomic.Int64
	flip := testbed.FlipReads(p.store, func(key string, off, size int64) (int64, bool) {
		return n.Add(7919) % max(size, 1), strings.HasPrefix(key, "packs/")
	})
	r := p.mustOpen(flip)
	chunks := p.chunks(1, 300_000)
	p.add(r, r.Segments(p.folder()), chunks...)
	var told atomic.Int64
	o := FetchOptions{OnRetry: func(err error) {
		if a := (*ArrivalError)(nil); errors.As(err, &a) {
			told.Add(1)
		}
	}}
	got, err := fetchAll(t, r, p.index(r), ids(r, chunks), o)
	if err != nil || flip.Flips() < 3 || told.Load() != flip.Flips()-1 {
		t.Fatalf("%d flips, told of %d, %v", flip.Flips(), told.Load(), err)
	}
	same(t, r, got, chunks)
}
