package bucket

import (
	"context"
	"errors"
	"time"

	"nightferry/internal/durable"
)

const (
	lockPollMin = time.Millisecond
	lockPollMax = 50 * time.Millisecond
)

// lock takes the store's lock file. It first waits for this process's turn, so that its own goroutines queue up
// without polling. Then it locks the file, which another process holds only for a check and a rename.
func (d *dirStore) lock(ctx context.Context) (func() error, error) {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		unlock, err := durable.Lock(d.root, lockName)
		if err == nil {
			return func() error {
				defer func() { d.turn <- struct{}{} }()
				return unlock()
			}, nil
		}
		if errors.Is(err, durable.ErrBusy) {
			err = sleep(ctx, wait)
		}
		if err != nil {
			d.turn <- struct{}{}
			return nil, err
		}
	}
}
