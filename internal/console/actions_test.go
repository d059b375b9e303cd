package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

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
