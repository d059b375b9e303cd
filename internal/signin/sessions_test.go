package signin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// TestLinks checks that a link signs in once, within five minutes, by a form; and the records that each use leaves.
func TestLinks(t *testing.T) {
	w := newWorld(t)
	text, until, err := w.Link(t.Context(), "kay as root")
	if err != nil || !until.Equal(w.now.Add(5*time.Minute)) || !strings.HasPrefix(text, "https://core.example.com/signin/link/") {
		t.Fatal(text, until, err)
	}
	path := strings.TrimPrefix(text, "https://core.example.com")
	_, secret, _ := strings.Cut(text, linkPath)
	form := url.Values{"link": {secret}}
	b := w.browser()
	for range 3 { // a preview, and a person
		rec := b.ask(http.MethodGet, path, nil)
		if _, ok := b.who(); ok || rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `<form method="post" action="/signin/link">`) || rec.Header().Get("Referrer-Policy") != "no-referrer" {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	if rec := b.ask(http.MethodGet, "/signin/link?link="+secret, nil); rec.Code == http.StatusSeeOther {
		t.Error("a GET uses the link")
	}
	if rec := b.ask(http.MethodPost, "/signin/link?link="+secret, url.Values{}); rec.Code != http.StatusForbidden {
		t.Errorf("a secret outside of the form: %d", rec.Code)
	}
	if rec := b.ask(http.MethodPost, "/signin/link", form); rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/" {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if who, ok := b.who(); !ok || who != (rights.Principal{Name: "kay as root (console link)", Role: rights.Admin}) {
		t.Errorf("%+v %t", who, ok)
	}
	if len(w.linked) != 1 || !strings.Contains(w.linked[0], "kay as root signed in") || len(w.audits) != 2 || !strings.HasPrefix(w.audits[1], "kay as root|sign in|") {
		t.Errorf("incidents %q, audit %q", w.linked, w.audits)
	}
	other := w.browser()
	if rec := other.ask(http.MethodPost, "/signin/link", form); rec.Code != http.StatusForbidden || len(w.linked) != 1 {
		t.Errorf("used twice: %d", rec.Code)
	}
	text, _, err = w.Link(t.Context(), "kay")
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ = strings.Cut(text, linkPath)
	w.now = w.now.Add(linkLife)
	if rec := other.ask(http.MethodPost, "/signin/link", url.Values{"link": {secret}}); rec.Code != http.StatusForbidden {
		t.Errorf("too late: %d", rec.Code)
	}
	for _, bad := range []string{"", "x", secret} {
		if rec := other.ask(http.MethodPost, "/signin/link", url.Values{"link": {bad}}); rec.Code != http.StatusForbidden {
			t.Errorf("%q: %d", bad, rec.Code)
		}
	}
	if text, _, err = w.Link(t.Context(), "kay"); err != nil {
		t.Fatal(err)
	}
	_, secret, _ = strings.Cut(text, linkPath)
	w.failing = errors.New("the disk is full")
	if rec := other.ask(http.MethodPost, "/signin/link", url.Values{"link": {secret}}); rec.Code != http.StatusInternalServerError || len(other.cookies) > 0 {
		t.Errorf("a sign-in that cannot be recorded: %d", rec.Code)
	}
}

// TestLinksAreBounded checks that links that are not used do not add up.
func TestLinksAreBounded(t *testing.T) {
	w := newWorld(t)
	for range maxLinks {
		if _, _, err := w.Link(t.Context(), "kay"); err != nil {
			t.Fatal(err)
		}
	}
	var full *LinkError
	if _, _, err := w.Link(t.Context(), "kay"); !errors.As(err, &full) || full.Remedy() == "" {
		t.Error(err)
	}
	w.now = w.now.Add(linkLife)
	if _, _, err := w.Link(t.Context(), "kay"); err != nil || len(w.links.byHash) != 1 {
		t.Errorf("%v, %d links", err, len(w.links.byHash))
	}
	w.o.URL = ""
	if _, _, err := w.Link(t.Context(), "kay"); err == nil {
		t.Error("a link to a console that is off")
	}
}

