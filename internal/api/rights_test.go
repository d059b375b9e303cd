package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// targets are the subjects of a call: a site, or everything.
var targets = []string{"rome", "oslo", ""}

// parts fills in a call about a target: path values and parameters, and the body.
func parts(route, target string) (query url.Values, body any) {
	domain := map[string]string{"rome": "alpha", "oslo": "beta"}[target]
	scope := Scope{Site: target}
	halted := HaltRequest{Scope: "site", Value: target}
	if target == "" {
		halted.Scope = "all"
	}
	n := map[string]int64{"rome": 4, "oslo": 2, "": 9}[target] // incidents of the world
	run := map[string]string{"rome": runOfSite(1).String(), "oslo": runOfSite(0).String(), "": "ff"}[target]
	q := url.Values{}
	if target != "" {
		q.Set("site", target)
	}
	switch route {
	case "GET /v1/openapi.json", "GET /v1/health", "GET /v1/status", "GET /v1/tasks", "GET /v1/halts", "GET /v1/held", "GET /v1/secrets", "GET /v1/incidents", "GET /v1/audit":
		return nil, nil
	case "GET /v1/sites", "GET /v1/why", "GET /v1/plan", "GET /v1/windows", "GET /v1/runs", "GET /v1/exceptions", "GET /v1/logs", "GET /v1/events":
		return q, nil
	case "GET /v1/jobs":
		return nil, nil
	case "GET /v1/jobs/{id}", "GET /v1/jobs/{id}/lines", "DELETE /v1/jobs/{id}":
		return url.Values{"id": {"job-" + map[string]string{"": "all"}[target] + target}}, nil
	case "GET /v1/runs/{id}":
		return url.Values{"id": {run}}, nil
	case "GET /v1/where":
		return url.Values{"channel": {"package"}, "path": {"x"}}, nil
	case "POST /v1/incidents/close", "POST /v1/incidents/ack":
		return nil, IncidentNote{ID: n}
	case "POST /v1/alerts/test":
		return nil, AlertRequest{}
	case "POST /v1/tokens":
		return nil, TokenRequest{Site: target, Wave: 1}
	case "POST /v1/sites/revoke", "POST /v1/sites/confirm":
		return nil, Subject{Name: target}
	case "POST /v1/domains/revoke":
		return nil, Subject{Name: domain}
	case "POST /v1/secrets/set", "POST /v1/secrets/rotate":
		return nil, SecretRequest{Name: "x"}
	case "GET /v1/access", "GET /v1/console", "POST /v1/console/link", "GET /v1/sessions":
		return nil, nil
	case "POST /v1/sessions/end":
		return nil, SessionEnd{ID: "x"}
	case "POST /v1/access/create":
		return nil, APITokenRequest{Name: "x", Role: "viewer"}
	case "POST /v1/access/revoke":
		return nil, APITokenID{ID: "x"}
	case "POST /v1/reload":
		return nil, nil
	case "POST /v1/limit":
		return nil, LimitRequest{Scope: scope, All: scope == Scope{}}
	case "POST /v1/halt":
		return nil, halted
	case "POST /v1/resume":
		if target == "" {
			return nil, ResumeRequest{Scope: "all"}
		}
		return nil, ResumeRequest{Order: orderOfSite[target].String()}
	case "POST /v1/publish":
		return nil, PublishRequest{}
	case "POST /v1/sync":
		return url.Values{"follow": {"true"}}, SyncRequest{Scope: scope, All: scope == Scope{}}
	case "POST /v1/verify":
		return nil, VerifyRequest{Scope: scope, All: scope == Scope{}}
	}
	return nil, "unknown"
}

// try makes a call as a principal, and returns refused, nothing (there is no such thing, or the answer is empty), own
// (the answer or the deed is about rome alone) or yes.
func try(t *testing.T, r *Route, p rights.Principal, target string) string {
	t.Helper()
	w := newWorld()
	route := *r
	for _, x := range Routes(w.backend()) {
		if x.Method == r.Method && x.Path == r.Path {
			route = x
		}
	}
	query, body := parts(r.Method+" "+r.Path, target)
	if body == "unknown" {
		t.Fatalf("%s %s is not in the matrix: enter the subject of its calls", r.Method, r.Path)
	}
	req := httptest.NewRequest(r.Method, "/", nil)
	if id := query.Get("id"); id != "" {
		req.SetPathValue("id", id)
		query.Del("id")
	}
	req.URL.RawQuery = query.Encode()
	out := httptest.NewRecorder()
	c := &Call{Principal: p, now: time.Now, r: req, w: out}
	c.body, _ = json.Marshal(body)
	answer, err := route.Handle(t.Context(), c)
	text, _ := json.Marshal(answer)
	text = append(text, out.Body.Bytes()...)
	var denied *rights.DeniedError
	var told *Error
	var unknown *fleet.UnknownError
	switch {
	case errors.As(err, &denied):
		if len(w.deeds) > 0 || len(w.audits) == 0 || !strings.Contains(w.audits[0], p.Name) {
			t.Errorf("%s %s %q as %+v: refused, did %q, audited %q", r.Method, r.Path, target, p, w.deeds, w.audits)
		}
		return "refused"
	case errors.Is(err, ledger.ErrNotFound) || errors.Is(err, core.ErrNoOrder) || errors.As(err, &unknown) || errors.As(err, &told) && told.Code == "absent":
		if len(w.deeds) > 0 {
			t.Errorf("%s %s %q as %+v: absent, did %q", r.Method, r.Path, target, p, w.deeds)
		}
		return "nothing"
	case err != nil:
		t.Fatalf("%s %s %q as %+v: %v", r.Method, r.Path, target, p, err)
	case strings.HasSuffix(r.Path, "health") && bytes.Contains(text, []byte(`"live":true`)):
		if !p.Scope.All() && bytes.Contains(text, []byte("oslo")) {
			t.Error("health names sites to a limited principal")
		}
		return "yes"
	case bytes.Contains(text, []byte("oslo")) || len(w.deeds) > 0 && target != "rome":
		return "yes"
	case bytes.Contains(text, []byte("rome")) || len(w.deeds) > 0:
		return "own"
	case strings.HasSuffix(r.Path, ".json"):
		return "yes"
	}
	return "nothing"
}

