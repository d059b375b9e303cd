package console

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/consoletest"
	"nightferry/internal/rights"
)

// operator may halt the sites of plant.
var operator = rights.Principal{Name: "olga", Role: rights.Operator, Scope: rights.Scope{Domain: "plant"}}

// TestHalt halts and resumes by the forms: a reason is required, all must be typed, the answer leads to the proof board,
// and a principal without the right gets a page that names the role.
func TestHalt(t *testing.T) {
	w := consoletest.New()
	b := w.Backend()
	full, limited, viewer := as(anna, New(Options{Backend: b})), as(operator, New(Options{Backend: b})), as(kay, New(Options{Backend: b}))
	for name, c := range map[string]struct {
		h      http.Handler
		form   url.Values
		status int
		text   string
	}{
		"no reason":       {full, url.Values{"scope": {"region"}, "value": {"ap"}}, 400, "needs a reason"},
		"all, not typed":  {full, url.Values{"scope": {"all"}, "reason": {"x"}}, 400, "nothing was halted"},
		"all, mistyped":   {full, url.Values{"scope": {"all"}, "reason": {"x"}, "typed": {"al"}}, 400, "nothing was halted"},
		"a viewer":        {viewer, url.Values{"scope": {"domain"}, "value": {"plant"}, "reason": {"x"}}, 403, "needs the role <strong>operator</strong>"},
		"outside a scope": {limited, url.Values{"scope": {"region"}, "value": {"ap"}, "reason": {"x"}}, 403, "has rights over domain plant only"},
		"all by a part":   {limited, url.Values{"scope": {"all"}, "reason": {"x"}, "typed": {"all"}}, 403, "rights over domain plant only"},
	} {
		out := post(t, c.h, "/halt", c.form)
		if out.Code != c.status || !strings.Contains(out.Body.String(), c.text) {
			t.Errorf("%s: %d without %q", name, out.Code, c.text)
		}
	}
	if list := w.Deeds(); slices.ContainsFunc(list, func(s string) bool { return !strings.HasPrefix(s, "audit refused") }) {
		t.Errorf("refused, and done: %q", list)
	}
	out := post(t, limited, "/halt", url.Values{"scope": {"domain"}, "value": {"plant"}, "reason": {"wrong <driver>"}})
	board := out.Header().Get("Location")
	if out.Code != http.StatusSeeOther || !strings.HasPrefix(board, "/halt/aa") || !slices.Contains(w.Deeds(), "halt domain plant: wrong <driver>") {
		t.Fatalf("%d %q %q", out.Code, board, w.Deeds())
	}
	page := get(t, limited, board).Body.String()
	for _, want := range []string{"wrong &lt;driver&gt;", "All sites that can move content have confirmed", "osaka", "Lift the halt of domain plant"} {
		if !strings.Contains(page, want) {
			t.Errorf("the proof board lacks %q", want)
		}
	}
	if strings.Contains(get(t, viewer, board).Body.String(), "Lift the halt of") {
		t.Error("a viewer is offered to lift the order")
	}
	out = post(t, limited, "/resume", url.Values{"order": {strings.TrimPrefix(board, "/halt/")}})
	if out.Code != http.StatusSeeOther || !strings.Contains(get(t, limited, board).Body.String(), "Lifted halt order") {
		t.Errorf("resume: %d, the board does not say that it is lifted", out.Code)
	}
}

