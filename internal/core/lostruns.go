package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// lostAfter is how long a run may be under way at a site that is not heard.
const lostAfter = 14 * 24 * time.Hour

// endLostRuns ends the runs of which no more can come: their site is gone, or
// was replaced, or has lost its memory, or is silent for long. If a site is alive
// after all, its last word counts.
func (wt *watch) endLostRuns(ctx context.Context) error {
	open, err := wt.ledger.Runs(ctx, ledger.RunFilter{Open: true, Limit: 100_000})
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range open {
		if r.Site == "" {
			continue
		}
		why, err := wt.whyLost(ctx, &r)
		if err != nil {
			errs = append(errs, err)
		}
		if why == "" {
			continue
		}
		_, err = wt.ledger.Append(ctx, r.Domain, r.Site, []ledger.Event{{Run: r.ID, Channel: r.Channel, At: wt.clock.wallTime(), Finish: &ledger.Finish{State: runs.Failed, Cause: why}}})
		if err != nil {
			errs = append(errs, fmt.Errorf("end run %s: %w", r.ID, err))
			continue
		}
		if run, err := wt.ledger.Run(ctx, r.ID); err == nil {
			if x := wt.fleet.findSite(wire.Address{Domain: r.Domain, Site: r.Site}); x != nil {
				wt.notices.endMovement(x, &run)
			}
			wt.notices.emitEvent(Event{Kind: RunEnded, Domain: r.Domain, Site: r.Site, Channel: r.Channel, Run: r.ID.String(), Text: string(run.State), Ended: &run})
		}
		wt.ended()
	}
	return errors.Join(errs...)
}

// whyLost returns why no more can come of an open run; empty: it can.
func (wt *watch) whyLost(ctx context.Context, r *ledger.Run) (string, error) {
	s := wt.settings.Load().Fleet.Site(r.Site)
	x := wt.fleet.findSite(wire.Address{Domain: r.Domain, Site: r.Site})
	if s == nil || s.Domain != r.Domain || x == nil {
		return "the site is configured no more", nil
	}
	last, err := wt.ledger.Runs(ctx, ledger.RunFilter{Domain: r.Domain, Site: r.Site, Channel: r.Channel, Limit: 1})
	if err != nil {
		return "", err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.identity == nil:
		return "the site was revoked while it ran", nil
	case r.Started.Before(x.identity.Enrolled):
		return "another agent has taken the site's place", nil
	case len(last) > 0 && last[0].ID != r.ID && last[0].Started.After(r.Started):
		return "a later run of the channel has begun: the site has lost its memory of this one", nil
	case s.Placement(r.Channel) == nil:
		return "the channel is no longer one of the site's", nil
	case wt.clock.wallTime().Sub(r.Started) > lostAfter && !wt.fleet.heardLately(x) && wt.now().Sub(x.seen) > lostAfter:
		return "no message from the site for " + lostAfter.String(), nil
	}
	if _, heard := x.moved[r.Channel]; !heard { // since the start of this Core
		x.moved[r.Channel] = query.Movement{Run: r.ID, At: wt.now()}
	}
	return "", nil
}
