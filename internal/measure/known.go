package measure

import (
	"context"
	"errors"
	"fmt"

	"nightferry/internal/ledger"
	"nightferry/internal/trust"
)

// Records reads measurements. *ledger.Measurements is one.
type Records interface {
	Of(ctx context.Context, channel string, number trust.ReleaseNumber) (ledger.Measurement, error)
}

// Known returns the measurement of a release, or nil.
func Known(ctx context.Context, r Records, channel string, number trust.ReleaseNumber) (*ledger.Measurement, error) {
	m, err := r.Of(ctx, channel, number)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// held names a release that a site holds.
type held struct {
	channel string
	number  trust.ReleaseNumber
	release trust.ReleaseDigest
}

// Cache keeps the measurements that were looked up. It is for one goroutine.
type Cache struct {
	Records Records
	all     map[held]*ledger.Measurement
}

// Of returns the measurement of the release that a site holds, or nil.
func (c *Cache) Of(ctx context.Context, h *ledger.Holding) (*ledger.Measurement, error) {
	if h.Number == 0 {
		return nil, nil
	}
	key := held{h.Channel, h.Number, h.Release}
	found, ok := c.all[key]
	if ok {
		return found, nil
	}
	found, err := Known(ctx, c.Records, h.Channel, h.Number)
	if err != nil {
		return nil, err
	}
	if found != nil && found.Release != h.Release {
		found = nil // it belongs to a restored ledger
	}
	if c.all == nil {
		c.all = map[held]*ledger.Measurement{}
	}
	c.all[key] = found
	return found, nil
}

// Contradicts returns how a site's attestation of the measured release differs from the Core's
// measurement. If m is nil, nothing is known and it returns nil.
func Contradicts(m *ledger.Measurement, h *ledger.Holding) error {
	if m == nil || h.Number != m.Number || h.Release != m.Release || h.Files < 0 {
		return nil
	}
	if h.Files == m.Files && h.Bytes == m.Bytes && h.Tree == m.Tree {
		return nil
	}
	err := fmt.Errorf("it attests %d files, %d bytes, tree %s of release %d, and the Core has measured %d, %d, %s", h.Files, h.Bytes, h.Tree.Short(), m.Number, m.Files, m.Bytes, m.Tree.Short())
	if not := m.Moved + m.Damaged + m.Unreadable; not > 0 {
		err = fmt.Errorf("%w (%d paths of the source are no longer as published and count as the release says)", err, not)
	}
	return err
}
