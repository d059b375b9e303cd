package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/vault"
)

// KillSwitchTime bounds a call of the kill switch. A halt whose turn comes later
// is not carried out.
const KillSwitchTime = 10 * time.Second

// Past selects what happened. Zero fields select all.
type Past struct {
	fleet.Scope
	Core         bool // only the Core's own runs
	Since, Until time.Time
	Limit        int
}

func (p Past) queryValues() url.Values {
	q := scopeQuery(p.Scope)
	for name, t := range map[string]time.Time{"since": p.Since, "until": p.Until} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	setFlag(q, "core", p.Core)
	if p.Limit > 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	return q
}

func scopeQuery(s fleet.Scope) url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"site": s.Site, "region": s.Region, "domain": s.Domain, "channel": s.Channel} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q
}

func setFlag(q url.Values, name string, set bool) {
	if set {
		q.Set(name, "true")
	}
}

// getJSON decodes the answer to a GET.
func getJSON[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	err = c.Call(ctx, http.MethodGet, path, query, nil, &out)
	return out, err
}

// postJSON decodes the answer to a POST with a body.
func postJSON[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	err = c.Call(ctx, http.MethodPost, path, nil, in, &out)
	return out, err
}

// streamJSON calls fn with each decoded line of an answer.
func streamJSON[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any, fn func(*T) error) error {
	return c.Stream(ctx, method, path, query, in, func(raw json.RawMessage) error {
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
func (c *Client) Health(ctx context.Context) (core.Health, error) {
	return getJSON[core.Health](ctx, c, "/v1/health", nil)
}

// Status returns the fleet in numbers.
func (c *Client) Status(ctx context.Context) (query.Status, error) {
	return getJSON[query.Status](ctx, c, "/v1/status", nil)
}

// Sites lists the sites of a scope.
func (c *Client) Sites(ctx context.Context, s fleet.Scope) ([]query.SiteStatus, error) {
	return getJSON[[]query.SiteStatus](ctx, c, "/v1/sites", scopeQuery(s))
}

// Why lists the deviations of a scope.
func (c *Client) Why(ctx context.Context, s fleet.Scope) ([]query.Reason, error) {
	return getJSON[[]query.Reason](ctx, c, "/v1/why", scopeQuery(s))
}

// Where lists the sites that have a file.
func (c *Client) Where(ctx context.Context, channel, path string) ([]query.Place, error) {
	return getJSON[[]query.Place](ctx, c, "/v1/where", url.Values{"channel": {channel}, "path": {path}})
}

// Tasks lists the Core's periodic tasks.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	return getJSON[[]Task](ctx, c, "/v1/tasks", nil)
}

// Incidents lists open incidents, with all also resolved ones.
func (c *Client) Incidents(ctx context.Context, all bool) ([]query.Incident, error) {
	q := url.Values{}
	setFlag(q, "all", all)
	return getJSON[[]query.Incident](ctx, c, "/v1/incidents", q)
}

// CloseIncident closes an open incident.
func (c *Client) CloseIncident(ctx context.Context, n IncidentNote) (query.Incident, error) {
	return postJSON[query.Incident](ctx, c, "/v1/incidents/close", n)
}

// AckIncident acknowledges an open incident.
func (c *Client) AckIncident(ctx context.Context, n IncidentNote) (query.Incident, error) {
	return postJSON[query.Incident](ctx, c, "/v1/incidents/ack", n)
}

// TestAlerts sends a test alert. An empty to means all recipients.
func (c *Client) TestAlerts(ctx context.Context, to string) ([]core.AlertTest, error) {
	return postJSON[[]core.AlertTest](ctx, c, "/v1/alerts/test", AlertRequest{to})
}

// Runs lists runs, the newest first. An empty state selects all; open selects
// those under way.
func (c *Client) Runs(ctx context.Context, p Past, state runs.State, open bool) ([]Run, error) {
	q := p.queryValues()
	if state != "" {
		q.Set("state", string(state))
	}
	setFlag(q, "open", open)
	return getJSON[[]Run](ctx, c, "/v1/runs", q)
}

// RunShow calls fn with a run, and then with each of its files. With all, it
// includes unchanged files.
func (c *Client) RunShow(ctx context.Context, id string, all bool, fn func(*RunLine) error) error {
	q := url.Values{}
	setFlag(q, "all", all)
	return streamJSON(ctx, c, http.MethodGet, "/v1/runs/"+url.PathEscape(id), q, nil, fn)
}

// Exceptions lists files that failed, were locked or were repaired.
func (c *Client) Exceptions(ctx context.Context, p Past) ([]Exception, error) {
	return getJSON[[]Exception](ctx, c, "/v1/exceptions", p.queryValues())
}

// Audit lists audit entries, the newest first. Empty who and what select all;
// reads includes the reads of the vault.
func (c *Client) Audit(ctx context.Context, p Past, who, what string, reads bool) ([]AuditEntry, error) {
	q := p.queryValues()
	q.Set("who", who)
	q.Set("what", what)
	setFlag(q, "reads", reads)
	return getJSON[[]AuditEntry](ctx, c, "/v1/audit", q)
}

// Logs calls fn with each log file. An empty run selects all.
func (c *Client) Logs(ctx context.Context, p Past, run string, fn func(*LogFile) error) error {
	q := p.queryValues()
	q.Set("run", run)
	return streamJSON(ctx, c, http.MethodGet, "/v1/logs", q, nil, fn)
}

// Plan forecasts the runs of a scope. A zero from means now.
func (c *Client) Plan(ctx context.Context, s fleet.Scope, from time.Time, days int) (query.NightPlan, error) {
	q := scopeQuery(s)
	q.Set("days", strconv.Itoa(days))
	if !from.IsZero() {
		q.Set("at", from.Format(time.RFC3339))
	}
	return getJSON[query.NightPlan](ctx, c, "/v1/plan", q)
}

// Limit limits the rate of sites.
func (c *Client) Limit(ctx context.Context, r core.LimitRequest) ([]core.Limited, error) {
	return postJSON[[]core.Limited](ctx, c, "/v1/limit", r)
}

// Tokens issues enrollment tokens.
func (c *Client) Tokens(ctx context.Context, r TokenRequest) ([]core.IssuedToken, error) {
	return postJSON[[]core.IssuedToken](ctx, c, "/v1/tokens", r)
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
func (c *Client) Secrets(ctx context.Context) ([]vault.Info, error) {
	return getJSON[[]vault.Info](ctx, c, "/v1/secrets", nil)
}

// ChangeSecret stores a secret; with rotate, one that exists.
func (c *Client) ChangeSecret(ctx context.Context, rotate bool, r SecretRequest) (SecretChange, error) {
	path := "/v1/secrets/set"
	if rotate {
		path = "/v1/secrets/rotate"
	}
	return postJSON[SecretChange](ctx, c, path, r)
}

// Reload lets the Core read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	return postJSON[Reloaded](ctx, c, "/v1/reload", nil)
}

// Held returns the releases that sites hold or should hold.
func (c *Client) Held(ctx context.Context) (Held, error) {
	return getJSON[Held](ctx, c, "/v1/held", nil)
}

// Halts lists the active halt orders, with all also lifted ones.
func (c *Client) Halts(ctx context.Context, all bool) ([]core.HaltView, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	q := url.Values{}
	setFlag(q, "all", all)
	return getJSON[[]core.HaltView](ctx, c, "/v1/halts", q)
}

// Halt issues a halt order.
func (c *Client) Halt(ctx context.Context, r core.HaltRequest) (core.HaltChange, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	return postJSON[core.HaltChange](ctx, c, "/v1/halt", r)
}

// Resume lifts halt orders.
func (c *Client) Resume(ctx context.Context, r ResumeRequest) (core.HaltChange, error) {
	ctx, cancel := urgentContext(ctx)
	defer cancel()
	return postJSON[core.HaltChange](ctx, c, "/v1/resume", r)
}

// Publish publishes, and calls fn with the progress and the results.
func (c *Client) Publish(ctx context.Context, r PublishRequest, fn func(*PublishLine) error) error {
	return streamJSON(ctx, c, http.MethodPost, "/v1/publish", nil, r, fn)
}

// Sync sends sync requests. With follow, fn gets the events of their runs.
func (c *Client) Sync(ctx context.Context, r core.SyncRequest, follow bool, fn func(*FollowLine) error) error {
	q := url.Values{}
	setFlag(q, "follow", follow)
	return streamJSON(ctx, c, http.MethodPost, "/v1/sync", q, r, fn)
}

// Verify requests that sites check. With follow, fn gets the events of their runs.
func (c *Client) Verify(ctx context.Context, r core.VerifyRequest, follow bool, fn func(*FollowLine) error) error {
	q := url.Values{}
	setFlag(q, "follow", follow)
	return streamJSON(ctx, c, http.MethodPost, "/v1/verify", q, r, fn)
}

func logPath(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }
