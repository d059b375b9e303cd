package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/fleet"
)

// KillSwitchTime bounds a call of the kill switch. A halt whose turn comes later
// is not carried out.
const KillSwitchTime = 10 * time.Second

// getJSON decodes the answer to a GET with the parameters of query.
func getJSON[T any](ctx context.Context, c *Client, path string, query any) (out T, err error) {
	err = c.Call(ctx, http.MethodGet, path, queryOf(query), nil, &out)
	return out, err
}

// postJSON decodes the answer to a POST with a body.
func postJSON[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	err = c.Call(ctx, http.MethodPost, path, nil, in, &out)
	return out, err
}

// streamJSON calls fn with each decoded line of an answer.
func streamJSON[T any](ctx context.Context, c *Client, method, path string, query, in any, fn func(*T) error) error {
	return c.Stream(ctx, method, path, queryOf(query), in, func(raw json.RawMessage) error {
		var line T
		if err := json.Unmarshal(raw, &line); err != nil {
			return err
		}
		return fn(&line)
	})
}

// urgentContext bounds a call of the kill switch.
func urgentContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, KillSwitchTime, fmt.Errorf("%w within %s", ErrSilent, KillSwitchTime))
}

// Health reports whether the Core works.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return getJSON[Health](ctx, c, "/v1/health", none{})
}

// OpenAPI returns the description of the contract.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	return getJSON[json.RawMessage](ctx, c, "/v1/openapi.json", none{})
}

// Status returns the fleet in numbers.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return getJSON[Status](ctx, c, "/v1/status", none{})
}

// Sites lists the sites of a scope.
func (c *Client) Sites(ctx context.Context, s fleet.Scope) ([]Site, error) {
	return getJSON[[]Site](ctx, c, "/v1/sites", SitesQuery{Scope: Scope(s)})
}

// Why lists the deviations of a scope.
func (c *Client) Why(ctx context.Context, s fleet.Scope) ([]Reason, error) {
	return getJSON[[]Reason](ctx, c, "/v1/why", Scope(s))
}

// Where lists the sites that have a file.
func (c *Client) Where(ctx context.Context, channel, path string) ([]Place, error) {
	return getJSON[[]Place](ctx, c, "/v1/where", WhereQuery{channel, path})
}

// Tasks lists the Core's periodic tasks.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	return getJSON[[]Task](ctx, c, "/v1/tasks", none{})
}

// Incidents lists open incidents, with all also resolved ones.
func (c *Client) Incidents(ctx context.Context, all bool) ([]Incident, error) {
	return getJSON[[]Incident](ctx, c, "/v1/incidents", IncidentsQuery{AllQuery: AllQuery{all}})
}

// CloseIncident closes an open incident.
func (c *Client) CloseIncident(ctx context.Context, n IncidentNote) (Incident, error) {
	return postJSON[Incident](ctx, c, "/v1/incidents/close", n)
}

// AckIncident acknowledges an open incident.
func (c *Client) AckIncident(ctx context.Context, n IncidentNote) (Incident, error) {
	return postJSON[Incident](ctx, c, "/v1/incidents/ack", n)
}

// TestAlerts sends a test alert. An empty to means all recipients.
func (c *Client) TestAlerts(ctx context.Context, to string) ([]AlertTest, error) {
	return postJSON[[]AlertTest](ctx, c, "/v1/alerts/test", AlertRequest{to})
}

// Runs lists runs.
func (c *Client) Runs(ctx context.Context, q RunsQuery) ([]Run, error) {
	return getJSON[[]Run](ctx, c, "/v1/runs", q)
}

// RunShow calls fn with a run, and then with each of its files.
func (c *Client) RunShow(ctx context.Context, q RunQuery, fn func(*RunLine) error) error {
	return streamJSON(ctx, c, http.MethodGet, "/v1/runs/"+url.PathEscape(q.ID), q, nil, fn)
}

// Exceptions lists files that failed, were locked or were repaired.
func (c *Client) Exceptions(ctx context.Context, q ExceptionsQuery) ([]Exception, error) {
	return getJSON[[]Exception](ctx, c, "/v1/exceptions", q)
}

// Audit lists audit entries.
func (c *Client) Audit(ctx context.Context, q AuditQuery) ([]AuditEntry, error) {
	return getJSON[[]AuditEntry](ctx, c, "/v1/audit", q)
}

