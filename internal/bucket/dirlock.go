package bucket

import (
	"context"
)

// lock takes the store's lock file, in this process and among all others.
func (d *dirStore) lock(ctx context.Context) (func() error, error) {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return func() error { d.turn <- struct{}{}; return nil }, nil
}
