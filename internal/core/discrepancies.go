package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

const (
	// pathsTold is how many paths an incident names; the run's log has all of them.
	pathsTold = 20
	// staleAfter is when a missing release is late if no window determines that.
	staleAfter = 24 * time.Hour
	// movingFor is how long a release may take if its content moves every night.
	movingFor = 7 * 24 * time.Hour
)

// discrepancy opens an incident for a run that found differences at a site, even if the run
// repaired them. The incident opens in the transaction that commits the run's end.
func (t *translator) discrepancy(e *ledger.Event, v *wire.Finished) {
	n := v.Repaired + v.Differs
	anew := t.anew(e, v)
	if n+anew == 0 && v.Verdict != runs.Different {
		return
	}
	said := slices.Clone(t.differing[e.Run])
	if int64(len(said)) < min(n, pathsTold) {
		// An earlier message of the run has named them.
		old, err := t.core.ledger.Exceptions(t.ctx, ledger.Filter{Domain: t.at.Domain, Site: t.at.Site, Channel: e.Channel, Run: e.Run, Limit: 10 * pathsTold})
		if err == nil {
			for _, x := range old {
				if x.Outcome == wire.Repaired.String() || x.Outcome == wire.Differs.String() {
					said = append(said, named(x))
				}
			}
		}
	}
	slices.Sort(said)
	said = slices.Compact(said)
	said = said[:min(len(said), pathsTold)]
	what := fmt.Sprintf("%d paths are", n)
	if n == 1 {
		what = "1 path is"
	}
	text := fmt.Sprintf("site %s, channel %s: %s not as release %d says", t.at.Site, e.Channel, what, t.run(e.Run).Number)
	switch {
	case n+anew == 0:
		text = fmt.Sprintf("site %s, channel %s: %s", t.at.Site, e.Channel, clip(v.Error))
	case n == 0:
		text = fmt.Sprintf("site %s, channel %s: the record of what was put there was gone, and %d files and folders of release %d were put there anew", t.at.Site, e.Channel, anew, t.run(e.Run).Number)
	}
	if len(said) > 0 {
		text += ": " + strings.Join(said, "; ")
		if more := n - int64(len(said)); more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
	}
	switch v.Verdict {
	case runs.Verified:
		text += ". All were repaired, and are verified again"
	case runs.Different:
		text += fmt.Sprintf(". Nothing was repaired: nightferry verify --site %s --channel %s --repair", t.at.Site, e.Channel)
	default:
		text += ". The run did not end verified: the next one goes on"
	}
	t.opens(e, Discrepancy, e.Channel, text)
}

// anew counts files that a run placed again although they should have been there. An emptied folder
// has lost its record, too.
func (t *translator) anew(e *ledger.Event, v *wire.Finished) int64 {
	parent, ok := t.parents[e.Run]
	if !ok {
		if r, err := t.core.ledger.Run(t.ctx, e.Run); err == nil && !r.DryRun {
			parent = r.Parent
		}
	}
	if parent == 0 || parent != t.run(e.Run).Number {
		return 0
	}
	return v.Added + v.Changed
}

// notedDifference keeps the first paths that a run reports as different.
func (t *translator) notedDifference(run ledger.RunID, x ledger.Exception) {
	if len(t.differing[run]) >= pathsTold {
		return
	}
	if t.differing == nil {
		t.differing = map[ledger.RunID][]string{}
	}
	t.differing[run] = append(t.differing[run], named(x))
}

// maxTold bounds an incident's text about one path, in bytes.
const maxTold = 200

func named(x ledger.Exception) string {
	if x.Cause == "" {
		return bound(x.Path, maxTold)
	}
	return bound(x.Path, maxTold) + " (" + bound(x.Cause, maxTold) + ")"
}

// VerifyRequest asks sites to compare their files with their release now.
type VerifyRequest struct {
	Scope  fleet.Scope `json:"scope"`
	Full   bool        `json:"full"`   // read every byte
	Repair bool        `json:"repair"` // fetch what differs
}

