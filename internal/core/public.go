package core

import (
	"net/url"
	"slices"
	"time"

	"nightferry/internal/wire"
)

// namesFile keeps, below the Core's state, the host names of all addresses that
// sites were ever given. A site that was away when the address changed comes
// back by a former name: the bus's certificate has to have it.
const namesFile = "names.json"

// maxNames bounds the former names in the certificate.
const maxNames = 64

// publicURLs are the addresses that the configuration gives sites to dial; none:
// the listeners' own.
func (c *Core) publicURLs() []string {
	if c.o.Cluster != nil {
		return c.o.Cluster.URLs
	}
	return c.settings.Load().URLs
}

// publicNames returns the host names of the public addresses, now and before.
func (c *Core) publicNames() []string {
	var before, names []string
	if err := (jsonFile{c.storage.state, namesFile, 1 << 20}).load(&before); err != nil {
		c.notices.Trouble("names", err)
	}
	for _, u := range c.publicURLs() {
		if p, err := url.Parse(u); err == nil && p.Hostname() != "" && !slices.Contains(names, p.Hostname()) {
			names = append(names, p.Hostname())
		}
	}
	for _, n := range before {
		if !slices.Contains(names, n) && len(names) < maxNames {
			names = append(names, n)
		}
	}
	if slices.Equal(names, before) {
		return names
	}
	if err := (jsonFile{c.storage.state, namesFile, 1 << 20}).save(names); err != nil {
		c.notices.Trouble("names", err)
	}
	return names
}

// Unmoved returns the enrolled sites that have not confirmed their newest desired
// state, and with it the Core's present addresses: they know the former ones
// only. It waits for connected sites, at most so long.
func (c *Core) Unmoved(wait time.Duration) []string {
	list := func() (all []string, connected bool) {
		c.fleet.each(func(a wire.Address, x *site) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.identity != nil && x.sighting.Revision < c.desired.Of(a).Revision {
				all = append(all, a.Site)
				connected = connected || c.fleet.heard(x)
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
