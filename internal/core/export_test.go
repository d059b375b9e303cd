package core

import "context"

// UpkeepNow is what happens each hour.
func (c *Core) UpkeepNow(ctx context.Context) { c.upkeep(ctx) }

// MergeHalts is what storeHalt makes of two sets of orders.
var MergeHalts = mergeHalts
