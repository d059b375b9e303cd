package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
)

// Routes returns the routes of a Core. Each call runs as the caller that the
// system names.
func Routes(b Backend) []Route {
	r := &routes{b: b}
	r.addViews()
	r.addRecords()
	r.addChanges()
	r.addOrders()
	return r.all
}

type routes struct {
	b   Backend
	all []Route
}

type handler = func(context.Context, *Call) (any, error)

func (r *routes) addRoute(pattern string, handle handler) {
	r.all = append(r.all, Route{Pattern: pattern, Handle: func(ctx context.Context, c *Call) (any, error) {
		return handle(core.WithActor(ctx, c.Caller.String()), c)
	}})
}

// emptyList is an answer that is a list also when it is empty.
func emptyList[T any](items []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return append([]T{}, items...), nil
}

// listOf is emptyList with each item converted to its view.
func listOf[T, V any](items []T, err error, view func(T) V) (any, error) {
	out := make([]V, 0, len(items))
	for _, x := range items {
		out = append(out, view(x))
	}
	return emptyList(out, err)
}

// handleBody handles a call with a body of type T.
func handleBody[T any](handle func(ctx context.Context, v T) (any, error)) handler {
	return func(ctx context.Context, c *Call) (any, error) {
		var v T
		if err := c.Read(&v); err != nil {
			return nil, err
		}
		return handle(ctx, v)
	}
}

func badQuery(format string, args ...any) error {
	return &Error{Code: "usage", Message: fmt.Sprintf(format, args...)}
}

func scopeOf(c *Call) fleet.Scope {
	return fleet.Scope{Domain: c.Query("domain"), Region: c.Query("region"), Site: c.Query("site"), Channel: c.Query("channel")}
}

// readPeriod reads since, until and limit.
func readPeriod(c *Call) (since, until time.Time, limit int, err error) {
	for name, t := range map[string]*time.Time{"since": &since, "until": &until} {
		if text := c.Query(name); text != "" {
			if *t, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return since, until, 0, badQuery("%s: %v", name, err)
			}
		}
	}
	if text := c.Query("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return since, until, 0, badQuery("limit %q: want a number from 1", text)
		}
	}
	return since, until, limit, nil
}

// addViews are the routes that show the present state.
func (r *routes) addViews() {
	b := r.b
	r.addRoute("GET /v1/health", func(ctx context.Context, _ *Call) (any, error) { return b.Process.Health(ctx), nil })
	r.addRoute("GET /v1/status", func(ctx context.Context, _ *Call) (any, error) { return b.Fleet.Status(ctx) })
	r.addRoute("GET /v1/sites", func(ctx context.Context, c *Call) (any, error) { return emptyList(b.Fleet.Sites(ctx, scopeOf(c))) })
	r.addRoute("GET /v1/why", func(ctx context.Context, c *Call) (any, error) { return emptyList(b.Fleet.Why(ctx, scopeOf(c))) })
	r.addRoute("GET /v1/where", func(ctx context.Context, c *Call) (any, error) {
		return emptyList(b.Fleet.Where(ctx, c.Query("channel"), c.Query("path")))
	})
	r.addRoute("GET /v1/tasks", func(context.Context, *Call) (any, error) { return listOf(b.Process.Tasks(), nil, taskOf) })
	r.addRoute("GET /v1/incidents", func(ctx context.Context, c *Call) (any, error) {
		return emptyList(b.Fleet.Incidents(ctx, c.Flag("all")))
	})
	r.addRoute("GET /v1/halts", func(ctx context.Context, c *Call) (any, error) { return emptyList(b.Halts.List(ctx, c.Flag("all"))) })
	r.addRoute("GET /v1/held", func(ctx context.Context, _ *Call) (any, error) { return b.Process.Held(ctx) })
	r.addRoute("GET /v1/secrets", func(ctx context.Context, _ *Call) (any, error) { return emptyList(b.Secrets.ListSecrets(ctx)) })
	r.addRoute("GET /v1/plan", func(ctx context.Context, c *Call) (any, error) {
		p := query.PlanRequest{Scope: scopeOf(c)}
		var err error
		if text := c.Query("days"); text != "" {
			if p.Days, err = strconv.Atoi(text); err != nil || p.Days < 1 || p.Days > 366 {
				return nil, badQuery("days %q: want 1 to 366", text)
			}
		}
		if text := c.Query("at"); text != "" {
			if p.At, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, badQuery("at: %v", err)
			}
		}
		return b.Forecast.Plan(ctx, p)
	})
}

