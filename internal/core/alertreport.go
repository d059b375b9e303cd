package core

import (
	"context"
	"time"

	"nightferry/internal/alert"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// night is what a report looks back on.
const night = 24 * time.Hour

// morningReport tells how a region's last night was.
func (nt *Notifier) morningReport(ctx context.Context, region string, now time.Time) (*alert.Report, error) {
	sites, err := nt.query.Sites(ctx, fleet.Scope{Region: region})
	if err != nil {
		return nil, err
	}
	list, err := nt.runs.Runs(ctx, ledger.RunFilter{Since: now.Add(-night), Limit: 100_000})
	if err != nil {
		return nil, err
	}
	open, err := nt.incidents.List(ctx, false)
	if err != nil {
		return nil, err
	}
	r := &alert.Report{Region: region, From: now.Add(-night), Until: now, Sites: []alert.SiteLine{}, Missed: []alert.Missed{}, Forecast: []alert.Coming{}}
	lines := map[wire.Address]int{}
	for i := range sites {
		s := &sites[i]
		lines[wire.Address{Domain: s.Domain, Site: s.Site}] = len(r.Sites)
		l := alert.SiteLine{Domain: s.Domain, Site: s.Site}
		for _, ch := range s.Channels {
			if ch.Wants == 0 {
				continue // nothing was published
			}
			l.Channels++
			if ch.State == "current" {
				l.Verified++
			}
		}
		r.Sites = append(r.Sites, l)
	}
	plan, err := nt.query.Plan(ctx, query.PlanRequest{Scope: fleet.Scope{Region: region}})
	if err != nil {
		return nil, err
	}
	for _, p := range plan.Items {
		r.Forecast = append(r.Forecast, alert.Coming{Domain: p.Domain, Site: p.Site, Channel: p.Channel, Release: p.Release, Bytes: p.Bytes, Start: p.Start, End: p.End, Nights: p.Nights, Halted: p.Halted})
	}
	newest := map[query.Row]bool{}
	for i := range list { // the newest first
		run := &list[i]
		at := wire.Address{Domain: run.Domain, Site: run.Site}
		n, ok := lines[at]
		if !ok || run.DryRun || run.Finished.IsZero() {
			continue
		}
		l := &r.Sites[n]
		l.Runs++
		t := &run.Totals
		l.Files += t.Added + t.Changed + t.Moved + t.Repaired + t.Deleted
		l.Bytes += t.Fetched
		// A night is missed when its last run did not come to a good end.
		key := query.Row{Address: at, Channel: run.Channel}
		if !newest[key] && run.State != runs.Verified {
			r.Missed = append(r.Missed, alert.Missed{Domain: run.Domain, Site: run.Site, Channel: run.Channel, At: run.Finished, State: string(run.State), Cause: run.Cause})
		}
		newest[key] = true
	}
	for i := range open {
		x := nt.alertIncident(open[i])
		for _, m := range x.Members {
			if m.Region == region && m.Left.IsZero() {
				r.Incidents++
				break
			}
		}
	}
	return r, nil
}
