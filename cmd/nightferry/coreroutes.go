package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
)

// routes are what the local socket answers: each a method of the Core, on
// behalf of whom the system names as the caller.
func (d *daemon) routes() []api.Route {
	type call = func(context.Context, *api.Call) (any, error)
	var all []api.Route
	add := func(pattern string, handle call) {
		all = append(all, api.Route{Pattern: pattern, Handle: func(ctx context.Context, c *api.Call) (any, error) {
			return handle(core.WithActor(ctx, c.Caller.String()), c)
		}})
	}
	add("GET /v1/health", func(ctx context.Context, _ *api.Call) (any, error) { return d.core.Health(ctx), nil })
	add("GET /v1/status", func(ctx context.Context, _ *api.Call) (any, error) { return d.core.Query.Status(ctx) })
	add("GET /v1/sites", func(ctx context.Context, c *api.Call) (any, error) { return list(d.core.Query.Sites(ctx, scopeOf(c))) })
	add("GET /v1/tasks", func(context.Context, *api.Call) (any, error) { return d.core.Tasks(), nil })
	add("GET /v1/why", func(ctx context.Context, c *api.Call) (any, error) { return list(d.core.Query.Why(ctx, scopeOf(c))) })
	add("GET /v1/incidents", func(ctx context.Context, c *api.Call) (any, error) {
		return list(d.core.Query.Incidents(ctx, c.Flag("all")))
	})
	incident := func(change func(context.Context, int64, string) (query.Incident, error)) call {
		return func(ctx context.Context, c *api.Call) (any, error) {
			var r incidentRequest
			if err := c.Read(&r); err != nil {
				return nil, err
			}
			return change(ctx, r.ID, r.Text)
		}
	}
	add("POST /v1/incidents/close", incident(d.core.CloseIncident))
	add("POST /v1/incidents/ack", incident(d.core.AckIncident))
	add("GET /v1/where", func(ctx context.Context, c *api.Call) (any, error) {
		return list(d.core.Query.Where(ctx, c.Query("channel"), c.Query("path")))
	})
	add("GET /v1/held", func(ctx context.Context, _ *api.Call) (any, error) { return d.held(ctx) })
	add("GET /v1/runs", func(ctx context.Context, c *api.Call) (any, error) {
		f, err := runFilter(c)
		if err != nil {
			return nil, err
		}
		runs, err := d.core.Query.Runs(ctx, f)
		if err == nil && len(runs) == 0 {
			err = d.known(ctx, fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
		}
		return list(runs, err)
	})
	add("GET /v1/audit", func(ctx context.Context, c *api.Call) (any, error) {
		since, until, limit, err := period(c)
		if err != nil {
			return nil, err
		}
		return list(d.core.Query.Deeds(ctx, ledger.DeedFilter{Who: c.Query("who"), What: c.Query("what"), Object: c.Query("object"), NoReads: !c.Flag("reads") && c.Query("what") == "", Since: since, Until: until, Limit: limit}))
	})
	add("GET /v1/runs/{id}", d.runShow)
	add("GET /v1/logs", d.logs)
	add("POST /v1/reload", func(ctx context.Context, _ *api.Call) (any, error) { return d.reload(ctx) })
	add("POST /v1/tokens", d.tokens)
	add("POST /v1/sites/revoke", func(ctx context.Context, c *api.Call) (any, error) {
		var r revocation
		if err := c.Read(&r); err != nil {
			return nil, err
		}
		return []string{r.Name}, d.core.Enrolment.RevokeSite(ctx, r.Name, r.Reason)
	})
	add("POST /v1/sites/confirm", func(ctx context.Context, c *api.Call) (any, error) {
		var r revocation
		if err := c.Read(&r); err != nil {
			return nil, err
		}
		return []string{r.Name}, d.core.Enrolment.Confirm(ctx, r.Name, r.Reason)
	})
	add("POST /v1/domains/revoke", func(ctx context.Context, c *api.Call) (any, error) {
		var r revocation
		if err := c.Read(&r); err != nil {
			return nil, err
		}
		return list(d.core.Enrolment.RevokeDomain(ctx, r.Name, r.Reason))
	})
	add("POST /v1/alerts/test", func(ctx context.Context, c *api.Call) (any, error) {
		var r alertRequest
		if err := c.Read(&r); err != nil {
			return nil, err
		}
		return list(d.core.Notifier.Test(ctx, r.To))
	})
	d.nightRoutes(add)
	add("POST /v1/publish", d.publish)
	add("POST /v1/sync", d.sync)
	add("POST /v1/verify", d.verify)
	add("GET /v1/halts", func(ctx context.Context, c *api.Call) (any, error) {
		return list(d.core.Halts.List(ctx, c.Flag("all")))
	})
	add("POST /v1/halt", d.halt)
	add("POST /v1/resume", d.resume)
	add("GET /v1/secrets", func(ctx context.Context, _ *api.Call) (any, error) { return list(d.core.Vault().List(ctx)) })
	for _, op := range []string{"set", "rotate"} {
		add("POST /v1/secrets/"+op, func(ctx context.Context, c *api.Call) (any, error) { return d.secret(ctx, c, op) })
	}
	return all
}

// list is an answer that is a list also when it is empty.
func list[T any](items []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return append([]T{}, items...), nil
}

func scopeOf(c *api.Call) fleet.Scope {
	return fleet.Scope{Domain: c.Query("domain"), Region: c.Query("region"), Site: c.Query("site"), Channel: c.Query("channel")}
}

// period reads since, until and limit.
func period(c *api.Call) (since, until time.Time, limit int, err error) {
	for name, t := range map[string]*time.Time{"since": &since, "until": &until} {
		if text := c.Query(name); text != "" {
			if *t, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return since, until, 0, usage("", "%s: %w", name, err)
			}
		}
	}
	if text := c.Query("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return since, until, 0, usage("", "limit %q: want a number from 1", text)
		}
	}
	return since, until, limit, nil
}

