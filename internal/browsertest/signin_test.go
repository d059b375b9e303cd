package browsertest

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"

	"nightferry/internal/api"
	"nightferry/internal/console"
	"nightferry/internal/consoletest"
	"nightferry/internal/door"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
	"nightferry/internal/signin"
)

// station is the console behind its door, and an identity provider.
type station struct {
	*consoletest.World
	url      string
	provider *mockoidc.MockOIDC

	mu       sync.Mutex
	settings signin.Settings
}

// newStation serves a fleet as the program does, with the rights of grants.
func newStation(t *testing.T, grants ...signin.Grant) *station {
	t.Helper()
	made := httptest.NewTLSServer(nil) // for its certificate
	pair := made.TLS.Certificates[0]
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	made.Close()

	s := &station{World: consoletest.New()}
	var err error
	if s.provider, err = mockoidc.NewServer(nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protected := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if err := s.provider.Start(tls.NewListener(l, protected), protected); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.provider.Server.Close() })
	s.settings = signin.Settings{Issuer: s.provider.Issuer(), ClientID: s.provider.ClientID, CAFile: authority, Claim: "groups", Grants: grants}
	s.open(t, &pair)
	return s
}

// open opens the door.
func (s *station) open(t *testing.T, pair *tls.Certificate) {
	t.Helper()
	sessions, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sessions.Close(); err != nil {
			t.Error(err)
		}
	})
	o := door.Options{Addr: "127.0.0.1:0", Hosts: []string{"127.0.0.1"}, Certificate: func() (*tls.Certificate, error) { return pair, nil }}
	l, err := door.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	s.url = "https://" + l.Addr().String()
	people, err := signin.Open(t.Context(), signin.Options{
		Store: &sessions.Sessions, Now: time.Now, URL: s.url, Linked: func(string, string) {},
		Audit:    func(context.Context, string, string, string, string) error { return nil },
		Settings: s.inForce,
		Secret:   func(context.Context) (string, error) { return s.provider.ClientSecret, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Backend()
	h := api.Remote(api.ServerOptions{Routes: api.Routes(b), Now: time.Now, Sessions: people, Pages: console.New(console.Options{Backend: b, SignOut: "/signin/out"})})
	done := make(chan error, 1)
	go func() { done <- door.Serve(t.Context(), l, h, o) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (s *station) inForce() *signin.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.settings
	return &x
}

// remove takes a group's role away, as a reload of the configuration does.
func (s *station) remove(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings.Grants = slices.DeleteFunc(slices.Clone(s.settings.Grants), func(g signin.Grant) bool { return g.Value == group })
}

// person has its groups in each token, also without the scope that mockoidc has for them.
type person struct{ *mockoidc.MockUser }

// Claims implements mockoidc.User.
func (p person) Claims(scope []string, base *mockoidc.IDTokenClaims) (jwt.Claims, error) {
	return p.MockUser.Claims(append(slices.Clone(scope), "groups"), base)
}

// signIn opens a page, and signs in as a person of a group by the link that is shown instead of it.
func (s *station) signIn(t *testing.T, b *browser, group, to string) {
	t.Helper()
	s.provider.QueueUser(person{&mockoidc.MockUser{Subject: group, PreferredUsername: group + "@example.com", Groups: []string{"x", group}}})
	b.do(t, network.ClearBrowserCookies(), chromedp.Navigate(s.url+to), chromedp.Click(`a[href^="/signin/start"]`, chromedp.ByQuery), chromedp.WaitVisible(`main:not(:has(a[href^="/signin/start"])) h1`, chromedp.ByQuery))
}

// refusedCall is a call whose answer is shown without a session, and from which requests may be made: the pages of signing in allow none.
const refusedCall = "/v1/health"

// answer is the answer to a request of a page's script.
type answer struct {
	Status int // 0: it leads elsewhere
	Forms  []string
}

// ask makes a request from the page that is shown, with the browser's cookies, and lists the forms of its answer.
func (b *browser) ask(t *testing.T, method, path string, form url.Values) (a answer) {
	t.Helper()
	body := "undefined"
	if method == "POST" {
		body = fmt.Sprintf("new URLSearchParams(%q)", form.Encode())
	}
	b.do(t, chromedp.Evaluate(fmt.Sprintf(`fetch(%q, {method: %q, body: %s, redirect: "manual"}).then(async r => ({Status: r.status,
		Forms: [...new DOMParser().parseFromString(await r.text(), "text/html").querySelectorAll("main form[method=post]")].map(f => f.getAttribute("action"))}))`, path, method, body), &a,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return a
}

// try is a request to a route of the console.
type try struct {
	route string // pattern
	path  string
	form  url.Values
	need  rights.Role
	on    string // page that offers a POST
	site  string // that it is about; empty: of the domain plant, or of no site
	all   bool   // it is about all sites
}

// tries are requests to all routes, those that end something last.
func tries(w *consoletest.World) []try {
	order := w.HaltList[0].Order.String()
	return []try{
		{route: "GET /{$}", path: "/", need: rights.Viewer},
		{route: "GET /live", path: "/live", need: rights.Viewer},
		{route: "GET /where", path: "/where?path=package/tools/setup.exe", need: rights.Viewer},
		{route: "GET /where.csv", path: "/where.csv?path=package/tools/setup.exe", need: rights.Viewer},
		{route: "GET /sites", path: "/sites", need: rights.Viewer},
		{route: "GET /sites/{site}", path: "/sites/osaka", need: rights.Viewer},
		{route: "GET /sites/{site}", path: "/sites/london", need: rights.Viewer, site: "london"},
		{route: "GET /halt", path: "/halt", need: rights.Viewer},
		{route: "GET /halt/{order}", path: "/halt/" + order, need: rights.Viewer},
		{route: "GET /incidents", path: "/incidents", need: rights.Viewer},
		{route: "GET /runs", path: "/runs", need: rights.Viewer},
		{route: "GET /runs/{id}", path: "/runs/" + runOf(w, "osaka"), need: rights.Viewer},
		{route: "GET /runs/{id}", path: "/runs/" + runOf(w, "london"), need: rights.Viewer, site: "london"},
		{route: "GET /releases", path: "/releases", need: rights.Viewer},
		{route: "GET /forecast", path: "/forecast", need: rights.Viewer},
		{route: "GET /audit", path: "/audit", need: rights.Viewer, all: true},
		{route: "GET /logs", path: "/logs", need: rights.Logs},
		{route: "GET /logs", path: "/logs?domain=corp", need: rights.Logs, site: "london"},
		{route: "GET /logs/{id}", path: "/logs/" + runOf(w, "osaka"), need: rights.Logs},
		{route: "GET /logs/{id}", path: "/logs/" + runOf(w, "london"), need: rights.Logs, site: "london"},
		{route: "GET /logs/{id}/file", path: "/logs/" + runOf(w, "osaka") + "/file", need: rights.Logs},
		{route: "GET /logs/{id}/file", path: "/logs/" + runOf(w, "london") + "/file", need: rights.Logs, site: "london"},
		{route: "POST /sites/{site}/{act}", path: "/sites/osaka/sync", need: rights.Operator, on: "/sites/osaka"},
		{route: "POST /sites/{site}/{act}", path: "/sites/osaka/verify", need: rights.Operator, on: "/sites/osaka"},
		{route: "POST /sites/{site}/{act}", path: "/sites/osaka/limit", form: url.Values{"rate": {"20Mbit"}}, need: rights.Operator, on: "/sites/osaka"},
		{route: "POST /sites/{site}/{act}", path: "/sites/london/sync", need: rights.Operator, on: "/sites/london", site: "london"},
		{route: "POST /halt", path: "/halt", form: url.Values{"scope": {"domain"}, "value": {"plant"}, "reason": {"x"}}, need: rights.Operator, on: "/halt?scope=domain&value=plant"},
		{route: "POST /halt", path: "/halt", form: url.Values{"scope": {"all"}, "typed": {"all"}, "reason": {"x"}}, need: rights.Operator, on: "/halt?scope=all", all: true},
		{route: "POST /incidents", path: "/incidents", form: url.Values{"id": {"31"}, "note": {"x"}, "act": {"ack"}}, need: rights.Operator, on: "/incidents"},
		{route: "GET /publish", path: "/publish", need: rights.Publisher, all: true},
		{route: "POST /publish", path: "/publish", form: url.Values{"act": {"dry-run"}, "channel": {"package"}}, need: rights.Publisher, on: "/publish", all: true},
		{route: "POST /sessions/end", path: "/sessions/end", form: url.Values{"id": {"5e551011"}}, need: rights.Admin, on: "/audit", all: true},
		{route: "POST /resume", path: "/resume", form: url.Values{"order": {order}}, need: rights.Operator, on: "/halt/" + order},
	}
}

func runOf(w *consoletest.World, site string) string {
	for _, r := range w.RunList {
		if r.Site == site && !r.Finished.IsZero() {
			return r.ID.String()
		}
	}
	panic("no run of " + site)
}

// TestRoles signs in as a person of each role, and tries every route: an allowed action is offered and done, everything else is
// neither offered nor done.
func TestRoles(t *testing.T) {
	list := tries(consoletest.New())
	for _, route := range console.Routes() {
		if !slices.ContainsFunc(list, func(x try) bool { return x.route == route }) {
			t.Errorf("%s is not tried", route)
		}
	}
	b := open(t)
	grants := []signin.Grant{{Value: "viewers", Role: rights.Viewer}, {Value: "operators", Role: rights.Operator}, {Value: "publishers", Role: rights.Publisher}, {Value: "admins", Role: rights.Admin},
		{Value: "plant", Role: rights.Operator, Scope: rights.Scope{Domain: "plant"}},
		{Value: "readers", Role: rights.Logs, Scope: rights.Scope{Domain: "plant"}}}
	for _, g := range grants {
		s := newStation(t, grants...)
		s.signIn(t, b, g.Value, "/sites?region=ap")
		var at, who string
		b.do(t, chromedp.Location(&at), chromedp.Evaluate(`(document.querySelector(".who") ?? document.body).innerText`, &who))
		if want := fmt.Sprintf("user %s@example.com, %s of %s", g.Value, g.Role, g.Scope); who != want || at != s.url+"/sites?region=ap" {
			t.Fatalf("signed in at %s as %q, want %q", at, who, want)
		}
		for _, x := range list {
			s.try(t, b, g, x)
		}
		s.signOut(t, b, list)
		b.check(t, g.Value)
	}
}

// try makes one request, and compares the offer, the answer and the deed with the rights.
func (s *station) try(t *testing.T, b *browser, g signin.Grant, x try) {
	t.Helper()
	method, _, _ := strings.Cut(x.route, " ")
	may := g.Role >= x.need && (g.Scope.All() || !x.all && x.site == "")
	what := fmt.Sprintf("%s: %s %s %v", g.Value, method, x.path, x.form)
	if x.on != "" {
		offered := b.ask(t, "GET", x.on, nil)
		if got := slices.Contains(offered.Forms, x.path); got != may {
			t.Errorf("%s: %s offers it: %v, want %v", what, x.on, got, may)
		}
	}
	before := len(s.Deeds())
	got := b.ask(t, method, x.path, x.form)
	deeds := slices.DeleteFunc(s.Deeds()[before:], func(d string) bool { return strings.HasPrefix(d, "audit refused") })
	want, n := 403, 0
	switch {
	case may && method == "GET":
		want = 200
	case may:
		want, n = 0, 1 // to the page that shows the result
	case x.path == "/" && g.Role == rights.Logs:
		want = 0 // to the only page that they may see
	}
	if got.Status != want && (got.Status != 404 || x.site == "") || len(deeds) != n { // a site outside of the scope does not exist for the person
		t.Errorf("%s: status %d, want %d; done: %q", what, got.Status, want, deeds)
	}
}

// signOut signs out by the button. No request counts after it.
func (s *station) signOut(t *testing.T, b *browser, list []try) {
	t.Helper()
	b.do(t, chromedp.Click(`form[action="/signin/out"] button`, chromedp.ByQuery), chromedp.WaitVisible(`a[href^="/signin/start"]`, chromedp.ByQuery), chromedp.Navigate(s.url+refusedCall))
	before := len(s.Deeds())
	for _, x := range list {
		method, _, _ := strings.Cut(x.route, " ")
		want := 0 // to the page that signs in
		if method == "POST" {
			want = 401
		}
		if got := b.ask(t, method, x.path, x.form); got.Status != want {
			t.Errorf("signed out: %s %s: status %d, want %d", method, x.path, got.Status, want)
		}
	}
	if done := s.Deeds()[before:]; len(done) > 0 {
		t.Errorf("signed out, and done: %q", done)
	}
}

// TestRoleRemoved removes a role from a person who has signed in: the next request is refused. A person without a role does not get in.
func TestRoleRemoved(t *testing.T) {
	s := newStation(t, signin.Grant{Value: "operators", Role: rights.Operator}, signin.Grant{Value: "viewers", Role: rights.Viewer})
	b := open(t)
	var text string
	s.signIn(t, b, "strangers", "/")
	b.do(t, chromedp.Text("main", &text, chromedp.ByQuery))
	b.do(t, chromedp.Navigate(s.url+refusedCall))
	if !strings.Contains(text, "You are not signed in") || b.ask(t, "GET", "/sites", nil).Status != 0 {
		t.Errorf("a person without a role: %q", text)
	}
	s.signIn(t, b, "operators", "/sites/osaka")
	if got := b.ask(t, "POST", "/sites/osaka/sync", nil); got.Status != 0 || len(s.Deeds()) != 1 {
		t.Fatalf("with the role: %d, %q", got.Status, s.Deeds())
	}
	s.remove("operators")
	if got := b.ask(t, "POST", "/sites/osaka/sync", nil); got.Status != 401 || len(s.Deeds()) != 1 {
		t.Errorf("without the role: %d, %q", got.Status, s.Deeds())
	}
	b.do(t, chromedp.Navigate(s.url+"/sites"), chromedp.Text("main", &text, chromedp.ByQuery))
	if !strings.Contains(text, "Sign in") || strings.Contains(text, "osaka") {
		t.Errorf("without the role, the page reads %q", text)
	}
}
