package apitokens

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

type world struct {
	*Service
	ledger *ledger.Ledger
	path   string
	now    time.Time
	audits []string
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	w.Service, err = Open(t.Context(), Options{Store: &w.ledger.APITokens, Now: func() time.Time { return w.now }, Audit: func(_ context.Context, what, object, detail string) error {
		w.audits = append(w.audits, what+" "+object+" "+detail)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC), path: filepath.Join(t.TempDir(), "ledger.db")}
	var err error
	if w.ledger, err = ledger.Open(t.Context(), w.path, ledger.Options{Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	w.open(t)
	return w
}

func (w *world) issue(t *testing.T, name string) (string, string) {
	t.Helper()
	text, x, err := w.Issue(t.Context(), Request{Name: name, Role: rights.Operator, Scope: rights.Scope{Domain: "apac"}, Life: time.Hour, By: "kay"})
	if err != nil {
		t.Fatal(err)
	}
	return text, x.ID
}

// TestTokens checks when a token is good: only as issued, until it expires or is revoked, and over a restart.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	text, id := w.issue(t, "ci")
	want := rights.Principal{Name: "token ci", Role: rights.Operator, Scope: rights.Scope{Domain: "apac"}}
	check := func(when string, good bool) {
		t.Helper()
		if p, ok := w.Check(text); ok != good || good && p != want || !good && p != (rights.Principal{}) {
			t.Errorf("%s: %+v, %v", when, p, ok)
		}
	}
	check("as issued", true)
	for _, bad := range []string{"", Prefix, text[:len(text)-1], text + "x", strings.ToUpper(text), strings.TrimPrefix(text, Prefix), id} {
		if p, ok := w.Check(bad); ok || p != (rights.Principal{}) {
			t.Errorf("%q is good for %+v", bad, p)
		}
	}
	w.open(t)
	check("after a restart", true)
	w.now = w.now.Add(time.Hour)
	check("expired", false)
	w.now = w.now.Add(-time.Minute)
	check("before it expires", true)
	if _, err := w.Revoke(t.Context(), id, "lee"); err != nil {
		t.Fatal(err)
	}
	check("revoked", false)
	w.open(t)
	check("revoked, after a restart", false)
	if list := w.List(); len(list) != 1 || list[0].RevokedBy != "lee" || list[0].IssuedBy != "kay" {
		t.Errorf("list %+v", list)
	}
	if _, err := w.Revoke(t.Context(), "unknown", "lee"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown token: %v", err)
	}
}

// TestTokenIsShownOnce checks that no file and no audit entry has the text of a token.
func TestTokenIsShownOnce(t *testing.T) {
	w := newWorld(t)
	text, _ := w.issue(t, "ci")
	secret := []byte(strings.TrimPrefix(text, Prefix))
	files, err := filepath.Glob(w.path + "*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || bytes.Contains(b, secret) {
			t.Errorf("%s has the token: %v", f, err)
		}
	}
	if len(w.audits) != 1 || strings.Contains(w.audits[0], string(secret)) {
		t.Errorf("audit %q", w.audits)
	}
}

// TestRevokedInMemory checks that a token ends also if the ledger cannot store that.
func TestRevokedInMemory(t *testing.T) {
	w := newWorld(t)
	text, id := w.issue(t, "ci")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Revoke(ctx, id, "lee"); err == nil {
		t.Error("the ledger took it from a caller that had gone")
	}
	if _, ok := w.Check(text); ok {
		t.Error("a token that was revoked is good")
	}
}

// TestRequests checks that invalid requests are refused.
func TestRequests(t *testing.T) {
	w := newWorld(t)
	w.issue(t, "ci")
	good := Request{Name: "other", Role: rights.Viewer, Life: time.Hour}
	for name, change := range map[string]func(*Request){
		"name in use":  func(r *Request) { r.Name = "ci" },
		"no name":      func(r *Request) { r.Name = "" },
		"name of text": func(r *Request) { r.Name = "a\nb" },
		"long name":    func(r *Request) { r.Name = strings.Repeat("x", 64) },
		"no role":      func(r *Request) { r.Role = 0 },
		"unknown role": func(r *Request) { r.Role = rights.Admin + 1 },
		"no life":      func(r *Request) { r.Life = 0 },
		"long life":    func(r *Request) { r.Life = maxLife + 1 },
	} {
		r := good
		change(&r)
		var invalid *InvalidError
		if text, _, err := w.Issue(t.Context(), r); !errors.As(err, &invalid) || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	w.now = w.now.Add(2 * time.Hour)
	w.issue(t, "ci") // the earlier one has expired
}

// TestUses checks that the last use is listed, and stored at most every ten minutes.
func TestUses(t *testing.T) {
	w := newWorld(t)
	text, _ := w.issue(t, "ci")
	w.Check(text)
	if err := w.SaveUses(t.Context()); err != nil || !w.List()[0].Used.Equal(w.now) {
		t.Fatalf("%+v %v", w.List(), err)
	}
	first := w.now
	w.now = w.now.Add(useEvery - time.Second)
	w.Check(text)
	if err := w.SaveUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.open(t); !w.List()[0].Used.Equal(first) {
		t.Errorf("last use %s, want %s", w.List()[0].Used, first)
	}
}