func runFilter(c *api.Call) (ledger.RunFilter, error) {
	since, until, limit, err := period(c)
	return ledger.RunFilter{
		Domain: c.Query("domain"), Site: c.Query("site"), Channel: c.Query("channel"), Core: c.Flag("core"),
		State: runs.State(c.Query("state")), Open: c.Flag("open"), Since: since, Until: until, Limit: limit,
	}, err
}

func (d *daemon) runShow(ctx context.Context, c *api.Call) (any, error) {
	return nil, d.core.Query.RunShow(ctx, c.Path("id"), c.Flag("all"),
		func(r query.RunDetail) error { return c.Send(runLine{Run: &r}) },
		func(f record.File) error { return c.Send(runLine{File: &f}) })
}

func (d *daemon) logs(ctx context.Context, c *api.Call) (any, error) {
	since, until, _, err := period(c)
	if err != nil {
		return nil, err
	}
	f := record.Filter{Domain: c.Query("domain"), Site: c.Query("site"), Channel: c.Query("channel"), Run: c.Query("run"), Core: c.Flag("core"), Since: since, Until: until}
	found := false
	err = d.core.Query.Logs(ctx, f, func(l record.Log) error { found = true; return c.Send(logLine{d.core.LogsDir(), l}) })
	if err != nil || found {
		return nil, err
	}
	if f.Run != "" {
		return nil, &absentError{fmt.Sprintf("no log file is of run %q", f.Run), "nightferry runs lists the runs; one that is under way has no log file yet"}
	}
	return nil, d.known(ctx, fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
}

// known fails for a name that the configuration does not have. It is asked only
// about what nothing was found of: what is past may be of a site that is gone.
func (d *daemon) known(ctx context.Context, s fleet.Scope) error {
	_, err := d.core.Query.Sites(ctx, s)
	return err
}

func (d *daemon) tokens(ctx context.Context, c *api.Call) (any, error) {
	var r tokenRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	if r.Site == "" {
		return list(d.core.Enrolment.Wave(ctx, r.Scope, r.Wave, r.Life))
	}
	t, err := d.core.Enrolment.Token(ctx, r.Site, r.Life)
	if err != nil {
		return nil, err
	}
	return []core.IssuedToken{*t}, nil
}

func (d *daemon) publish(ctx context.Context, c *api.Call) (any, error) {
	var r publishRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	channels := []string{r.Channel}
	if r.Channel == "" {
		channels = d.core.Publisher.Channels()
	}
	var failed error // one that cannot be published keeps no other back
	for _, channel := range channels {
		done, err := d.core.Publisher.Publish(ctx, channel, core.PublishOptions{
			AllowDeletes: r.AllowDeletes, AllowEmpty: r.AllowEmpty, AllowUnmounted: r.AllowUnmounted, Rehash: r.Rehash, DryRun: r.DryRun,
			OnProgress: func(p runs.Progress) { _ = c.Send(publishLine{Channel: channel, Progress: &p}) }, // who has gone ends it by the context
		})
		if err != nil && len(channels) > 1 {
			err = fmt.Errorf("channel %s: %w", channel, err)
		}
		if err == nil {
			err = c.Send(publishLine{Channel: channel, Done: done})
		}
		if failed = errors.Join(failed, err); ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// secret changes the vault, and lets the Core use what changed.
func (d *daemon) secret(ctx context.Context, c *api.Call, op string) (any, error) {
	var r secretRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	if r.Name == core.SecretRelease && r.Value != nil {
		if err := d.core.MayRelease(ctx, r.Value); err != nil {
			return nil, errors.Join(err, &refusedError{r.Name + " stays as it is", "give the key file that nightferry trust rotate has made"})
		}
	}
	a, err := applySecret(ctx, d.core.Vault(), op, r)
	if err != nil {
		return nil, err
	}
	if err := d.core.Refresh(ctx); err != nil {
		return nil, errors.Join(err, &refusedError{r.Name + " is stored, but the Core goes on with what it had", "set a value that works"})
	}
	return a, nil
}

// sync orders, and with follow stays until every run of a connected site that
// obeys has ended.
func (d *daemon) sync(ctx context.Context, c *api.Call) (any, error) {
	var r core.SyncRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	if !c.Flag("follow") {
		orders, err := d.core.Orders.Sync(ctx, r)
		if err != nil {
			return nil, err
		}
		return nil, c.Send(syncLine{Orders: slices.Clip(append([]core.Order{}, orders...))})
	}
	return nil, d.core.Orders.Follow(ctx, r.Scope, func() ([]core.Order, error) { return d.core.Orders.Sync(ctx, r) },
		func(orders []core.Order) error { return c.Send(syncLine{Orders: orders}) },
		func(ev core.Event) error { return c.Send(syncLine{Event: &ev}) })
}
