package desired

import (
	"bytes"
	"math"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// planned is the result of plan.
type planned struct {
	change  ledger.DesiredChange
	touched map[wire.Address]bool
	states  map[wire.Address]*wire.State
}

// makePlan compares the desired states of sites with the stored rows.
func makePlan(w *World, sites []*fleet.Site, stored *ledger.DesiredState, c *Change, start uint64) (*planned, error) {
	p := &planned{touched: map[wire.Address]bool{}, states: map[wire.Address]*wire.State{}}
	have := make(map[Key]*ledger.Desired, len(stored.Rows))
	for i := range stored.Rows {
		d := &stored.Rows[i]
		have[Key{wire.Address{Domain: d.Domain, Site: d.Site}, d.Channel}] = d
	}
	for _, s := range sites {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		st := w.siteState(s, p.planLimit(w, a, stored, c))
		p.states[a] = st
		site, err := wire.Encode(st)
		if err != nil {
			return nil, err
		}
		for i := range s.Placements {
			k := Key{a, s.Placements[i].Channel}
			old := have[k]
			delete(have, k)
			row, want, err := w.desiredRow(k, &s.Placements[i], old, c, start, site)
			if err != nil {
				return nil, err
			}
			st.Desired = append(st.Desired, *want)
			if old == nil || !sameRow(old, row) {
				p.change.Set = append(p.change.Set, *row)
				p.touched[a] = true
			}
		}
	}
	for k := range have {
		p.change.Drop = append(p.change.Drop, ledger.DesiredKey{Domain: k.Domain, Site: k.Site, Channel: k.Channel})
		p.touched[k.Address] = true
	}
	return p, nil
}

// planLimit returns the limit in force at a site, and records its changes.
func (p *planned) planLimit(w *World, a wire.Address, stored *ledger.DesiredState, c *Change) Limit {
	key := ledger.SiteKey{Domain: a.Domain, Site: a.Site}
	old, has := stored.Limits[key]
	now := Limit(old)
	if l, ok := c.Limits[a]; ok {
		now = l
	}
	if now.Until != 0 && w.Now >= now.Until {
		now = Limit{}
	}
	if now != Limit(old) || has && now.Timetable == "" {
		if p.change.Limits == nil {
			p.change.Limits = map[ledger.SiteKey]ledger.Limit{}
		}
		p.change.Limits[key] = ledger.Limit(now)
	}
	return now
}

// siteState returns a site's State without its channels.
func (w *World) siteState(s *fleet.Site, l Limit) *wire.State {
	st := &wire.State{Beat: uint32(w.Beat / time.Second), Rate: s.Rate, Zone: s.Zone, Rates: s.Rates, Limit: l.Timetable, LimitUntil: l.Until,
		Region: s.Region, Rehearsal: w.Rehearsal, Core: w.Core}
	if s.Latitude != nil && s.Longitude != nil {
		st.Where = []int64{int64(math.Round(*s.Latitude * 1e6)), int64(math.Round(*s.Longitude * 1e6))}
	}
	return st
}

// desiredRow returns the desired state of a channel at a site. site is the site's
// encoded State without channels. A change of it changes each of the site's
// rows, so that they get a new revision.
func (w *World) desiredRow(k Key, p *fleet.Placement, old *ledger.Desired, c *Change, start uint64, site []byte) (*ledger.Desired, *wire.Desired, error) {
	rel, _ := w.Release(k.Channel)
	row := &ledger.Desired{Domain: k.Domain, Site: k.Site, Channel: k.Channel, Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, By: c.By}
	if old != nil {
		row.Start, row.DryRun, row.Mode = old.Start, old.DryRun, old.Mode
		if old.Number != 0 && old.Number != row.Number {
			row.Mode &^= modeNow // it was for the release of that time; this one waits for its window
		}
	}
	if n, ok := c.Withdraw[k]; ok && row.Start == n {
		row.Start, row.DryRun, row.Mode = 0, false, 0
	}
	if r, ok := c.Requests[k]; ok && (!r.Automatic || row.Start <= r.Obeyed) {
		row.Start, row.DryRun, row.Mode = start, r.DryRun, r.modeBits()
	}
	row.Nonce = w.Nonce(k, row.Number, row.Start)
	r := requestOf(row)
	d := &wire.Desired{
		Channel: k.Channel, Number: row.Number, Release: row.Release, Target: p.Target,
		Nonce: row.Nonce[:], Start: row.Start, DryRun: r.DryRun, Rehash: r.Rehash, Now: r.Now, Bytes: rel.Bytes,
		Check: r.Check, Verify: r.Verify, Adopt: r.Adopt, Policy: p.Policy,
	}
	body, err := wire.Encode(d)
	row.Body = append(body, site...)
	return row, d, err
}

// sameRow reports whether two rows mean the same to a site.
func sameRow(a, b *ledger.Desired) bool {
	return a.Number == b.Number && a.Release == b.Release && a.Tree == b.Tree && a.Nonce == b.Nonce && a.Start == b.Start && a.DryRun == b.DryRun && a.Mode == b.Mode &&
		bytes.Equal(a.Body, b.Body)
}

// The bits of ledger.Desired.Mode; the check is above them.
const (
	modeRehash = 1 << iota
	modeNow
	modeVerify
	modeAdopt
	modeCheck = 8
)

func (r *Request) modeBits() (m uint32) {
	for bit, on := range map[uint32]bool{modeRehash: r.Rehash, modeNow: r.Now, modeVerify: r.Verify, modeAdopt: r.Adopt} {
		if on {
			m |= bit
		}
	}
	return m | uint32(r.Check)<<modeCheck
}

func requestOf(row *ledger.Desired) Request {
	m := row.Mode
	return Request{DryRun: row.DryRun, Rehash: m&modeRehash != 0, Now: m&modeNow != 0, Verify: m&modeVerify != 0, Adopt: m&modeAdopt != 0, Check: uint8(m >> modeCheck)}
}