// Verify requests that sites check now, even if no window is open. Without Repair they change
// nothing.
func (c *Core) Verify(ctx context.Context, r VerifyRequest) ([]Order, error) {
	o := desired.Request{Now: true, Verify: true}
	switch {
	case r.Repair:
		o.Rehash = r.Full
	case r.Full:
		o.Check = wire.CheckFull
	default:
		o.Check = wire.CheckQuick
	}
	return c.request(ctx, "verify", r.Scope, o, fmt.Sprintf("full %t, repair %t", r.Full, r.Repair))
}

// noteStale opens an incident for each site that lacks a release after the window in which it
// should have arrived. It closes the incident when the release arrives. It ignores channels and
// sites that are no longer configured.
func (c *Core) noteStale(ctx context.Context) error {
	err := c.noteStaleOnce(ctx)
	if err != nil && ctx.Err() == nil {
		c.notices.LedgerFailed(err)
	}
	return err
}

func (c *Core) noteStaleOnce(ctx context.Context) error {
	s, now := c.settings.Load(), c.clock.wall()
	held, err := c.holdings(ctx, ledger.Filter{})
	if err != nil {
		return err
	}
	for i := range s.Fleet.Sites {
		site := &s.Fleet.Sites[i]
		a := wire.Address{Domain: site.Domain, Site: site.Name}
		x := c.fleet.find(a)
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
			rel, published := c.newest.of(p.Channel)
			if !published {
				continue
			}
			h := held[rowKey{a, p.Channel}]
			if h.Number == rel.Number && h.Release == rel.Digest {
				c.alarms.Over(Stale, p.Channel, a)
				continue
			}
			since := rel.Published
			if id.Enrolled.After(since) {
				since = id.Enrolled
			}
			why := fmt.Sprintf("published %s", rel.Published.UTC().Format("2006-01-02 15:04 MST"))
			if rule, ok := s.nights.Rule(site.Name, p.Channel); ok {
				text, late := overdue(now, since, c.clock.missedAfter(), s.nights.Place(site.Name), rule)
				if !late {
					continue
				}
				why += ", and its window " + text
			} else if now.Sub(since) < staleAfter {
				continue
			}
			moving, last, err := c.lastOf(ctx, a, p.Channel)
			if err != nil {
				return err
			}
			if moving && now.Sub(since) < movingFor {
				continue // it takes more than one night
			}
			c.alarms.Raise(Stale, p.Channel, a, fmt.Sprintf("site %s, channel %s: it holds %s, not release %d: %s%s; nightferry sync --site %s --now does not wait for the next", a.Site, p.Channel, releaseOr(h.Number), rel.Number, why, last, a.Site))
		}
	}
	c.sweepIncidents()
	return nil
}

// overdue reports whether a release that a site could begin with at a time should
// have come by now, because a window that began later has closed, or has been open
// for as long as is enough where there are no windows; and which.
func overdue(now, since time.Time, after time.Duration, at window.Place, r window.Rule) (which string, late bool) {
	const form = "2006-01-02 15:04 MST"
	if w, open := window.Open(now, at, r); open && now.Sub(w.Start) >= staleAfter && now.Sub(since) >= staleAfter {
		return "has been open since " + w.Start.Format(form), true
	}
	if w, ended := lastEnded(now, after, at, r); ended && since.Before(w.Start) {
		return "has closed at " + w.End.Format(form), true
	}
	return "", false
}

func releaseOr(n uint64) string {
	if n == 0 {
		return "no release"
	}
	return fmt.Sprintf("release %d", n)
}

// lastOf returns how a site's last run of a channel ended, and whether it moved content without
// completing.
func (c *Core) lastOf(ctx context.Context, a wire.Address, channel string) (moving bool, text string, err error) {
	list, err := c.ledger.Runs(ctx, ledger.RunFilter{Domain: a.Domain, Site: a.Site, Channel: channel, Limit: 1})
	if err != nil || len(list) == 0 {
		return false, "; it told of no run", err
	}
	r := &list[0]
	if r.Finished.IsZero() {
		return true, "", nil
	}
	text = "; its last run ended " + string(r.State)
	if r.Cause != "" {
		text += " (" + clip(r.Cause) + ")"
	}
	return r.State == runs.Stopped && r.Totals.Fetched > 0, text, nil
}
