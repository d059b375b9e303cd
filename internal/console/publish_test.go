package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/consoletest"
	"nightferry/internal/digest"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// TestPublish publishes the changes that a dry run has shown, and nothing without it or after a refused one.
func TestPublish(t *testing.T) {
	w := consoletest.New()
	c := New(Options{Backend: w.Backend()})
	h := as(rights.Principal{Name: "petra", Role: rights.Publisher}, c)
	seen := w.Tree
	send := func(channel, act string) int {
		return post(t, h, "/publish", url.Values{"channel": {channel}, "act": {act}, "tree": {seen.String()}}).Code
	}
	if got := send("package", "publish"); got != http.StatusBadRequest || len(w.Deeds()) > 0 {
		t.Errorf("without a dry run: %d, did %q", got, w.Deeds())
	}
	if got := send("none", "dry-run"); got != http.StatusNotFound {
		t.Errorf("an unknown channel: %d", got)
	}
	if got := send("driver", "dry-run"); got != http.StatusSeeOther {
		t.Fatalf("a dry run: %d", got)
	}
	text := get(t, h, "/publish?channel=driver").Body.String()
	if !strings.Contains(text, "Dry run refused") || !strings.Contains(text, "allow the deletes") || strings.Contains(text, "Publish release") || send("driver", "publish") != http.StatusBadRequest {
		t.Error("a refused dry run does not name its cause, or may be published")
	}
	send("package", "dry-run")
	text = get(t, h, "/publish?channel=package").Body.String()
	for _, want := range []string{"<b>12</b> added", "<b>240</b> changed", "<b>3</b> deleted", "900 MiB", "26 sites", "Publish release 14", "rtl8168.sys"} {
		if !strings.Contains(text, want) {
			t.Errorf("the review lacks %q", want)
		}
	}
	if !strings.Contains(text, `name="tree" value="`+seen.String()) || !strings.Contains(text, "--reviewed "+seen.String()) {
		t.Error("the review lacks the reviewed tree")
	}
	if got := send("package", "zzz"); got != http.StatusBadRequest {
		t.Errorf("an unknown act: %d", got)
	}
	w.Tree = digest.Of([]byte("changed since"))
	send("package", "publish")
	if text = get(t, h, "/publish?channel=package").Body.String(); !strings.Contains(text, "the source has changed since the dry run") || strings.Contains(text, "done: release") {
		t.Error("an unreviewed tree is published")
	}
	w.Advance(time.Minute) // not the same click
	send("package", "dry-run")
	seen = w.Tree
	if got := send("package", "publish"); got != http.StatusSeeOther || !slices.Contains(w.Deeds(), "publish package, dry run: false, deletes: false") {
		t.Errorf("publish: %d, did %q", got, w.Deeds())
	}
	if text = get(t, h, "/publish?channel=package").Body.String(); !strings.Contains(text, "done: release 14") || strings.Contains(text, "Publish release") {
		t.Error("what is published is offered again")
	}
	for _, p := range []rights.Principal{operator, {Name: "x", Role: rights.Operator}, {Name: "y", Role: rights.Admin, Scope: rights.Scope{Domain: "plant"}}} {
		before := len(w.Deeds())
		if out := post(t, as(p, c), "/publish", url.Values{"channel": {"package"}, "act": {"dry-run"}}); out.Code != http.StatusForbidden || !slices.Equal(w.Deeds()[before:], []string{"audit refused publish package"}) || get(t, as(p, c), "/publish").Code != http.StatusForbidden {
			t.Errorf("%v: %d, did %q", p, out.Code, w.Deeds()[before:])
		}
	}
}

// TestEndSession ends a session from the page that lists it.
func TestEndSession(t *testing.T) {
	w := consoletest.New()
	h := as(anna, New(Options{Backend: w.Backend()}))
	if text := get(t, h, "/audit").Body.String(); !strings.Contains(text, "user ben@example.com") || !strings.Contains(text, `value="5e551011"`) {
		t.Error("the page lists no session")
	}
	if out := post(t, h, "/sessions/end", url.Values{"id": {"5e551011"}}); out.Code != http.StatusSeeOther || !slices.Contains(w.Deeds(), "end session 5e551011") {
		t.Errorf("%d, did %q", out.Code, w.Deeds())
	}
}

// TestWords checks the words for small and large differences of clocks.
func TestWords(t *testing.T) {
	for d, want := range map[float64]string{-0.04: "", 0.2: "0.2 s", -3: "3.0 s", 120: "2 min"} {
		if got := apart(secondsOf(d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func secondsOf(s float64) ledger.Seconds { return ledger.Seconds(s * float64(time.Second)) }
