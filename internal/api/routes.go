package api

import (
	"cmp"
	"context"
	_ "embed" // the description of the contract
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/incident"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/rights"
	"nightferry/internal/runs"
)

// description is the OpenAPI document of the routes. TestOpenAPI keeps it current.
//
//go:embed openapi.json
var description json.RawMessage

// Routes returns the routes of a Core. Each call runs with the rights of its principal.
func Routes(b Backend) []Route {
	g := newGuard(b)
	r := &routes{b: g.backend(b), guard: g}
	r.addViews()
	r.addRecords()
	r.addChanges()
	r.addOrders()
	r.addJobs()
	r.addEvents()
	r.addTokens()
	r.addConsole()
	return r.all
}

type routes struct {
	b     Backend
	guard *guard
	all   []Route
}

// addViews are the routes that show the present state.
func (r *routes) addViews() {
	b := r.b
	get(r, some(rights.Viewer), "/v1/openapi.json", "Description of this interface", func(ctx context.Context, _ none) (json.RawMessage, error) {
		return description, r.guard.may(ctx, rights.Viewer, "openapi.json", true)
	})
	get(r, some(rights.Viewer), "/v1/health", "Whether the Core works", func(ctx context.Context, _ none) (Health, error) {
		h, err := b.Process.Health(ctx)
		if h.Reasons == nil {
			h.Reasons = []string{}
		}
		return Health(h), err
	})
	get(r, all(rights.Viewer), "/v1/status", "The fleet in numbers", func(ctx context.Context, _ none) (Status, error) {
		s, err := b.Fleet.Status(ctx)
		return viewOf(s, err, statusOf)
	})
	get(r, some(rights.Viewer), "/v1/sites", "The sites of a scope, with the state of each channel", func(ctx context.Context, q SitesQuery) ([]Site, error) {
		list, err := b.Fleet.Sites(ctx, fleet.Scope(q.Scope))
		return viewsOf(pageOf(list, q.After, q.Limit, func(s *query.SiteStatus) string { return s.Site }), err, siteOf)
	})
	get(r, some(rights.Viewer), "/v1/why", "Why channels are not current, since when, and what to do", func(ctx context.Context, q Scope) ([]Reason, error) {
		list, err := b.Fleet.Why(ctx, fleet.Scope(q))
		return viewsOf(list, err, reasonOf)
	})
	get(r, some(rights.Viewer), "/v1/where", "Which sites have a file, proven when", func(ctx context.Context, q WhereQuery) ([]Place, error) {
		list, err := b.Fleet.Where(ctx, q.Channel, q.Path)
		return viewsOf(list, err, placeOf)
	})
	get(r, all(rights.Viewer), "/v1/tasks", "The Core's periodic tasks", func(ctx context.Context, _ none) ([]Task, error) {
		list, err := b.Process.Tasks(ctx)
		return viewsOf(list, err, taskOf)
	})
	get(r, some(rights.Viewer), "/v1/incidents", "Incidents, the newest first", func(ctx context.Context, q IncidentsQuery) ([]Incident, error) {
		list, err := b.Fleet.Incidents(ctx, q.All)
		return viewsOf(pageOf(list, q.After, q.Limit, func(i *query.Incident) int { return int(i.ID) }), err, incidentOf)
	})
	get(r, some(rights.Viewer), "/v1/halts", "Halt orders, and how each site obeys", func(ctx context.Context, q AllQuery) ([]Halt, error) {
		list, err := b.Halts.List(ctx, q.All)
		return viewsOf(list, err, haltOf)
	})
	get(r, all(rights.Viewer), "/v1/held", "The releases that sites hold or should hold", func(ctx context.Context, _ none) (*Held, error) { return b.Process.Held(ctx) })
	get(r, all(rights.Admin), "/v1/secrets", "Names and versions of the secrets, without values", func(ctx context.Context, _ none) ([]Secret, error) {
		list, err := b.Secrets.ListSecrets(ctx)
		return SecretViews(list), err
	})
	get(r, some(rights.Viewer), "/v1/plan", "Forecast of the coming nights", func(ctx context.Context, q PlanQuery) (Plan, error) {
		p, err := b.Forecast.Plan(ctx, query.PlanRequest{Scope: fleet.Scope(q.Scope), Days: q.Days, At: q.At})
		return viewOf(p, err, planOf)
	})
	get(r, some(rights.Viewer), "/v1/windows", "When channels may move at the sites of a scope", func(ctx context.Context, q WindowsQuery) ([]Opening, error) {
		list, err := b.Forecast.Windows(ctx, query.WindowsRequest{Scope: fleet.Scope(q.Scope), From: q.Since, To: q.Until})
		return viewsOf(list, err, openingOf)
	})
}

