package signin

import (
	"html"
	"net/http"
	"strings"
	"testing"
	"time"

	"nightferry/internal/rights"
)

func newProvided(t *testing.T) (*world, *fakeProvider) {
	t.Helper()
	w := newWorld(t)
	p := newProvider(t, func() time.Time { return w.now })
	w.provide(p)
	return w, p
}

// TestSignIn checks a sign-in with its way back, and the session and audit that it leaves.
func TestSignIn(t *testing.T) {
	w, p := newProvided(t)
	b := w.browser()
	asked := b.begin("/sites/oslo?since=1")
	if asked.Get("redirect_uri") != "https://core.example.com/signin/callback" || asked.Get("response_type") != "code" || len(asked.Get("state")) < 40 || len(asked.Get("nonce")) < 40 {
		t.Errorf("asked %v", asked)
	}
	rec := b.comeBack(p.code(asked), asked.Get("state"))
	if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/sites/oslo?since=1" {
		t.Fatalf("%d %q %s", rec.Code, rec.Header().Get("Location"), rec.Body)
	}
	want := rights.Principal{Name: "user kay@example.com", Role: rights.Operator, Scope: rights.Scope{Region: "ap"}}
	if who, ok := b.who(); !ok || who != want {
		t.Errorf("%+v %t", who, ok)
	}
	if _, left := b.cookies[pendingCookie]; left {
		t.Error("the sign-in's own cookie stays")
	}
	if len(w.audits) != 1 || !strings.HasPrefix(w.audits[0], "user kay@example.com|sign in|console|role operator over region ap, subject \"s-1\"") {
		t.Errorf("audit %q", w.audits)
	}
}

// TestBadTokens checks that no ID token counts that is not the provider's, for this application, person and sign-in.
func TestBadTokens(t *testing.T) {
	w, p := newProvided(t)
	hs256 := p.secretOf(t)
	for name, x := range map[string]struct {
		change func(header, claims map[string]any)
		sign   func(string) []byte
	}{
		"nonce of another":     {change: set(map[string]any{"nonce": "other"})},
		"no nonce":             {change: set(map[string]any{"nonce": nil})},
		"audience":             {change: set(map[string]any{"aud": "another"})},
		"no audience":          {change: set(map[string]any{"aud": nil})},
		"several audiences":    {change: set(map[string]any{"aud": []string{"nightferry", "another"}})},
		"for another (azp)":    {change: set(map[string]any{"aud": []string{"nightferry", "another"}, "azp": "another"})},
		"issuer":               {change: set(map[string]any{"iss": "https://evil.example"})},
		"expired":              {change: set(map[string]any{"exp": w.now.Add(-time.Hour).Unix()})},
		"no expiry":            {change: set(map[string]any{"exp": nil})},
		"no subject":           {change: set(map[string]any{"sub": nil})},
		"alg none":             {change: func(h, _ map[string]any) { h["alg"] = "none" }, sign: func(string) []byte { return nil }},
		"HS256, public key":    {change: func(h, _ map[string]any) { h["alg"] = "HS256" }, sign: hs256},
		"another signature":    {sign: func(string) []byte { return make([]byte, 256) }},
		"another key":          {change: func(h, _ map[string]any) { h["kid"] = "unknown" }, sign: func(string) []byte { return make([]byte, 256) }},
		"no groups":            {change: set(map[string]any{"groups": nil})},
		"groups without roles": {change: set(map[string]any{"groups": []any{"x", "y"}})},
		"groups of numbers":    {change: set(map[string]any{"groups": []any{7}})},
		"more than 1000":       {change: set(map[string]any{"groups": groups(maxValues + 1)})},
		"overage by names":     {change: set(map[string]any{"groups": nil, "_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/groups"}}})},
		"overage beside some":  {change: set(map[string]any{"_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/groups"}}})},
		"overage, implicit":    {change: set(map[string]any{"groups": nil, "hasgroups": true})},
		"overage as text":      {change: set(map[string]any{"groups": nil, "hasgroups": "true"})},
	} {
		p.misbehave(x.change, x.sign)
		b := w.browser()
		rec := b.signIn(p, "/")
		text := html.UnescapeString(rec.Body.String())
		if _, ok := b.who(); ok || rec.Code < 400 || b.cookies[cookieName] != "" {
			t.Errorf("%s: %d %v", name, rec.Code, rec.Header())
		}
		if strings.HasPrefix(name, "overage") && (!strings.Contains(text, "more values") || !strings.Contains(text, "app roles")) {
			t.Errorf("%s: %s", name, text)
		}
		if strings.Contains(text, "the client's secret") {
			t.Errorf("%s: the page has the secret", name)
		}
	}
	if len(w.List()) > 0 || len(w.audits) != 1 || !strings.HasPrefix(w.audits[0], "sign-in|refused|console|") {
		t.Errorf("%d sessions, audit %q", len(w.List()), w.audits)
	}
}

