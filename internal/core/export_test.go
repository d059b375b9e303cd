package core

import (
	"context"

	"nightferry/internal/digest"
	"nightferry/internal/ledger"
)

// UpkeepNow is what happens each hour.
func (c *Core) UpkeepNow(ctx context.Context) { c.upkeep(ctx) }

// MergeHalts is what storeHalt makes of two sets of orders.
var MergeHalts = mergeHalts

// PagesRead is how many pages it takes to name those entries in one report.
func (c *Core) PagesRead(ctx context.Context, channel string, number uint64, release digest.Digest, ordinals []uint64) (int, error) {
	f := finder{core: c}
	for _, n := range ordinals {
		if _, err := f.entry(ctx, releaseKey{channel, number, release}, n); err != nil {
			return f.pages, err
		}
	}
	return f.pages, nil
}

// Exceptions lists what of a run was told not to be as it should.
func (c *Core) Exceptions(ctx context.Context, id ledger.RunID) ([]ledger.Exception, error) {
	return c.ledger.Exceptions(ctx, ledger.Filter{Run: id, Limit: 1 << 20})
}
