package core

import (
	"slices"
	"time"

	"nightferry/internal/wire"
)

// Unmoved returns the enrolled sites that have not confirmed their newest desired
// state, and with it the Core's present addresses: they know the former ones
// only. It waits for connected sites, at most so long.
func (c *Core) Unmoved(wait time.Duration) []string {
	list := func() (all []string, connected bool) {
		c.fleet.eachSite(func(a wire.Address, x *site) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.identity != nil && x.sighting.Revision < c.desired.Of(a).Revision {
				all = append(all, a.Site)
				connected = connected || c.fleet.heardLately(x)
			}
		})
		slices.Sort(all)
		return all, connected
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, connected := list()
		if !connected {
			return all
		}
		select {
		case <-end.C:
			return all
		case <-tick.C:
		}
	}
}