// TestHaltSays checks that the page lists, before the click, the sites that an order stops.
func TestHaltSays(t *testing.T) {
	h := as(anna, New(Options{Backend: consoletest.New().Backend()}))
	text := get(t, h, "/halt?scope=region&value=ap").Body.String()
	for _, want := range []string{"<b>9 sites</b>", "<b>4 transfers</b>", "nightferry halt --region ap --reason REASON"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if out := get(t, h, "/halt?scope=region&value=nowhere"); out.Code != http.StatusNotFound {
		t.Errorf("an unknown region: %d", out.Code)
	}
}

// TestActions sends the other forms.
func TestActions(t *testing.T) {
	w := consoletest.New()
	h := as(anna, New(Options{Backend: w.Backend()}))
	for path, c := range map[string]struct {
		form url.Values
		deed string // empty: refused
	}{
		"/sites/osaka/sync":   {url.Values{"now": {"true"}}, "sync {Scope:site osaka DryRun:false Rehash:false Now:true Adopt:false}"},
		"/sites/osaka/verify": {url.Values{"repair": {"true"}}, "verify {Scope:site osaka Full:false Repair:true}"},
		"/sites/perth/limit":  {url.Values{"rate": {"20Mbit"}, "for": {"90m"}}, "limit {Scope:site perth Rate:20Mbit For:5400000000000}"},
		"/sites/osaka/limit":  {url.Values{"rate": {"fast"}}, ""},
		"/sites/lima/limit":   {url.Values{"rate": {"1MB"}, "for": {"-3h"}}, ""},
		"/sites/osaka/burn":   {nil, ""},
		"/incidents":          {url.Values{"id": {"31"}, "note": {"seen"}, "act": {"ack"}}, "ack 31 seen"},
		"/incidents?x=3":      {url.Values{"id": {"31"}, "note": {"seen"}, "act": {"ack"}, "silent": {"72h"}}, "ack 31 seen, silent for 72h0m0s"},
		"/incidents?x=4":      {url.Values{"id": {"31"}, "note": {"seen"}, "act": {"ack"}, "silent": {"-1h"}}, ""},
		"/incidents?x=1":      {url.Values{"id": {"31"}, "note": {""}}, ""},
		"/incidents?x=2":      {url.Values{"id": {"-1"}, "note": {"x"}}, ""},
		"/resume":             {nil, ""},
	} {
		before := len(w.Deeds())
		out := post(t, h, path, c.form)
		if c.deed == "" && (out.Code < 400 || out.Code >= 500 || len(w.Deeds()) != before) {
			t.Errorf("%s: %d, did %q", path, out.Code, w.Deeds()[before:])
		}
		if c.deed != "" && (out.Code != http.StatusSeeOther || !slices.Contains(w.Deeds(), c.deed)) {
			t.Errorf("%s: %d, did %q; want %q", path, out.Code, w.Deeds()[before:], c.deed)
		}
	}
	if out := post(t, h, "/incidents", url.Values{"id": {"31"}, "note": {strings.Repeat("x", maxForm)}}); out.Code != http.StatusBadRequest {
		t.Errorf("a form of more than %d bytes: %d", maxForm, out.Code)
	}
	k := as(kay, New(Options{Backend: w.Backend()}))
	if text := get(t, k, "/sites/osaka").Body.String(); strings.Contains(text, "<form class=\"card form\"") || !strings.Contains(text, "needs the role <b>operator</b>") {
		t.Error("a viewer is offered actions, or is not told which role it needs")
	}
}

// TestDoubleClick: a form that the same person posts twice, at once or a moment later, acts once, also if the browser gives the first
// post up. Another person's form acts, one that failed acts again, and so does the same one later.
func TestDoubleClick(t *testing.T) {
	w := consoletest.New()
	c := New(Options{Backend: w.Backend()})
	form := url.Values{"now": {"true"}}
	send := func(who rights.Principal) int { return post(t, as(who, c), "/sites/osaka/sync", form).Code }
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := send(anna); got != http.StatusSeeOther {
				t.Errorf("%d", got)
			}
		})
	}
	all.Wait()
	if send(anna); len(w.Deeds()) != 1 {
		t.Errorf("a form that was posted nine times: %q", w.Deeds())
	}
	if send(rights.Principal{Name: "boris", Role: rights.Admin}); len(w.Deeds()) != 2 {
		t.Errorf("another person's form: %q", w.Deeds())
	}
	w.Advance(doubleFor + time.Second)
	if send(anna); len(w.Deeds()) != 3 {
		t.Errorf("the same form later: %q", w.Deeds())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/sites/perth/sync", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	as(anna, c).ServeHTTP(httptest.NewRecorder(), r)
	if len(w.Deeds()) != 4 {
		t.Errorf("a form whose browser has gone: %q", w.Deeds())
	}

	var d doubles
	req := newRequest(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x", nil))
	tries := 0
	fails := func() (*rendered, error) { tries++; return nil, errors.New("no") }
	for range 2 {
		if _, err := d.do(req, w.Backend().Now, fails); err == nil {
			t.Error("it does not fail")
		}
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = d.do(req, w.Backend().Now, func() (*rendered, error) { panic("x") })
	}()
	if _, err := d.do(req, w.Backend().Now, fails); err == nil || tries != 3 {
		t.Errorf("a form that failed was carried out %d times", tries)
	}
}

// TestRightsFirst posts forms that are not valid without the right to the deed: each answers 403, is audited and does
// nothing.
func TestRightsFirst(t *testing.T) {
	w := consoletest.New()
	b := w.Backend()
	viewer, limited := as(kay, New(Options{Backend: b})), as(operator, New(Options{Backend: b}))
	for name, c := range map[string]struct {
		h    http.Handler
		path string
		form url.Values
	}{
		"halt without a reason":          {viewer, "/halt", url.Values{"scope": {"domain"}, "value": {"plant"}}},
		"halt all, not typed, by a part": {limited, "/halt", url.Values{"scope": {"all"}, "reason": {"x"}}},
		"resume without an order":        {viewer, "/resume", nil},
		"incident without a number":      {viewer, "/incidents", nil},
		"incident without a note":        {viewer, "/incidents", url.Values{"id": {"1"}}},
		"limit with a wrong rate":        {viewer, "/sites/osaka/limit", url.Values{"rate": {"much"}}},
		"limit with a wrong time":        {viewer, "/sites/kobe/limit", url.Values{"for": {"long"}}},
	} {
		before := len(w.Deeds())
		out := post(t, c.h, c.path, c.form)
		if did := w.Deeds()[before:]; out.Code != http.StatusForbidden || len(did) != 1 || !strings.HasPrefix(did[0], "audit refused") {
			t.Errorf("%s: %d, did %q", name, out.Code, did)
		}
	}
}
