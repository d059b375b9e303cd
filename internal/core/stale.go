package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

const (
	// staleAfter is when a missing release is late if no window determines that.
	staleAfter = 24 * time.Hour
	// movingFor is how long a release may take if its content moves every night.
	movingFor = 7 * 24 * time.Hour
)

// noteStale opens an incident for each site that lacks a release after the window in which it
// should have arrived. It closes the incident when the release arrives. It ignores channels and
// sites that are no longer configured.
func (wt *watch) noteStale(ctx context.Context) error {
	err := wt.noteStaleOnce(ctx)
	if err != nil && ctx.Err() == nil {
		wt.notices.LedgerFailed(err)
	}
	return err
}

func (wt *watch) noteStaleOnce(ctx context.Context) error {
	s, now := wt.settings.Load(), wt.clock.wallTime()
	held, err := wt.holdings(ctx, ledger.Filter{})
	if err != nil {
		return err
	}
	for i := range s.Fleet.Sites {
		site := &s.Fleet.Sites[i]
		a := wire.Address{Domain: site.Domain, Site: site.Name}
		x := wt.fleet.findSite(a)
		if x == nil {
			continue
		}
		x.mu.Lock()
		id := x.identity
		x.mu.Unlock()
		if id == nil {
			continue
		}
		for _, p := range site.Placements {
			rel, published := wt.newest.Of(p.Channel)
			if !published {
				continue
			}
			h := held[query.Row{Address: a, Channel: p.Channel}]
			if h.Number == rel.Number && h.Release == rel.Digest {
				wt.notices.incidents.Resolve(kinds.Stale, p.Channel, a)
				continue
			}
			since := rel.Published
			if id.Enrolled.After(since) {
				since = id.Enrolled
			}
			why := fmt.Sprintf("published %s", rel.Published.UTC().Format("2006-01-02 15:04 MST"))
			if rule, ok := s.nights.Rule(site.Name, p.Channel); ok {
				text, late := isOverdue(now, since, wt.clock.missedAfter(), s.nights.Place(site.Name), rule)
				if !late {
					continue
				}
				why += ", and its window " + text
			} else if now.Sub(since) < staleAfter {
				continue
			}
			moving, last, err := wt.lastOf(ctx, a, p.Channel)
			if err != nil {
				return err
			}
			if moving && now.Sub(since) < movingFor {
				continue // it takes more than one night
			}
			wt.notices.incidents.Raise(kinds.Stale, p.Channel, a, fmt.Sprintf("site %s, channel %s: it holds %s, not release %d: %s%s; nightferry sync --site %s --now does not wait for the next", a.Site, p.Channel, releaseOr(h.Number), rel.Number, why, last, a.Site))
		}
	}
	wt.sweep()
	return nil
}

// isOverdue reports whether a release that a site could begin with at a time should
// have come by now, because a window that began later has closed, or has been open
// for as long as is enough where there are no windows; and which.
func isOverdue(now, since time.Time, after time.Duration, at window.Place, r window.Rule) (which string, late bool) {
	const form = "2006-01-02 15:04 MST"
	if w, open := window.Open(now, at, r); open && now.Sub(w.Start) >= staleAfter && now.Sub(since) >= staleAfter {
		return "has been open since " + w.Start.Format(form), true
	}
	if w, ended := lastEnded(now, after, at, r); ended && since.Before(w.Start) {
		return "has closed at " + w.End.Format(form), true
	}
	return "", false
}

func releaseOr(n trust.ReleaseNumber) string {
	if n == 0 {
		return "no release"
	}
	return fmt.Sprintf("release %d", n)
}

// lastOf returns how a site's last run of a channel ended, and whether it moved content without
// completing.
func (wt *watch) lastOf(ctx context.Context, a wire.Address, channel string) (moving bool, text string, err error) {
	list, err := wt.ledger.Runs(ctx, ledger.RunFilter{Domain: a.Domain, Site: a.Site, Channel: channel, Limit: 1})
	if err != nil || len(list) == 0 {
		return false, "; it reported no run", err
	}
	r := &list[0]
	if r.Finished.IsZero() {
		return true, "", nil
	}
	text = "; its last run ended " + string(r.State)
	if r.Cause != "" {
		text += " (" + clipText(r.Cause) + ")"
	}
	return r.State == runs.Stopped && r.Totals.Fetched > 0, text, nil
}