// addRecords are the routes that list what happened.
func (r *routes) addRecords() {
	b := r.b
	r.addRoute("GET /v1/runs", func(ctx context.Context, c *Call) (any, error) {
		since, until, limit, err := readPeriod(c)
		if err != nil {
			return nil, err
		}
		s := scopeOf(c)
		found, err := b.Records.Runs(ctx, ledger.RunFilter{Domain: s.Domain, Site: s.Site, Channel: s.Channel, Core: c.Flag("core"),
			State: runs.State(c.Query("state")), Open: c.Flag("open"), Since: since, Until: until, Limit: limit})
		if err == nil && len(found) == 0 {
			err = r.checkKnown(ctx, s)
		}
		return listOf(found, err, func(x ledger.Run) Run { return Run(x) })
	})
	r.addRoute("GET /v1/runs/{id}", func(ctx context.Context, c *Call) (any, error) {
		return nil, b.Records.RunShow(ctx, c.Path("id"), c.Flag("all"),
			func(d query.RunDetail) error {
				return c.Send(RunLine{Run: &RunDetail{Run(d.Run), d.Header, d.Log, d.Files, d.Bytes, d.Progress, d.Measured}})
			},
			func(f record.File) error { return c.Send(RunLine{File: &f}) })
	})
	r.addRoute("GET /v1/exceptions", func(ctx context.Context, c *Call) (any, error) {
		_, _, limit, err := readPeriod(c)
		if err != nil {
			return nil, err
		}
		found, err := b.Records.FailingFiles(ctx, scopeOf(c), max(limit, 1))
		return listOf(found, err, func(x ledger.Exception) Exception { return Exception(x) })
	})
	r.addRoute("GET /v1/audit", func(ctx context.Context, c *Call) (any, error) {
		since, until, limit, err := readPeriod(c)
		if err != nil {
			return nil, err
		}
		found, err := b.Records.Deeds(ctx, ledger.DeedFilter{Who: c.Query("who"), What: c.Query("what"), Object: c.Query("object"),
			NoReads: !c.Flag("reads") && c.Query("what") == "", Since: since, Until: until, Limit: limit})
		if err == nil && len(found) == 0 {
			err = r.checkDeed(ctx, c.Query("what"))
		}
		return listOf(found, err, func(x ledger.Deed) AuditEntry { return AuditEntry(x) })
	})
	r.addRoute("GET /v1/logs", r.serveLogs)
}

// maxDeeds bounds the audit entries in which checkDeed looks for examples.
const maxDeeds = 1000

// checkDeed fails for the name of an action that the audit does not have. It is asked only if nothing was found.
func (r *routes) checkDeed(ctx context.Context, what string) error {
	if what == "" {
		return nil
	}
	known, err := r.b.Records.Deeds(ctx, ledger.DeedFilter{What: what, Limit: 1})
	if err != nil || len(known) > 0 {
		return err
	}
	if known, err = r.b.Records.Deeds(ctx, ledger.DeedFilter{Limit: maxDeeds}); err != nil {
		return err
	}
	var names []string
	for _, d := range known {
		names = append(names, d.What)
	}
	slices.Sort(names)
	return &Error{Code: "absent", Message: fmt.Sprintf("the audit has no entry of %q", what), Fix: "name one of these: " + strings.Join(slices.Compact(names), ", ")}
}

