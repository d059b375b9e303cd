package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/rights"
	"nightferry/internal/tasks"
)

// maxLimited bounds the records that are read for a principal with a region, of which the ledger knows nothing.
const maxLimited = 100_000

type guardedFleet struct {
	next Fleet
	*guard
}

func (g guardedFleet) Status(ctx context.Context) (*query.Status, error) {
	if err := g.mayAll(ctx, rights.Viewer, "status"); err != nil {
		return nil, err
	}
	return g.next.Status(ctx)
}

func (g guardedFleet) Sites(ctx context.Context, q fleet.Scope) ([]query.SiteStatus, error) {
	q, err := g.narrow(ctx, "sites", q)
	if err != nil {
		return nil, err
	}
	list, err := g.next.Sites(ctx, q)
	return list, hidden(ctx, err)
}

func (g guardedFleet) Why(ctx context.Context, q fleet.Scope) ([]query.Reason, error) {
	q, err := g.narrow(ctx, "why", q)
	if err != nil {
		return nil, err
	}
	list, err := g.next.Why(ctx, q)
	return seenBy(ctx, g.guard, list, func(r *query.Reason) (string, string) { return r.Domain, r.Site }), hidden(ctx, err)
}

func (g guardedFleet) Where(ctx context.Context, channel, path string) ([]query.Place, error) {
	if err := g.may(ctx, rights.Viewer, "where", true); err != nil {
		return nil, err
	}
	list, err := g.next.Where(ctx, channel, path)
	return seenBy(ctx, g.guard, list, func(p *query.Place) (string, string) { return p.Domain, p.Site }), err
}

// Incidents shows of an incident that sites share only the part of those that the principal may see.
func (g guardedFleet) Incidents(ctx context.Context, all bool) ([]query.Incident, error) {
	if err := g.may(ctx, rights.Viewer, "incidents", true); err != nil {
		return nil, err
	}
	list, err := g.next.Incidents(ctx, all)
	if rights.Of(ctx).Scope.All() {
		return list, err
	}
	var out []query.Incident
	for _, i := range list {
		was := len(i.Members)
		i.Members = seenBy(ctx, g.guard, i.Members, func(m *ledger.Member) (string, string) { return m.Domain, m.Site })
		if len(i.Members) == 0 {
			continue
		}
		if len(i.Members) < was { // the text, the key and what operators wrote may name another site
			own := i.Members[0]
			i.Text, i.Key, i.Scope, i.Closed, i.Acked, i.Count = own.Text, i.Kind, rights.Of(ctx).Scope.String(), "", "", own.Count
		}
		out = append(out, i)
	}
	return out, err
}

type guardedRecords struct {
	next Records
	*guard
}

func (g guardedRecords) Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	q, err := g.narrow(ctx, "runs", fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
	if err != nil {
		return nil, err
	}
	if rights.Of(ctx).Scope.All() {
		return g.next.Runs(ctx, f)
	}
	most := f.Limit
	if most == 0 {
		most = 1000
	}
	f.Domain = q.Domain
	if q.Region != "" {
		f.Limit = maxLimited
	}
	list, err := g.next.Runs(ctx, f)
	list = seenBy(ctx, g.guard, list, func(r *ledger.Run) (string, string) { return r.Domain, r.Site })
	return list[:min(len(list), most)], err
}

// RunShow answers for a run that the principal may not see as for one that does not exist.
func (g guardedRecords) RunShow(ctx context.Context, id string, all bool, begin func(query.RunDetail) error, fn func(record.File) error) error {
	if err := g.may(ctx, rights.Viewer, "run", true); err != nil {
		return err
	}
	return g.next.RunShow(ctx, id, all, func(d query.RunDetail) error {
		if !g.sees(ctx, d.Domain, d.Site) {
			return fmt.Errorf("run %q: %w", id, ledger.ErrNotFound)
		}
		return begin(d)
	}, fn)
}

