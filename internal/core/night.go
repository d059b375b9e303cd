package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/wire"
)

// LimitRequest bounds how fast sites move, from now on.
type LimitRequest struct {
	Scope fleet.Scope    `json:"scope"`       // without a channel
	Rate  string         `json:"rate"`        // a rate, 0, unlimited or a timetable; empty: the configuration's counts again
	For   ledger.Seconds `json:"for_seconds"` // 0: until it is lifted
}

// Limited is one site's answer to a LimitRequest.
type Limited struct {
	Domain    string    `json:"domain"`
	Site      string    `json:"site"`
	Rate      string    `json:"rate"` // the timetable in force
	Until     time.Time `json:"until,omitzero"`
	Connected bool      `json:"connected"` // false: it obeys when it comes back
}

// maxLimit bounds how long a limit may last.
const maxLimit = 366 * 24 * time.Hour

// Limit changes how fast sites move. Those that are moving follow at once.
func (q *Orders) Limit(ctx context.Context, r LimitRequest) ([]Limited, error) {
	if err := q.acts(); err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	if r.Scope.Channel != "" {
		return nil, errors.New("limit: a limit is a site's: leave the channel out")
	}
	life := time.Duration(r.For)
	if life < 0 || life > maxLimit {
		return nil, fmt.Errorf("limit: %v: want a time up to %v, or none", life, maxLimit)
	}
	list, err := q.settings.Load().Fleet.Select(r.Scope)
	if err != nil {
		return nil, err
	}
	var limit desired.Limit
	if r.Rate != "" {
		t, err := nights.ParseLimit(r.Rate)
		if err != nil {
			return nil, fmt.Errorf("limit: %w", err)
		}
		limit.Timetable = t.String()
		if life > 0 {
			limit.Until = q.clock.wallTime().Add(life).Unix()
		}
	}
	ch := desired.Change{Limits: map[wire.Address]desired.Limit{}}
	for _, s := range list {
		ch.Only = append(ch.Only, s.Name)
		ch.Limits[wire.Address{Domain: s.Domain, Site: s.Name}] = limit
	}
	if len(list) == 0 {
		return nil, errors.New("limit: there is no such site")
	}
	what := r.Rate // as it was written
	if what == "" {
		what = "the configuration's"
	}
	if limit.Until != 0 {
		what += " until " + unixTime(limit.Until).Format(time.RFC3339)
	}
	if err := q.notices.Audit(ctx, "limit", r.Scope.String(), what); err != nil {
		return nil, err
	}
	if err := q.updateDesired(ctx, ch); err != nil {
		return nil, err
	}
	var out []Limited
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		st := q.desired.Of(a)
		l := Limited{Domain: s.Domain, Site: s.Name, Rate: st.Limit, Connected: q.fleet.isConnected(a)}
		if st.LimitUntil != 0 {
			l.Until = unixTime(st.LimitUntil)
		}
		if l.Rate == "" {
			l.Rate = nights.Configured(&s)
		}
		out = append(out, l)
	}
	return out, nil
}
