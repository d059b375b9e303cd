package testbed

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"nightferry/internal/bucket"
)

// ReadObject returns an object's bytes.
func ReadObject(t testing.TB, s bucket.Store, key string) []byte {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// WriteObject replaces an object, without a condition, as an attacker or a bad disk would.
func WriteObject(t testing.TB, s bucket.Store, key string, b []byte) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, bucket.Bytes(b), bucket.Cond{}); err != nil {
		t.Fatal(err)
	}
}

// FlipBit flips a bit of the byte at off; a negative off counts from the end.
func FlipBit(t testing.TB, s bucket.Store, key string, off int64, bit uint) {
	t.Helper()
	b := ReadObject(t, s, key)
	if off < 0 {
		off += int64(len(b))
	}
	b[off] ^= 1 << (bit % 8)
	WriteObject(t, s, key, b)
}

// Truncate cuts an object to its first size bytes.
func Truncate(t testing.TB, s bucket.Store, key string, size int64) {
	t.Helper()
	WriteObject(t, s, key, ReadObject(t, s, key)[:size])
}

// DeleteObject removes an object, which must exist.
func DeleteObject(t testing.TB, s bucket.Store, key string) {
	t.Helper()
	ReadObject(t, s, key)
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// Keys lists the keys below a prefix.
func Keys(t testing.TB, s bucket.Store, prefix string) []string {
	t.Helper()
	var keys []string
	if err := s.List(t.Context(), prefix, func(i bucket.Info) error {
		keys = append(keys, i.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// Flipper is a store that flips one bit in the bodies of some Gets. The stored objects stay intact.
type Flipper struct {
	bucket.Store
	pick  func(key string, off, n int64) (at int64, flip bool)
	flips atomic.Int64
}

// FlipReads wraps s. It calls pick for each Get, which returns whether to flip a bit, and at which byte of the body.
func FlipReads(s bucket.Store, pick func(key string, off, n int64) (at int64, flip bool)) *Flipper {
	return &Flipper{Store: s, pick: pick}
}

// Flips returns the number of bodies selected for a flip so far.
func (f *Flipper) Flips() int64 { return f.flips.Load() }

// Close closes the store below.
func (f *Flipper) Close() error { return bucket.Close(f.Store) }

// Get implements bucket.Store.
func (f *Flipper) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, info, err := f.Store.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	if at, ok := f.pick(key, off, n); ok {
		if at < 0 {
			return nil, info, fmt.Errorf("flip byte %d of %s", at, key)
		}
		f.flips.Add(1)
		r = FlipBody(r, at)
	}
	return r, info, nil
}

// FlipBody changes one bit of the byte at position at of r.
func FlipBody(r io.ReadCloser, at int64) io.ReadCloser { return &flippedBody{r, at} }

type flippedBody struct {
	io.ReadCloser
	left int64
}

func (b *flippedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	FlipOnce(p[:n], &b.left)
	return n, err
}

// FlipOnce flips one bit of the byte at offset left of a stream. p is the next part of the stream; left counts down.
func FlipOnce(p []byte, left *int64) {
	if *left >= 0 && *left < int64(len(p)) {
		p[*left] ^= 0x10
		*left = -1
	} else if *left >= 0 {
		*left -= int64(len(p))
	}
}
