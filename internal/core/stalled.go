package core

import (
	"fmt"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/wire"
)

// stalledAfter is how long nothing may move in a run before somebody should look.
const stalledAfter = 15 * time.Minute

// noteMovement notes that something moves in a run: it began, or has another progress than before.
func (si *sightings) noteMovement(a wire.Address, x *site, channel string, run ledger.RunID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m, ok := x.moved[channel]; ok && m.Run == run && m.At.IsZero() {
		return // its last progress arrived after its end
	}
	x.moved[channel] = query.Movement{Run: run, At: si.o.Now()}
	si.notices.incidents.Resolve(kinds.Stalled, channel, a)
}

// endMovement notes that a run has ended.
func (n *notices) endMovement(x *site, run *ledger.Run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.moved[run.Channel] = query.Movement{Run: run.ID}
	n.incidents.Resolve(kinds.Stalled, run.Channel, wire.Address{Domain: run.Domain, Site: run.Site})
}

// stalled returns the runs of a locked site in which nothing moves although they do not wait and the site is connected: a share
// that hangs, for instance, holds the agent's calls and gives no error.
func (s *sites) stalled(x *site) map[string]query.Movement {
	if !s.heardLately(x) || x.local != nil {
		return nil
	}
	var out map[string]query.Movement
	for channel, m := range x.moved {
		if _, waits := x.waits[channel]; waits || m.At.IsZero() || s.now().Sub(m.At) <= stalledAfter {
			continue
		}
		if out == nil {
			out = map[string]query.Movement{}
		}
		out[channel] = m
	}
	return out
}

// raiseStalled opens an incident for each such run.
func (si *sightings) raiseStalled(a wire.Address, x *site) {
	for channel, m := range si.fleet.stalled(x) {
		si.notices.incidents.Raise(kinds.Stalled, channel, a, fmt.Sprintf("site %s: nothing has moved in run %s of channel %s for %s: look at the disk or the share of its target, and at its line to the store",
			a.Site, m.Run.String()[:8], channel, si.o.Now().Sub(m.At).Round(time.Minute)))
	}
}