// Logs calls fn with each log file.
func (c *Client) Logs(ctx context.Context, q LogsQuery, fn func(*LogFile) error) error {
	return streamJSON(ctx, c, http.MethodGet, "/v1/logs", q, nil, fn)
}

// Plan forecasts the runs of a scope.
func (c *Client) Plan(ctx context.Context, q PlanQuery) (Plan, error) {
	return getJSON[Plan](ctx, c, "/v1/plan", q)
}

// Windows lists when channels may move.
func Windows(ctx context.Context, c *Client, q WindowsQuery) ([]Opening, error) {
	return getJSON[[]Opening](ctx, c, "/v1/windows", q)
}

// Events calls fn with each event as it happens, and with each report of missed ones, until fn returns an error or the
// connection ends. A client that comes back passes the last identifier as q.After.
func (c *Client) Events(ctx context.Context, q EventsQuery, fn func(*EventLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := c.doRequest(ctx, http.MethodGet, "/v1/events", queryOf(q), nil, "")
	if err != nil {
		return c.o.Explain(err)
	}
	defer body.Close()
	s := bufio.NewScanner(body)
	s.Buffer(nil, maxAnswer)
	var id, kind string
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			l := &EventLine{ID: id}
			if kind == "missed" {
				err = json.Unmarshal([]byte(value), &l.Missed)
			} else {
				err = json.Unmarshal([]byte(value), &l.Event)
			}
			if err == nil {
				err = fn(l)
			}
			if err != nil {
				return err
			}
		}
	}
	return c.o.Explain(c.connectionError(ctx, errors.Join(s.Err(), io.ErrUnexpectedEOF)))
}

// Limit limits the rate of sites.
func (c *Client) Limit(ctx context.Context, r LimitRequest) ([]Limited, error) {
	return postJSON[[]Limited](ctx, c, "/v1/limit", r)
}

// Tokens issues enrollment tokens.
func (c *Client) Tokens(ctx context.Context, r TokenRequest) ([]IssuedToken, error) {
	return postJSON[[]IssuedToken](ctx, c, "/v1/tokens", r)
}

// RevokeSite ends a site's identity. The result names the site.
func (c *Client) RevokeSite(ctx context.Context, s Subject) ([]string, error) {
	return postJSON[[]string](ctx, c, "/v1/sites/revoke", s)
}

// ConfirmSite confirms that one machine alone uses a site's identity.
func (c *Client) ConfirmSite(ctx context.Context, s Subject) ([]string, error) {
	return postJSON[[]string](ctx, c, "/v1/sites/confirm", s)
}

// RevokeDomain ends the identities of a domain's sites, and names them.
func (c *Client) RevokeDomain(ctx context.Context, s Subject) ([]string, error) {
	return postJSON[[]string](ctx, c, "/v1/domains/revoke", s)
}

// Secrets lists the vault, without values.
func (c *Client) Secrets(ctx context.Context) ([]Secret, error) {
	return getJSON[[]Secret](ctx, c, "/v1/secrets", none{})
}

// ChangeSecret stores a secret; with rotate, one that exists.
func (c *Client) ChangeSecret(ctx context.Context, rotate bool, r SecretRequest) (SecretChange, error) {
	path := "/v1/secrets/set"
	if rotate {
		path = "/v1/secrets/rotate"
	}
	return postJSON[SecretChange](ctx, c, path, r)
}

// Access manages API tokens through a client.
type Access struct{ Client *Client }

// List lists the API tokens.
func (a Access) List(ctx context.Context) ([]APIToken, error) {
	return getJSON[[]APIToken](ctx, a.Client, "/v1/access", none{})
}

// Create creates an API token.
func (a Access) Create(ctx context.Context, r APITokenRequest) (NewAPIToken, error) {
	return postJSON[NewAPIToken](ctx, a.Client, "/v1/access/create", r)
}

// Revoke revokes an API token.
func (a Access) Revoke(ctx context.Context, id string) (APIToken, error) {
	return postJSON[APIToken](ctx, a.Client, "/v1/access/revoke", APITokenID{id})
}

// ConsoleCalls ask about the console's door and its sessions through a client.
type ConsoleCalls struct{ Client *Client }

