package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// objects reads the objects of a store, whole or in part. It reads again what arrived damaged.
type objects struct {
	store   bucket.Store
	onRetry func(error) // may be nil
}

// readGood reads a whole object of at most max bytes and passes it to accept.
// If accept refuses it, readGood reads it again, over another connection. If the
// same bytes arrive, the store holds them so, and readGood returns accept's
// error. If other bytes of the same object arrive, one copy was damaged.
func (o *objects) readGood(ctx context.Context, key string, max int64, accept func(b []byte, info bucket.Info) error) error {
	var before []byte
	var was bucket.Info
	var refused error // why accept refused before
	for try := 1; ; try++ {
		b, info, err := readObject(ctx, o.store, key, max)
		if err != nil {
			return err
		}
		if refused != nil {
			if bytes.Equal(b, before) {
				return refused
			}
			if info.ETag == was.ETag { // else it was replaced
				o.notifyRetry(&ArrivalError{Key: key, Err: refused})
			}
		}
		err = accept(b, info)
		// An object older than one seen before is intact: it was put back.
		if err == nil || errors.Is(err, ErrOlder) || try == maxTries {
			return err
		}
		reconnect(o.store)
		before, was, refused = b, info, err
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
func (o *objects) readRangeGood(ctx context.Context, key string, off, n int64, accept func(b []byte) error) error {
	var before []byte
	var refused error
	for try := 1; ; try++ {
		b, err := o.readRange(ctx, key, off, n)
		if err != nil {
			return err
		}
		if refused != nil {
			if bytes.Equal(b, before) {
				return refused
			}
			o.notifyRetry(&ArrivalError{Key: key, Err: refused})
		}
		if err = accept(b); err == nil || try == maxTries {
			return err
		}
		reconnect(o.store)
		before, refused = b, err
	}
}

// readRange reads n bytes of an object, once.
func (o *objects) readRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	body, _, err := o.store.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

func (o *objects) notifyRetry(err error) {
	if o.onRetry != nil {
		o.onRetry(err)
	}
}

// putNew puts an object that must be absent. If a response was lost, a retry
// finds our own object: that is success.
func putNew(ctx context.Context, s bucket.Store, key string, b []byte) error {
	_, err := putObject(ctx, s, key, b, bucket.Cond{Absent: true})
	return err
}

// putObject is a conditional put. If it fails, it reads the object back to find out
// whether it succeeded all the same: the response may have been lost, or a
// retry may have met its own first attempt.
func putObject(ctx context.Context, s bucket.Store, key string, b []byte, c bucket.Cond) (bucket.Info, error) {
	info, err := s.Put(ctx, key, bucket.Bytes(b), c)
	if err == nil || ctx.Err() != nil {
		return info, err
	}
	if have, info, getErr := readObject(ctx, s, key, int64(len(b))+1); getErr == nil && bytes.Equal(have, b) {
		return info, nil
	}
	return info, err
}

// readObject gets a whole object of at most max bytes.
func readObject(ctx context.Context, s bucket.Store, key string, max int64) ([]byte, bucket.Info, error) {
	body, info, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, info, err
	}
	defer body.Close()
	if info.Size > max {
		return nil, info, fmt.Errorf("%s: %d bytes, at most %d are allowed: %w", key, info.Size, max, frame.ErrDamaged)
	}
	b := make([]byte, info.Size)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, info, fmt.Errorf("read %s: %w", key, err)
	}
	return b, info, nil
}

// replaceCond returns the condition under which a mutable object may be replaced.
func replaceCond(etag string) bucket.Cond {
	if etag == "" {
		return bucket.Cond{Absent: true}
	}
	return bucket.Cond{ETag: etag}
}

// checkDigest reads a body to its end and compares it with the expected size and
// digest.
func checkDigest(body io.Reader, have, size int64, want digest.Digest) error {
	if have != size {
		return fmt.Errorf("it has %d bytes, %d are expected: %w", have, size, frame.ErrDamaged)
	}
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return err
	}
	if digest.Digest(h.Sum(nil)) != want {
		return fmt.Errorf("it does not match its name: %w", frame.ErrDamaged)
	}
	return nil
}

// isMissing reports whether an object is certainly missing.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