// TestForeignAnswers checks that an answer counts only in the browser that asked for it, once, and in time.
func TestForeignAnswers(t *testing.T) {
	w, p := newProvided(t)
	refused := func(what string, b *browser, code, state string) {
		t.Helper()
		if rec := b.comeBack(code, state); rec.Code != http.StatusForbidden || b.cookies[cookieName] != "" {
			t.Errorf("%s: %d %s", what, rec.Code, rec.Body)
		}
	}
	b := w.browser()
	asked := b.begin("/")
	refused("another browser", w.browser(), p.code(asked), asked.Get("state"))
	refused("another state", b, p.code(asked), "other")
	asked = b.begin("/")
	refused("no state", b, p.code(asked), "")
	asked = b.begin("/")
	w.now = w.now.Add(pendingFor)
	refused("too late", b, p.code(asked), asked.Get("state"))
	b.cookies[pendingCookie] = "e30"
	refused("an empty sign-in", b, "code", "")
	p.replay = true // also a provider that takes a code twice
	asked = b.begin("/")
	kept, code := b.cookies[pendingCookie], p.code(asked)
	if rec := b.comeBack(code, asked.Get("state")); rec.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	thief := w.browser()
	thief.cookies[pendingCookie] = kept
	refused("replayed", thief, code, asked.Get("state"))
	if rec := w.browser().ask(http.MethodGet, "/signin/callback?error=access_denied&error_description=%3Cscript%3E&state=x", nil); rec.Code != http.StatusForbidden || strings.Contains(rec.Body.String(), "<script") {
		t.Errorf("an error of the provider: %d %s", rec.Code, rec.Body)
	}
}

// TestReturnPath checks that a sign-in returns to this console only.
func TestReturnPath(t *testing.T) {
	for to, want := range map[string]string{
		"/": "/", "/sites?x=1&y=%2F#z": "/sites?x=1&y=%2F", "/a/../b": "/a/../b", "": "/", "sites": "/", "https://evil.example/": "/", "//evil.example": "/", "/\\evil.example": "/", "\\\\evil.example": "/",
		"///evil.example": "/", "/%2Fevil.example": "/", "/\tevil": "/", "/\n//evil.example": "/", "javascript:alert(1)": "/", "/signin/out": "/", "/signin": "/", "//core.example.com@evil.example": "/", "https:/evil.example": "/", "/" + strings.Repeat("x", 2000): "/",
	} {
		if got := safePath(to); got != want {
			t.Errorf("%q: %q, want %q", to, got, want)
		}
	}
	w, p := newProvided(t)
	if rec := w.browser().signIn(p, "//evil.example/x"); rec.Header().Get("Location") != "/" {
		t.Errorf("returns to %q", rec.Header().Get("Location"))
	}
	rec := w.browser().ask(http.MethodGet, "/signin?to=//evil.example", nil)
	if rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), "evil") || !strings.Contains(rec.Body.String(), "/signin/start?to=%2F") {
		t.Errorf("the page: %d %s", rec.Code, rec.Body)
	}
}

