package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"nightferry/internal/bucket"
)

// readGood reads a whole object of at most max bytes and hands it to accept.
// One that accept refuses is read again: if the line has damaged it, the next
// reading is another; if it comes the same, that is how it is stored, and
// accept's error stands.
func (r *Repo) readGood(ctx context.Context, key string, max int64, accept func(b []byte, info bucket.Info) error) error {
	var before []byte
	for try := 1; ; try++ {
		b, info, err := read(ctx, r.store, key, max)
		if err != nil {
			return err
		}
		err = accept(b, info)
		// What is older than seen before is intact: it was put back.
		if err == nil || errors.Is(err, ErrOlder) || try == maxTries || try > 1 && bytes.Equal(b, before) {
			return err
		}
		r.tellRetry(fmt.Errorf("%s arrived damaged (%w), reading it again", key, err))
		before = b
	}
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
		r.tellRetry(fmt.Errorf("%s arrived damaged (%w), reading it again", key, err))
		before = b
	}
}

func (r *Repo) tellRetry(err error) {
	if r.onRetry != nil {
		r.onRetry(err)
	}
}