func (g guardedRecords) FailingFiles(ctx context.Context, q fleet.Scope, limit int) ([]ledger.Exception, error) {
	q, err := g.narrow(ctx, "exceptions", q)
	if err != nil {
		return nil, err
	}
	list, err := g.next.FailingFiles(ctx, q, limit)
	return list, hidden(ctx, err)
}

func (g guardedRecords) Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error) {
	if err := g.mayAll(ctx, rights.Viewer, "audit"); err != nil {
		return nil, err
	}
	return g.next.Deeds(ctx, f)
}

func (g guardedRecords) Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error {
	q, err := g.narrowAs(ctx, rights.Logs, "logs", fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
	if err != nil {
		return err
	}
	f.Domain = q.Domain
	return g.next.Logs(ctx, f, func(l record.Log) error {
		if !g.sees(ctx, l.Domain, l.Site) {
			return nil
		}
		return fn(l)
	})
}

type guardedLogFiles struct {
	next LogFiles
	*guard
}

// OpenLog answers for a log that the principal may not see as for one that does not exist.
func (g guardedLogFiles) OpenLog(ctx context.Context, id string) (*ledger.Run, io.ReadSeekCloser, error) {
	if err := g.may(ctx, rights.Logs, "log", true); err != nil {
		return nil, nil, err
	}
	run, f, err := g.next.OpenLog(ctx, id)
	if run == nil || g.sees(ctx, run.Domain, run.Site) {
		return run, f, err
	}
	if f != nil {
		err = f.Close()
	}
	return nil, nil, errors.Join(fmt.Errorf("run %q: %w", id, ledger.ErrNotFound), err)
}

type guardedForecast struct {
	next Forecast
	*guard
}

func (g guardedForecast) Plan(ctx context.Context, r query.PlanRequest) (*query.NightPlan, error) {
	q, err := g.narrow(ctx, "plan", r.Scope)
	if err != nil {
		return nil, err
	}
	r.Scope = q
	p, err := g.next.Plan(ctx, r)
	return p, hidden(ctx, err)
}

func (g guardedForecast) Windows(ctx context.Context, r query.WindowsRequest) ([]query.Opening, error) {
	q, err := g.narrow(ctx, "windows", r.Scope)
	if err != nil {
		return nil, err
	}
	r.Scope = q
	list, err := g.next.Windows(ctx, r)
	return list, hidden(ctx, err)
}

type guardedEvents struct {
	next Events
	*guard
}

// Follow leaves out events of other sites, without a trace.
func (g guardedEvents) Follow(ctx context.Context, after string, send func(*EventLine) error) error {
	if err := g.may(ctx, rights.Viewer, "events", true); err != nil {
		return err
	}
	return g.next.Follow(ctx, after, func(l *EventLine) error {
		if l.Event != nil && !g.sees(ctx, l.Event.Domain, l.Event.Site) {
			return nil
		}
		return send(l)
	})
}

type guardedProcess struct {
	Process // LogsDir needs no right: it is a part of answers that do
	*guard
}

func (g guardedProcess) Health(ctx context.Context) (core.Health, error) {
	if err := g.may(ctx, rights.Viewer, "health", true); err != nil {
		return core.Health{}, err
	}
	h, err := g.Process.Health(ctx)
	if !rights.Of(ctx).Scope.All() {
		h.Reasons = []string{} // they may name any site
	}
	return h, err
}

func (g guardedProcess) Tasks(ctx context.Context) ([]tasks.Status, error) {
	if err := g.mayAll(ctx, rights.Viewer, "tasks"); err != nil {
		return nil, err
	}
	return g.Process.Tasks(ctx)
}

func (g guardedProcess) Reload(ctx context.Context) (Reloaded, error) {
	if err := g.mayAll(ctx, rights.Admin, "reload"); err != nil {
		return Reloaded{}, err
	}
	return g.Process.Reload(ctx)
}

func (g guardedProcess) Held(ctx context.Context) (*Held, error) {
	if err := g.mayAll(ctx, rights.Viewer, "held"); err != nil {
		return nil, err
	}
	return g.Process.Held(ctx)
}