// addRecords are the routes that list what happened.
func (r *routes) addRecords() {
	b := r.b
	get(r, some(rights.Viewer), "/v1/runs", "Runs, the newest first", func(ctx context.Context, q RunsQuery) ([]Run, error) {
		var after runs.ID
		if q.After != "" {
			var err error
			if after, err = runs.ParseID(q.After); err != nil {
				return nil, badQuery("after: %v", err)
			}
		}
		found, err := b.Records.Runs(ctx, ledger.RunFilter{After: after, Domain: q.Domain, Site: q.Site, Channel: q.Channel, Core: q.Core,
			State: q.State, Open: q.Open, Since: q.Since, Until: q.Until, Limit: q.Limit})
		if err == nil && len(found) == 0 && q.After == "" {
			err = r.checkKnown(ctx, q.Scope)
		}
		return viewsOf(found, err, runOf)
	})
	stream(r, some(rights.Viewer), http.MethodGet, "/v1/runs/{id}", "One run, then the outcome of each of its files", func(ctx context.Context, q RunQuery, _ none, send func(*RunLine) error) error {
		return b.Records.RunShow(ctx, q.ID, q.All,
			func(d query.RunDetail) error { return send(&RunLine{Run: detailOf(&d)}) },
			func(f record.File) error { return send(&RunLine{File: fileOf(f)}) })
	})
	get(r, some(rights.Viewer), "/v1/exceptions", "Files that failed, were locked or were repaired", func(ctx context.Context, q ExceptionsQuery) ([]Exception, error) {
		found, err := b.Records.FailingFiles(ctx, fleet.Scope(q.Scope), max(q.Limit, 1))
		return viewsOf(found, err, exceptionOf)
	})
	get(r, all(rights.Viewer), "/v1/audit", "Audit entries, the newest first", func(ctx context.Context, q AuditQuery) ([]AuditEntry, error) {
		found, err := b.Records.Deeds(ctx, ledger.DeedFilter{After: int64(q.After), Who: q.Who, What: q.What, Object: q.Object,
			NoReads: !q.Reads && q.What == "", Since: q.Since, Until: q.Until, Limit: q.Limit})
		if err == nil && len(found) == 0 && q.After == 0 {
			err = r.checkDeed(ctx, q.What)
		}
		return viewsOf(found, err, auditEntryOf)
	})
	stream(r, some(rights.Logs), http.MethodGet, "/v1/logs", "The log files of runs", r.listLogs)
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

func (r *routes) listLogs(ctx context.Context, q LogsQuery, _ none, send func(*LogFile) error) error {
	f := record.Filter{Domain: q.Domain, Site: q.Site, Channel: q.Channel, Run: q.Run, Core: q.Core, Since: q.Since, Until: q.Until}
	found := false
	err := r.b.Records.Logs(ctx, f, func(l record.Log) error {
		found = true
		return send(&LogFile{logPath(r.b.Process.LogsDir(), l.Path), l.Size, l.Run, l.Date, l.Domain, l.Site, l.Channel})
	})
	if err != nil || found {
		return err
	}
	if f.Run != "" {
		return &Error{Code: "absent", Message: fmt.Sprintf("no log file is of run %q", f.Run), Fix: "nightferry runs lists the runs; one that is under way has no log file yet"}
	}
	if rights.Of(ctx).Role < rights.Viewer {
		return nil // they may not look the names up
	}
	return r.checkKnown(ctx, q.Scope)
}

// checkKnown fails for a name that the configuration does not have. It is asked only if
// nothing was found: a record may be of a site that has been removed.
func (r *routes) checkKnown(ctx context.Context, s Scope) error {
	_, err := r.b.Fleet.Sites(ctx, fleet.Scope(s))
	return err
}

// addChanges are the routes that change something at the Core.
func (r *routes) addChanges() {
	b := r.b
	annotated := func(change func(context.Context, IncidentNote) (query.Incident, error)) func(context.Context, IncidentNote) (Incident, error) {
		return func(ctx context.Context, n IncidentNote) (Incident, error) {
			i, err := change(ctx, n)
			if errors.Is(err, ledger.ErrNotFound) {
				err = &Error{Code: "absent", Message: fmt.Sprintf("no incident %d is open", n.ID), Fix: "nightferry incidents lists the open ones; with --all, also the others"}
			} else if errors.Is(err, incident.ErrSilence) {
				err = &Error{Code: "usage", Message: err.Error(), Fix: "name a time within that bound"}
			}
			return viewOf(&i, err, incidentOf)
		}
	}
	post(r, some(rights.Operator), "/v1/incidents/close", "Close an open incident", annotated(func(ctx context.Context, n IncidentNote) (query.Incident, error) {
		return b.Incidents.CloseIncident(ctx, n.ID, n.Text)
	}))
	post(r, some(rights.Operator), "/v1/incidents/ack", "Acknowledge an open incident", annotated(func(ctx context.Context, n IncidentNote) (query.Incident, error) {
		return b.Incidents.AckIncident(ctx, n.ID, n.Text, n.Silent)
	}))
	post(r, all(rights.Admin), "/v1/alerts/test", "Send a test alert", func(ctx context.Context, a AlertRequest) ([]AlertTest, error) {
		list, err := b.Alerts.Test(ctx, a.To)
		return viewsOf(list, err, alertTestOf)
	})
	post(r, some(rights.Admin), "/v1/tokens", "Issue enrolment tokens", func(ctx context.Context, t TokenRequest) ([]IssuedToken, error) {
		if t.Site == "" {
			list, err := b.Members.Wave(ctx, fleet.Scope(t.Scope), t.Wave, time.Duration(t.Life))
			return viewsOf(list, err, issuedOf)
		}
		token, err := b.Members.Token(ctx, t.Site, time.Duration(t.Life))
		if err != nil {
			return nil, err
		}
		return []IssuedToken{issuedOf(token)}, nil
	})
	one := func(change func(context.Context, string, string) error) func(context.Context, Subject) ([]string, error) {
		return func(ctx context.Context, s Subject) ([]string, error) {
			return []string{s.Name}, change(ctx, s.Name, s.Reason)
		}
	}
	post(r, some(rights.Admin), "/v1/sites/revoke", "End a site's identity", one(b.Members.RevokeSite))
	post(r, some(rights.Admin), "/v1/sites/confirm", "Confirm that one machine alone uses a site's identity", one(b.Members.Confirm))
	post(r, some(rights.Admin), "/v1/domains/revoke", "End the identities of a domain's sites", func(ctx context.Context, s Subject) ([]string, error) {
		list, err := b.Members.RevokeDomain(ctx, s.Name, s.Reason)
		return viewsOf(list, err, func(name *string) string { return *name })
	})
	secret := func(rotate bool) func(context.Context, SecretRequest) (SecretChange, error) {
		return func(ctx context.Context, s SecretRequest) (SecretChange, error) {
			return b.Secrets.ChangeSecret(ctx, rotate, s)
		}
	}
	post(r, all(rights.Admin), "/v1/secrets/set", "Store a secret", secret(false))
	post(r, all(rights.Admin), "/v1/secrets/rotate", "Replace a secret", secret(true))
	post(r, all(rights.Admin), "/v1/reload", "Read the configuration file again", func(ctx context.Context, _ none) (Reloaded, error) { return b.Process.Reload(ctx) })
	post(r, some(rights.Operator), "/v1/limit", "Limit the rate of sites", func(ctx context.Context, l LimitRequest) ([]Limited, error) {
		if err := checkAll(l.Scope, l.All); err != nil {
			return nil, err
		}
		list, err := b.Orders.Limit(ctx, core.LimitRequest{Scope: fleet.Scope(l.Scope), Rate: l.Rate, For: l.For})
		return viewsOf(list, err, limitedOf)
	})
}

// addTokens are the routes of API tokens.
func (r *routes) addTokens() {
	b := r.b
	get(r, all(rights.Admin), "/v1/access", "API tokens, with those that ended", func(ctx context.Context, _ none) ([]APIToken, error) {
		list, err := b.Tokens.List(ctx)
		return viewsOf(list, err, apiTokenOf)
	})
	post(r, all(rights.Admin), "/v1/access/create", "Create an API token", func(ctx context.Context, q APITokenRequest) (NewAPIToken, error) {
		role, err := rights.ParseRole(q.Role)
		if err != nil {
			return NewAPIToken{}, badQuery("%v", err)
		}
		text, t, err := b.Tokens.Issue(ctx, apitokens.Request{Name: q.Name, Role: role, Scope: rights.Scope{Domain: q.Domain, Region: q.Region}, Life: time.Duration(q.Life)})
		var invalid *apitokens.InvalidError
		if errors.As(err, &invalid) {
			err = badQuery("%v", err)
		}
		if err != nil {
			return NewAPIToken{}, err
		}
		return NewAPIToken{apiTokenOf(&t), text}, nil
	})
	post(r, all(rights.Admin), "/v1/access/revoke", "Revoke an API token", func(ctx context.Context, q APITokenID) (APIToken, error) {
		t, err := b.Tokens.Revoke(ctx, q.ID)
		return viewOf(&t, err, apiTokenOf)
	})
}

// addConsole are the routes of the console's door and its sessions.
func (r *routes) addConsole() {
	b := r.b
	get(r, some(rights.Viewer), "/v1/console", "Where the console is", func(ctx context.Context, _ none) (ConsoleAddress, error) { return b.Console.Address(ctx) })
	post(r, some(rights.Admin), "/v1/console/link", "Make a link that signs in once; over the local socket only", func(ctx context.Context, _ none) (ConsoleLink, error) { return b.Console.Link(ctx) })
	get(r, all(rights.Admin), "/v1/sessions", "People who have signed in to the console", func(ctx context.Context, _ none) ([]Session, error) {
		list, err := b.Console.Sessions(ctx)
		return viewsOf(list, err, sessionOf)
	})
	post(r, all(rights.Admin), "/v1/sessions/end", "End a session, or all of a person", func(ctx context.Context, q SessionEnd) ([]Session, error) {
		if (q.ID == "") == (q.Person == "") {
			return nil, badQuery("want an id, or a person")
		}
		list, err := b.Console.EndSessions(ctx, q.ID, q.Person)
		return viewsOf(list, err, sessionOf)
	})
}

// addOrders are the routes that let sites and channels move, or stop.
func (r *routes) addOrders() {
	b := r.b
	post(r, some(rights.Operator), "/v1/halt", "Issue a halt order", func(ctx context.Context, h HaltRequest) (HaltChange, error) {
		done, err := b.Halts.Halt(ctx, core.HaltRequest(h))
		return viewOf(done, err, haltChangeOf)
	})
	post(r, some(rights.Operator), "/v1/resume", "Lift halt orders", func(ctx context.Context, q ResumeRequest) (HaltChange, error) {
		done, err := b.Halts.Resume(ctx, q.Order, q.Scope, q.Value)
		if errors.Is(err, core.ErrNoOrder) {
			err = &Error{Code: "absent", Message: "no such order is active", Fix: "nightferry halt status lists those that are; one that was given on a site is lifted there: nightferry-agent resume"}
		}
		return viewOf(done, err, haltChangeOf)
	})
}

// addEvents is the route that sends events as they happen.
func (r *routes) addEvents() {
	addRoute[EventsQuery, none, Event](r, some(rights.Viewer), http.MethodGet, "/v1/events", mediaEvents, "Events as they happen, for EventSource", func(ctx context.Context, c *Call, q EventsQuery, _ none) (any, error) {
		after := cmp.Or(c.r.Header.Get("Last-Event-ID"), q.After)
		return nil, r.b.Events.Follow(ctx, after, func(l *EventLine) error {
			if l.Event != nil && !q.matches(l.Event) {
				return nil
			}
			return c.SendEvent(l)
		})
	})
}