// TestSessionAges checks the two ends of a session, also over a restart and with a clock that is set back.
func TestSessionAges(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.useLink("kay")
	good := func(when string, want bool) {
		t.Helper()
		if _, ok := b.who(); ok != want {
			t.Errorf("%s: %t", when, ok)
		}
	}
	w.now = w.now.Add(idleFor - time.Second)
	good("almost idle", true)
	w.open()
	w.now = w.now.Add(idleFor - time.Second)
	good("after a restart", true)
	w.now = w.now.Add(idleFor)
	good("idle", false)
	b.useLink("kay")
	for range 23 {
		w.now = w.now.Add(lifeFor / 24)
		good("in use", true)
	}
	w.now = w.now.Add(lifeFor / 24)
	good("after twelve hours", false)
	w.now = w.now.Add(-lifeFor - 2*idleFor)
	good("before it began", false)
	w.now = w.now.Add(2 * lifeFor)
	w.browser().useLink("lee") // which forgets the links that have ended
	if list, err := w.ledger.Sessions.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d sessions are stored: %v", len(list), err)
	}
}

// TestSessionsAreStoredHashed checks that no file has the text of a cookie or of a link.
func TestSessionsAreStoredHashed(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.useLink("kay")
	text, _, err := w.Link(t.Context(), "kay")
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(text, linkPath)
	files, err := filepath.Glob(w.path + "*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if raw, err := os.ReadFile(f); err != nil || bytes.Contains(raw, []byte(b.cookies[cookieName])) || bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%s has a secret: %v", f, err)
		}
	}
	if all := strings.Join(w.audits, "\n") + strings.Join(w.linked, "\n"); strings.Contains(all, secret) || strings.Contains(all, b.cookies[cookieName]) {
		t.Error("the audit has a secret")
	}
}

// TestFixation checks that a sign-in never takes a session or a cookie that the browser had before.
func TestFixation(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.cookies[cookieName] = "chosen"
	b.useLink("kay")
	first := b.cookies[cookieName]
	if _, ok := b.who(); !ok || first == "chosen" {
		t.Fatalf("cookie %q", first)
	}
	b.useLink("kay")
	old := w.browser()
	old.cookies[cookieName] = first
	if _, ok := old.who(); ok || b.cookies[cookieName] == first || len(w.List()) != 1 {
		t.Errorf("the session before is good: %t, %d sessions", ok, len(w.List()))
	}
}

// TestSignOut checks signing out here, everywhere, and by an administrator; a request under way does not bring an ended
// session back.
func TestSignOut(t *testing.T) {
	w := newWorld(t)
	var all []*browser
	for _, who := range []string{"kay", "kay", "kay", "lee", "lee"} {
		w.now = w.now.Add(time.Second)
		b := w.browser()
		b.useLink(who)
		all = append(all, b)
	}
	good := func(want string) {
		t.Helper()
		got := ""
		for _, b := range all {
			if _, ok := b.who(); ok {
				got += "x"
			} else {
				got += "-"
			}
		}
		if got != want {
			t.Errorf("good %s, want %s", got, want)
		}
	}
	good("xxxxx")
	_, valid, _ := w.Identify(all[0].request(http.MethodGet, "/", nil))
	stolen := w.browser()
	stolen.cookies[cookieName] = all[0].cookies[cookieName]
	if rec := all[0].ask(http.MethodPost, "/signin/out", url.Values{}); rec.Code != http.StatusSeeOther || all[0].cookies[cookieName] != "" {
		t.Errorf("%d %v", rec.Code, all[0].cookies)
	}
	if _, ok := stolen.who(); ok || valid() {
		t.Error("the session is still good")
	}
	good("-xxxx")
	if rec := all[1].ask(http.MethodGet, "/signin/out", nil); rec.Code == http.StatusSeeOther {
		t.Error("a GET signs out")
	}
	all[1].ask(http.MethodPost, "/signin/out", url.Values{"everywhere": {"yes"}})
	good("---xx")
	list := w.List()
	if ended, err := w.End(t.Context(), list[0].ID, "", "ann"); err != nil || len(ended) != 1 || ended[0].Person != "lee (console link)" {
		t.Errorf("%+v %v", ended, err)
	}
	good("---x-")
	w.open()
	good("---x-")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.End(ctx, "", "lee (console link)", "ann"); err == nil {
		t.Error("the ledger took it from a caller that had gone")
	}
	good("-----")
	if _, err := w.End(t.Context(), "unknown", "", "ann"); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
}