// cell is the matrix's entry of a role and a route.
func cell(t *testing.T, r *Route, role rights.Role) string {
	outcome := func(s rights.Scope) map[string]string {
		out := map[string]string{}
		for _, target := range targets {
			out[target] = try(t, r, rights.Principal{Name: "token kay", Role: role, Scope: s}, target)
		}
		return out
	}
	all := outcome(rights.Scope{})
	if all["oslo"] == "refused" {
		for _, s := range []rights.Scope{{Domain: "alpha"}, {Region: "emea"}} {
			for target, got := range outcome(s) {
				if got != "refused" && got != "nothing" {
					t.Errorf("%s %s %q: %s over %s: %s, and over all sites refused", r.Method, r.Path, target, role, s, got)
				}
			}
		}
		return "no"
	}
	if all["oslo"] != "yes" {
		t.Errorf("%s %s: %s over all: %v", r.Method, r.Path, role, all)
	}
	limited := func(s rights.Scope) string {
		got := outcome(s)
		foreign := got["oslo"]
		switch {
		case got["rome"] == "yes" && foreign == "yes":
			return "yes"
		case got["rome"] == "own" && (foreign == "refused" || foreign == "nothing" || foreign == "own") && got[""] != "yes":
			return "its sites"
		case got["rome"] == "refused" && foreign == "refused" && got[""] == "refused":
			return "over all sites"
		}
		t.Errorf("%s %s: %s over %s: %v", r.Method, r.Path, role, s, got)
		return "?"
	}
	domain, region := limited(rights.Scope{Domain: "alpha"}), limited(rights.Scope{Region: "emea"})
	if domain != region {
		return fmt.Sprintf("%s; a region: %s", domain, strings.ReplaceAll(region, "over all sites", "no"))
	}
	return domain
}

const (
	matrixBegins = "<!-- rights: go test ./internal/api -run TestRights -update -->\n"
	matrixEnds   = "<!-- end of rights -->\n"
)

// TestRights tries every route with every role, over all sites, a domain and a region, about a site of its own, another
// one and everything, and compares the result with docs/threats.md.
func TestRights(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| | none |")
	for _, role := range rights.Roles() {
		fmt.Fprintf(&b, " %s |", role)
	}
	b.WriteString("\n| --- | --- | --- | --- | --- | --- | --- |\n")
	list := Routes(newWorld().backend())
	for i := range list {
		r := &list[i]
		fmt.Fprintf(&b, "| `%s %s` | %s |", r.Method, r.Path, cell(t, r, 0))
		for _, role := range rights.Roles() {
			fmt.Fprintf(&b, " %s |", cell(t, r, role))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	const file = "../../docs/threats.md"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), matrixBegins)
	want, after, ok2 := strings.Cut(rest, matrixEnds)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks of the matrix are gone", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+matrixBegins+b.String()+matrixEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("%s (-) is not so (+):\n%s", file, d)
	}
}

// TestLinkIsLocal checks that only a caller of the local socket gets a console link, whatever the rights of others.
func TestLinkIsLocal(t *testing.T) {
	w := newWorld()
	g := Guarded(w.backend())
	p := rights.Principal{Name: "token kay", Role: rights.Admin}
	var denied *rights.DeniedError
	if _, err := g.Console.Link(rights.With(t.Context(), p)); !errors.As(err, &denied) || !strings.Contains(err.Error(), "local socket") || len(w.deeds) > 0 {
		t.Errorf("an administrator's token: %v, %q", err, w.deeds)
	}
	if _, err := g.Console.Link(rights.With(t.Context(), Caller{User: "kay"}.principal())); err != nil || len(w.deeds) != 1 {
		t.Errorf("a caller of the local socket: %v, %q", err, w.deeds)
	}
}

// TestRefusalsAreBounded checks that a principal that repeats a refused call does not fill the audit, and that a long
// name does not either.
func TestRefusalsAreBounded(t *testing.T) {
	w := newWorld()
	now := time.Unix(1000, 0)
	b := w.backend()
	b.Now = func() time.Time { return now }
	g := Guarded(b)
	ctx := rights.With(context.Background(), rights.Principal{Name: "token kay", Role: rights.Viewer})
	ask := func(value string) {
		t.Helper()
		var denied *rights.DeniedError
		if _, err := g.Halts.Halt(ctx, core.HaltRequest{Scope: "site", Value: value}); !errors.As(err, &denied) {
			t.Fatal(err)
		}
	}
	for range 100 {
		ask("rome")
	}
	if len(w.audits) != 1 {
		t.Errorf("%d entries of one refusal: %q", len(w.audits), w.audits)
	}
	now = now.Add(auditAgain)
	ask("rome")
	ask(strings.Repeat("x", 100_000))
	if len(w.audits) != 3 || len(w.audits[2]) > 4*maxRefused {
		t.Errorf("%d entries, the last with %d bytes", len(w.audits), len(w.audits[len(w.audits)-1]))
	}
	if _, err := g.Halts.Halt(context.Background(), core.HaltRequest{Scope: "all"}); err == nil || len(w.deeds) > 0 {
		t.Errorf("without a principal: %v, %q", err, w.deeds)
	}
}