// TestManyGroups checks a person of 200 groups, and of 100 sessions, of which the newest twenty stay.
func TestManyGroups(t *testing.T) {
	w, p := newProvided(t)
	p.misbehave(set(map[string]any{"groups": groups(200)}), nil)
	var all []*browser
	for range 100 {
		w.now = w.now.Add(time.Second)
		b := w.browser()
		if rec := b.signIn(p, "/"); rec.Code != http.StatusSeeOther {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		all = append(all, b)
	}
	good := 0
	for _, b := range all {
		if who, ok := b.who(); ok && who.Role == rights.Operator {
			good++
		}
	}
	list, err := w.ledger.Sessions.List(t.Context())
	if _, newest := all[99].who(); err != nil || !newest || good != maxOfOne || len(w.List()) != maxOfOne || len(list) != maxOfOne {
		t.Errorf("%d sessions are good, %d are listed, %d are stored: %v", good, len(w.List()), len(list), err)
	}
}

// TestRoleRemoved checks that the configuration in force decides at each request, also for a stream under way.
func TestRoleRemoved(t *testing.T) {
	w, p := newProvided(t)
	b := w.browser()
	b.signIn(p, "/")
	_, valid, ok := w.Identify(b.request(http.MethodGet, "/", nil))
	if !ok || !valid() {
		t.Fatal("not signed in")
	}
	first := *w.settings
	change := func(what string, s *Settings, role rights.Role) {
		t.Helper()
		w.settings = s
		if who, ok := b.who(); who.Role != role || ok != (role > 0) || valid() != (s == &first) {
			t.Errorf("%s: %+v %t, the stream goes on: %t", what, who, ok, valid())
		}
	}
	less, none, other := first, first, first
	less.Grants = []Grant{{"x", rights.Viewer, rights.Scope{}}}
	none.Grants = nil
	other.Issuer = "https://other.example"
	change("another role", &less, rights.Viewer)
	change("no role", &none, 0)
	change("another provider", &other, 0)
	change("no provider", nil, 0)
	change("as it was", &first, rights.Operator)
}

// TestRotatedKeys checks that a new key of the provider counts, and that the session of an old one stays.
func TestRotatedKeys(t *testing.T) {
	w, p := newProvided(t)
	b := w.browser()
	b.signIn(p, "/")
	p.rotate(t)
	if rec := w.browser().signIn(p, "/"); rec.Code != http.StatusSeeOther {
		t.Errorf("by the new key: %d %s", rec.Code, rec.Body)
	}
	if _, ok := b.who(); !ok {
		t.Error("the session has ended with the key")
	}
}

// TestProviderDown checks that a provider that is away locks nobody out: sessions stay, a link signs in, and the page has the
// remedy. Once it is back, it is used.
func TestProviderDown(t *testing.T) {
	w, p := newProvided(t)
	b := w.browser()
	b.signIn(p, "/")
	real := *w.settings
	w.settings = &Settings{Issuer: "https://127.0.0.1:1", ClientID: "nightferry", Claim: "groups", Grants: real.Grants}
	rec := w.browser().ask(http.MethodGet, "/signin/start", nil)
	if rec.Code != http.StatusBadGateway || !strings.Contains(rec.Body.String(), "nightferry console link") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.browser().ask(http.MethodGet, "/signin", nil); rec.Code != http.StatusOK {
		t.Errorf("the sign-in page: %d", rec.Code)
	}
	if rec := w.browser().useLink("kay"); rec.Code != http.StatusSeeOther {
		t.Errorf("a link: %d", rec.Code)
	}
	w.settings = &real
	if _, ok := b.who(); !ok {
		t.Error("the session has ended")
	}
	asked := b.begin("/")
	code := p.code(asked)
	p.Close() // between the two steps
	if rec := b.comeBack(code, asked.Get("state")); rec.Code != http.StatusBadGateway || !strings.Contains(rec.Body.String(), "nightferry console link") {
		t.Errorf("down at the second step: %d %s", rec.Code, rec.Body)
	}
}

// TestClaims checks where values are looked up, and that a person's name cannot forge an audit entry.
func TestClaims(t *testing.T) {
	token := map[string]any{"roles": "one", "realm_access": map[string]any{"roles": []any{"a", "b"}}, "a.b": []any{"c"}}
	for claim, want := range map[string]string{"roles": "one", "realm_access.roles": "a b", "a.b": "c"} {
		if got, err := valuesOf(token, claim); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q %v", claim, got, err)
		}
	}
	for _, claim := range []string{"none", "realm_access", "realm_access.none", "roles.x"} {
		if got, err := valuesOf(token, claim); err == nil {
			t.Errorf("%s: %q", claim, got)
		}
	}
	for name, want := range map[string]string{
		"kay@example.com": "user kay@example.com", "root (console link)": "user rootconsolelink", "a\r\nb\x1b[31m\u202e\u200f\u0085": "user ab[31m", strings.Repeat("x", 500): "user " + strings.Repeat("x", maxNameSize), "\n": "user s",
		"<script>": "user <script>", "👩‍🚀é": "user 👩🚀é",
	} {
		if got := personOf(map[string]any{"preferred_username": name, "sub": "s"}); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
