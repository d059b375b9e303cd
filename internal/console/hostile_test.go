package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"

	"nightferry/internal/consoletest"
	"nightferry/internal/query"
	"nightferry/internal/rights"
)

// targets are a URL of each page, with the names of a world in it.
func targets(w *consoletest.World) []string {
	out := []string{"/", "/?at=-6h", "/?at=9h", "/?wall=1", "/?region=" + consoletest.Texts[0], "/nowhere/" + "%3Cscript%3E"}
	out = append(out, "/live", "/where", "/sites", "/incidents", "/incidents?all=true", "/halt", "/halt?all=true", "/halt?scope=all", "/runs", "/releases", "/forecast?days=7", "/audit", "/publish", "/publish?channel=package", "/logs", "/logs?days=400")
	for _, h := range w.HaltList {
		out = append(out, "/halt/"+h.Order.String())
	}
	for _, s := range w.SiteList {
		out = append(out, sitePath(s.Site), link("/halt", "scope", "site "+s.Site))
	}
	for _, r := range w.RunList[:20] {
		out = append(out, "/runs/"+r.ID.String(), "/runs/"+r.ID.String()+"?outcome=failed", "/logs/"+r.ID.String())
	}
	for _, text := range consoletest.Texts {
		out = append(out, link("/where", "path", text), link("/runs", "site", text), link("/runs", "after", text), link("/audit", "who", text), link("/logs", "site", text), "/logs/"+url.PathEscape(text), link("/logs/"+w.RunList[0].ID.String(), "text", text, "outcome", text), link("/halt", "scope", text, "value", text), link("/sites", "state", text), "/runs/"+url.PathEscape(text), sitePath(text),
			link("/", "at", text), link("/", "state", text), link("/", "domain", text))
	}
	return out
}

// TestHostile shows a fleet whose texts are markup, control characters, marks that turn the text, and far too long, on
// every page: none becomes a part of the page's structure, a header, or a character that deceives.
func TestHostile(t *testing.T) {
	w := consoletest.Hostile()
	for _, p := range []rights.Principal{anna, kay, {}, {Name: consoletest.Texts[0], Role: rights.Operator, Scope: rights.Scope{Region: "emea"}}} {
		h := as(p, New(Options{Backend: w.Backend(), SignOut: "/sign-out"}))
		for _, target := range targets(w) {
			out := get(t, h, strings.ReplaceAll(target, "\x00", "%00"))
			checkPage(t, target, out)
			if p.Role < rights.Viewer && !strings.HasPrefix(target, "/nowhere") && out.Code != http.StatusForbidden {
				t.Errorf("%s without a role: %d", target, out.Code)
			}
		}
	}
}

// checkPage checks the rules of every page.
func checkPage(t *testing.T, target string, out *httptest.ResponseRecorder) {
	t.Helper()
	if out.Code >= http.StatusInternalServerError {
		t.Errorf("%q: status %d", target, out.Code)
	}
	if got := out.Header().Get("Content-Security-Policy"); got != policy {
		t.Errorf("%q: policy %q", target, got)
	}
	for name, values := range out.Header() {
		if strings.ContainsFunc(name+strings.Join(values, ""), unicode.IsControl) || len(values) != 1 || name == "Set-Cookie" {
			t.Errorf("%q: header %q: %q", target, name, values)
		}
	}
	text := out.Body.String()
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%q: the page holds %U", target, r)
			break
		}
	}
	doc, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	headings, scripts := 0, 0
	ids := map[string]bool{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "h1":
			headings++
		case "script":
			scripts++
		case "img", "iframe", "style", "object", "embed", "base", "b\"":
			t.Errorf("%q: an element %s", target, n.Data)
		}
		for _, a := range n.Attr {
			value := strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc":
				t.Errorf("%q: %s has the attribute %s", target, n.Data, a.Key)
			case slices.Contains([]string{"href", "src", "action", "formaction"}, a.Key) && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#"):
				t.Errorf("%q: %s leads to %q", target, n.Data, a.Val)
			case strings.HasPrefix(value, "//"):
				t.Errorf("%q: %s leads to another host: %q", target, n.Data, a.Val)
			case a.Key == "id" && ids[a.Val]:
				t.Errorf("%q: two elements have the id %q", target, a.Val)
			case a.Key == "id":
				ids[a.Val] = true
			}
		}
	}
	if headings != 1 || scripts != 1 {
		t.Errorf("%q: %d headings of the first level and %d scripts, want 1 and 1", target, headings, scripts)
	}
}

// TestMarks checks that each state has a mark of its own, which differs from the others without its colour.
func TestMarks(t *testing.T) {
	seen := map[string]string{}
	for _, word := range query.States() {
		m := markOf(word)
		if m.Word != word || worse(word) == len(marksOf) {
			t.Errorf("%s has no mark", word)
		}
		if other := seen[m.Shape+m.Tone]; other != "" && m.Tone != "bad" {
			t.Errorf("%s and %s have the same mark", word, other)
		}
		seen[m.Shape+m.Tone] = word
	}
}
