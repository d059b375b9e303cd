package core

import "context"

// UpkeepNow is what happens each hour.
func (c *Core) UpkeepNow(ctx context.Context) { c.upkeep(ctx) }