func (r *routes) serveLogs(ctx context.Context, c *Call) (any, error) {
	since, until, _, err := readPeriod(c)
	if err != nil {
		return nil, err
	}
	f := record.Filter{Domain: c.Query("domain"), Site: c.Query("site"), Channel: c.Query("channel"), Run: c.Query("run"), Core: c.Flag("core"), Since: since, Until: until}
	found := false
	err = r.b.Records.Logs(ctx, f, func(l record.Log) error {
		found = true
		return c.Send(LogFile{logPath(r.b.Process.LogsDir(), l.Path), l.Size, l.Run, l.Date, l.Domain, l.Site, l.Channel})
	})
	if err != nil || found {
		return nil, err
	}
	if f.Run != "" {
		return nil, &Error{Code: "absent", Message: fmt.Sprintf("no log file is of run %q", f.Run), Fix: "nightferry runs lists the runs; one that is under way has no log file yet"}
	}
	return nil, r.checkKnown(ctx, fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
}

// checkKnown fails for a name that the configuration does not have. It is asked only if
// nothing was found: a record may be of a site that has been removed.
func (r *routes) checkKnown(ctx context.Context, s fleet.Scope) error {
	_, err := r.b.Fleet.Sites(ctx, s)
	return err
}

// addChanges are the routes that change something at the Core.
func (r *routes) addChanges() {
	b := r.b
	incident := func(change func(context.Context, int64, string) (query.Incident, error)) handler {
		return handleBody(func(ctx context.Context, n IncidentNote) (any, error) {
			i, err := change(ctx, n.ID, n.Text)
			if errors.Is(err, ledger.ErrNotFound) {
				return nil, &Error{Code: "absent", Message: fmt.Sprintf("no incident %d is open", n.ID), Fix: "nightferry incidents lists the open ones; with --all, also the others"}
			}
			return i, err
		})
	}
	r.addRoute("POST /v1/incidents/close", incident(b.Incidents.CloseIncident))
	r.addRoute("POST /v1/incidents/ack", incident(b.Incidents.AckIncident))
	r.addRoute("POST /v1/alerts/test", handleBody(func(ctx context.Context, a AlertRequest) (any, error) {
		return emptyList(b.Alerts.Test(ctx, a.To))
	}))
	r.addRoute("POST /v1/tokens", handleBody(func(ctx context.Context, t TokenRequest) (any, error) {
		if t.Site == "" {
			return emptyList(b.Members.Wave(ctx, t.Scope, t.Wave, time.Duration(t.Life)))
		}
		token, err := b.Members.Token(ctx, t.Site, time.Duration(t.Life))
		if err != nil {
			return nil, err
		}
		return []core.IssuedToken{*token}, nil
	}))
	one := func(change func(context.Context, string, string) error) handler {
		return handleBody(func(ctx context.Context, s Subject) (any, error) {
			return []string{s.Name}, change(ctx, s.Name, s.Reason)
		})
	}
	r.addRoute("POST /v1/sites/revoke", one(b.Members.RevokeSite))
	r.addRoute("POST /v1/sites/confirm", one(b.Members.Confirm))
	r.addRoute("POST /v1/domains/revoke", handleBody(func(ctx context.Context, s Subject) (any, error) {
		return emptyList(b.Members.RevokeDomain(ctx, s.Name, s.Reason))
	}))
	r.addRoute("POST /v1/secrets/set", handleBody(func(ctx context.Context, s SecretRequest) (any, error) { return b.Secrets.ChangeSecret(ctx, false, s) }))
	r.addRoute("POST /v1/secrets/rotate", handleBody(func(ctx context.Context, s SecretRequest) (any, error) { return b.Secrets.ChangeSecret(ctx, true, s) }))
	r.addRoute("POST /v1/reload", func(ctx context.Context, _ *Call) (any, error) { return b.Process.Reload(ctx) })
	r.addRoute("POST /v1/limit", handleBody(func(ctx context.Context, l core.LimitRequest) (any, error) { return emptyList(b.Orders.Limit(ctx, l)) }))
}

// addOrders are the routes that let sites and channels move, or stop.
func (r *routes) addOrders() {
	b := r.b
	r.addRoute("POST /v1/halt", handleBody(func(ctx context.Context, h core.HaltRequest) (any, error) { return b.Halts.Halt(ctx, h) }))
	r.addRoute("POST /v1/resume", handleBody(func(ctx context.Context, q ResumeRequest) (any, error) {
		done, err := b.Halts.Resume(ctx, q.Order, q.Scope, q.Value)
		if errors.Is(err, core.ErrNoOrder) {
			return nil, &Error{Code: "absent", Message: "no such order is active", Fix: "nightferry halt status lists those that are; one that was given on a site is lifted there: nightferry-agent resume"}
		}
		return done, err
	}))
	r.addRoute("POST /v1/publish", r.publishChannels)
	r.addRoute("POST /v1/sync", func(ctx context.Context, c *Call) (any, error) {
		var q core.SyncRequest
		if err := c.Read(&q); err != nil {
			return nil, err
		}
		return nil, r.followRuns(ctx, c, q.Scope, func() ([]core.Order, error) { return b.Orders.Sync(ctx, q) }, func(core.Event) error { return nil })
	})
	r.addRoute("POST /v1/verify", func(ctx context.Context, c *Call) (any, error) {
		var q core.VerifyRequest
		if err := c.Read(&q); err != nil {
			return nil, err
		}
		return nil, r.followRuns(ctx, c, q.Scope, func() ([]core.Order, error) { return b.Orders.Verify(ctx, q) }, func(ev core.Event) error {
			return r.sendDifferences(ctx, c, ev)
		})
	})
}

// followRuns sends requests to sites, and with the flag follow stays until every run
// of a connected site that obeys has ended. after is called with each event.
func (r *routes) followRuns(ctx context.Context, c *Call, scope fleet.Scope, order func() ([]core.Order, error), after func(core.Event) error) error {
	ordered := func(orders []core.Order) error { return c.Send(FollowLine{Orders: append([]core.Order{}, orders...)}) }
	if !c.Flag("follow") {
		orders, err := order()
		if err != nil {
			return err
		}
		return ordered(orders)
	}
	return r.b.Orders.Follow(ctx, scope, order, ordered, func(ev core.Event) error {
		if err := c.Send(FollowLine{Event: eventOf(ev)}); err != nil {
			return err
		}
		return after(ev)
	})
}

// sendDifferences sends the paths that a verify run found to differ, once it has ended.
func (r *routes) sendDifferences(ctx context.Context, c *Call, ev core.Event) error {
	if ev.Ended == nil {
		return nil
	}
	return r.b.Records.RunShow(ctx, ev.Run, false, func(query.RunDetail) error { return nil }, func(f record.File) error {
		if f.Outcome.Exception() {
			return c.Send(FollowLine{Differs: &Differing{ev.Site, ev.Channel, ev.Run, f.Path, f.Outcome, f.Cause}})
		}
		return nil
	})
}

// publishChannels publishes one channel, or all: one that cannot be published keeps no
// other back.
func (r *routes) publishChannels(ctx context.Context, c *Call) (any, error) {
	var q PublishRequest
	if err := c.Read(&q); err != nil {
		return nil, err
	}
	channels := []string{q.Channel}
	if q.Channel == "" {
		channels = r.b.Publisher.Channels()
	}
	var failed error
	for _, channel := range channels {
		done, err := r.b.Publisher.Publish(ctx, channel, core.PublishOptions{
			AllowDeletes: q.AllowDeletes, AllowEmpty: q.AllowEmpty, AllowUnmounted: q.AllowUnmounted, Rehash: q.Rehash, DryRun: q.DryRun,
			OnProgress: func(p runs.Progress) { _ = c.Send(PublishLine{Channel: channel, Progress: &p}) }, // a client that has gone ends the publish by its context
		})
		if err != nil && len(channels) > 1 {
			err = fmt.Errorf("channel %s: %w", channel, err)
		}
		if err == nil {
			err = c.Send(PublishLine{Channel: channel, Done: done})
		}
		if failed = errors.Join(failed, err); ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}
