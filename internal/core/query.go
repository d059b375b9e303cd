package core

import (
	"strings"

	"nightferry/internal/halt"
	"nightferry/internal/query"
	"nightferry/internal/wire"
)

// newQuery makes the service that answers questions.
func (c *Core) newQuery() *query.Service {
	store, _, _ := strings.Cut(c.o.StoreURL, "?")
	return query.New(query.Options{
		Runs: c.ledger, Proofs: c.ledger, Records: c.ledger, Measured: &c.ledger.Measurements, Incidents: c.incidents, Sites: &c.fleet, Newest: c.newest,
		Logs: c.logs, RunLog: c.renderer, Releases: c.releases,
		World: func() query.World {
			s := c.settings.Load()
			return query.World{Fleet: s.Fleet, Nights: s.nights, Prices: s.Prices, Currency: s.Currency}
		},
		Wanted: func(a wire.Address) query.Wanted {
			st := c.desired.Of(a)
			return query.Wanted{Revision: st.Revision, Limit: st.Limit, LimitUntil: st.LimitUntil}
		},
		Halts: func() *halt.Orders { return c.Halts.service.Current().Orders },
		Core: func() query.Self {
			s := query.Self{Version: c.o.Version, Repo: c.storage.repo.Load().ID().String(), Store: store, Rehearsal: c.clock.rehearsalView()}
			s.StoreRead, s.Unread = c.watching.looked.lastLook()
			return s
		},
		Now: c.clock.now, Wall: c.clock.wallTime,
	})
}
