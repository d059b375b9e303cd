package signin

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// world is a service over a real ledger, with a clock of its own.
type world struct {
	*Service
	t        *testing.T
	ledger   *ledger.Ledger
	path     string
	now      time.Time
	settings *Settings
	audits   []string
	linked   []string
	failing  error // of the audit
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC), path: filepath.Join(t.TempDir(), "ledger.db")}
	var err error
	if w.ledger, err = ledger.Open(t.Context(), w.path, ledger.Options{Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	w.open()
	return w
}

// open starts the service, as a new process does.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.Service, err = Open(w.t.Context(), Options{
		Store: &w.ledger.Sessions, Now: func() time.Time { return w.now }, URL: "https://core.example.com",
		Audit: func(_ context.Context, who, what, object, detail string) error {
			w.audits = append(w.audits, strings.Join([]string{who, what, object, detail}, "|"))
			return w.failing
		},
		Linked:   func(id, text string) { w.linked = append(w.linked, id+" "+text) },
		Settings: func() *Settings { return w.settings },
		Secret:   func(context.Context) (string, error) { return "the client's secret", nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// browser keeps cookies.
type browser struct {
	w       *world
	cookies map[string]string
}

func (w *world) browser() *browser { return &browser{w, map[string]string{}} }

func (b *browser) request(method, target string, form url.Values) *http.Request {
	req := httptest.NewRequestWithContext(b.w.t.Context(), method, target, strings.NewReader(form.Encode()))
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return req
}

// ask makes a request, checks each cookie that it sets, and returns the answer.
func (b *browser) ask(method, target string, form url.Values) *httptest.ResponseRecorder {
	b.w.t.Helper()
	rec := httptest.NewRecorder()
	b.w.ServeHTTP(rec, b.request(method, target, form))
	for _, c := range rec.Result().Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			b.w.t.Errorf("cookie %v", c)
		}
		b.cookies[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return rec
}

// who returns the principal of the browser's session; false if it has none.
func (b *browser) who() (rights.Principal, bool) {
	p, _, ok := b.w.Identify(b.request(http.MethodGet, "/", nil))
	return p, ok
}

// useLink signs in by a new link of an account.
func (b *browser) useLink(who string) *httptest.ResponseRecorder {
	b.w.t.Helper()
	text, _, err := b.w.Link(b.w.t.Context(), who)
	if err != nil {
		b.w.t.Fatal(err)
	}
	_, secret, _ := strings.Cut(text, linkPath)
	return b.ask(http.MethodPost, "/signin/link", url.Values{"link": {secret}})
}

// provide makes a provider the one in force.
func (w *world) provide(p *fakeProvider) {
	w.t.Helper()
	ca := filepath.Join(w.t.TempDir(), "ca.pem")
	if err := durable.WritePrivate(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})); err != nil {
		w.t.Fatal(err)
	}
	w.settings = &Settings{Issuer: p.URL, ClientID: "nightferry", CAFile: ca, Claim: "groups", Grants: []Grant{
		{"admins", rights.Admin, rights.Scope{}}, {"g7", rights.Operator, rights.Scope{Region: "ap"}}, {"everyone", rights.Viewer, rights.Scope{}},
	}}
}

// begin goes to the provider, and returns the request to the provider.
func (b *browser) begin(to string) url.Values {
	b.w.t.Helper()
	rec := b.ask(http.MethodGet, "/signin/start?"+url.Values{"to": {to}}.Encode(), nil)
	at, err := url.Parse(rec.Header().Get("Location"))
	if err != nil || rec.Code != http.StatusSeeOther || !strings.HasPrefix(at.String(), b.w.settings.Issuer+"/authorize?") {
		b.w.t.Fatalf("begin: %d %q %s", rec.Code, at, rec.Body)
	}
	return at.Query()
}

// signIn signs in as the provider's person.
func (b *browser) signIn(p *fakeProvider, to string) *httptest.ResponseRecorder {
	b.w.t.Helper()
	asked := b.begin(to)
	return b.comeBack(p.code(asked), asked.Get("state"))
}

func (b *browser) comeBack(code, state string) *httptest.ResponseRecorder {
	b.w.t.Helper()
	return b.ask(http.MethodGet, "/signin/callback?"+url.Values{"code": {code}, "state": {state}}.Encode(), nil)
}

func groups(n int) []any {
	var out []any
	for i := range n {
		out = append(out, fmt.Sprintf("g%d", i))
	}
	return out
}