// Address returns where the console is.
func (c ConsoleCalls) Address(ctx context.Context) (ConsoleAddress, error) {
	return getJSON[ConsoleAddress](ctx, c.Client, "/v1/console", none{})
}

// Link makes a link that signs in once.
func (c ConsoleCalls) Link(ctx context.Context) (ConsoleLink, error) {
	return postJSON[ConsoleLink](ctx, c.Client, "/v1/console/link", nil)
}

// Sessions lists the people who have signed in.
func (c ConsoleCalls) Sessions(ctx context.Context) ([]Session, error) {
	return getJSON[[]Session](ctx, c.Client, "/v1/sessions", none{})
}

// End ends a session, or all of a person.
func (c ConsoleCalls) End(ctx context.Context, q SessionEnd) ([]Session, error) {
	return postJSON[[]Session](ctx, c.Client, "/v1/sessions/end", q)
}

// Reload lets the Core read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	return postJSON[Reloaded](ctx, c, "/v1/reload", nil)
}

// Held returns the releases that sites hold or should hold.
func (c *Client) Held(ctx context.Context) (Held, error) {
	return getJSON[Held](ctx, c, "/v1/held", none{})
}

// Halts lists the active halt orders, with all also lifted ones.
func (c *Client) Halts(ctx context.Context, all bool) ([]Halt, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	return getJSON[[]Halt](ctx, c, "/v1/halts", AllQuery{all})
}

// Halt issues a halt order.
func (c *Client) Halt(ctx context.Context, r HaltRequest) (HaltChange, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	return postJSON[HaltChange](ctx, c, "/v1/halt", r)
}

// Resume lifts halt orders.
func (c *Client) Resume(ctx context.Context, r ResumeRequest) (HaltChange, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	return postJSON[HaltChange](ctx, c, "/v1/resume", r)
}

// JobCalls asks for long work through a client, and looks at it.
type JobCalls struct{ Client *Client }

// Publish publishes, and calls fn with the lines of the job. The job continues if ctx ends.
func (j JobCalls) Publish(ctx context.Context, r PublishRequest, fn func(*JobLine) error) error {
	return j.start(ctx, "/v1/publish", none{}, r, fn)
}

// Sync sends sync requests. With follow, fn gets the events of their runs.
func (j JobCalls) Sync(ctx context.Context, r SyncRequest, follow bool, fn func(*JobLine) error) error {
	return j.start(ctx, "/v1/sync", FollowQuery{follow}, r, fn)
}

// Verify requests that sites check. With follow, fn gets the events of their runs.
func (j JobCalls) Verify(ctx context.Context, r VerifyRequest, follow bool, fn func(*JobLine) error) error {
	return j.start(ctx, "/v1/verify", FollowQuery{follow}, r, fn)
}

// start starts a job and follows it. The first line has the job.
func (j JobCalls) start(ctx context.Context, path string, query, in any, fn func(*JobLine) error) error {
	var job Job
	if err := j.Client.Call(ctx, http.MethodPost, path, queryOf(query), in, &job); err != nil {
		return err
	}
	if err := fn(&JobLine{Job: &job}); err != nil {
		return err
	}
	return j.Follow(ctx, job.ID, fn)
}

// Follow calls fn with the lines of a job until it has ended, and returns the job's error.
func (j JobCalls) Follow(ctx context.Context, id string, fn func(*JobLine) error) error {
	return streamJSON(ctx, j.Client, http.MethodGet, "/v1/jobs/"+url.PathEscape(id)+"/lines", none{}, nil, fn)
}

// List lists jobs.
func (j JobCalls) List(ctx context.Context, q JobsQuery) ([]Job, error) {
	return getJSON[[]Job](ctx, j.Client, "/v1/jobs", q)
}

// Show returns a job.
func (j JobCalls) Show(ctx context.Context, id string) (Job, error) {
	return getJSON[Job](ctx, j.Client, "/v1/jobs/"+url.PathEscape(id), none{})
}

// Stop stops a job.
func (j JobCalls) Stop(ctx context.Context, id string) (job Job, err error) {
	err = j.Client.Call(ctx, http.MethodDelete, "/v1/jobs/"+url.PathEscape(id), nil, nil, &job)
	return job, err
}

func logPath(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }
