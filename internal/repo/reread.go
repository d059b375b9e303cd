package repo

import (
	"bytes"
	"context"
	"errors"

	"nightferry/internal/bucket"
)

// readGood reads a whole object of at most max bytes and passes it to accept.
// If accept refuses it, readGood reads it again: if the line damaged it, the
// next copy differs. If the same bytes arrive again, the store holds them so,
// and readGood returns accept's error.
func (r *Repo) readGood(ctx context.Context, key string, max int64, accept func(b []byte, info bucket.Info) error) error {
	var before []byte
	for try := 1; ; try++ {
		b, info, err := readObject(ctx, r.store, key, max)
		if err != nil {
			return err
		}
		err = accept(b, info)
		// An object older than one seen before is intact: it was put back.
		if err == nil || errors.Is(err, ErrOlder) || try == maxTries || try > 1 && bytes.Equal(b, before) {
			return err
		}
		r.tellRetry(&ArrivalError{Key: key, Err: err})
		reconnect(r.store)
		before = b
	}
}

// reconnect makes the next request use a new connection, because a faulty
// connection may damage more.
func reconnect(store bucket.Store) {
	if s, ok := store.(interface{ Reconnect() }); ok {
		s.Reconnect()
	}
}

// arrivals are copies of the same bytes that all arrived damaged.
type arrivals [][]byte

// countRepeats counts how often the last copy has arrived.
func (a arrivals) countRepeats() (n int) {
	for _, b := range a {
		if bytes.Equal(b, a[len(a)-1]) {
			n++
		}
	}
	return n
}

// majorityBits returns the majority of the last three copies at each bit, or nil if
// there are fewer copies: a line that flips a bit now and then does not flip
// the same one twice.
func (a arrivals) majorityBits() []byte {
	if len(a) < 3 {
		return nil
	}
	x, y, z := a[len(a)-3], a[len(a)-2], a[len(a)-1]
	out := make([]byte, len(x))
	for i := range out {
		out[i] = x[i]&y[i] | x[i]&z[i] | y[i]&z[i]
	}
	return out
}

// readRangeGood is readGood for a part of an object.
func (r *Repo) readRangeGood(ctx context.Context, key string, off, n int64, accept func(b []byte) error) error {
	var before []byte
	for try := 1; ; try++ {
		b, err := r.readRange(ctx, key, off, n)
		if err != nil {
			return err
		}
		if err = accept(b); err == nil || try == maxTries || try > 1 && bytes.Equal(b, before) {
			return err
		}
		r.tellRetry(&ArrivalError{Key: key, Err: err})
		reconnect(r.store)
		before = b
	}
}

func (r *Repo) tellRetry(err error) {
	if r.onRetry != nil {
		r.onRetry(err)
	}
}
