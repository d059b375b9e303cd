package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/alert"
	"nightferry/internal/core"
	"nightferry/internal/kinds"
	"nightferry/internal/mail"
	"nightferry/internal/mailtest"
	"nightferry/internal/query"
)

// TestAlerts drives a Core with a real mail server and a webhook: a wrong
// password, a server that is away while an incident ends and the Core restarts,
// a test, and the morning's reports.
func TestAlerts(t *testing.T) {
	t.Parallel()
	const password, wrong, token = "correct-horse", "wrong-battery", "hook-token"
	srv := mailtest.Postfix(t, "ops", password)
	hook := newHook(t, token)
	w := newWorld(t, nil)
	secret := func(name, value string) {
		t.Helper()
		if _, err := w.core.Vault().Set(t.Context(), name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	secret(core.SecretSMTP, "ops@test "+wrong)
	secret(core.SecretWebhook, hook.URL+" "+token)
	w.settings.Alerts = core.Alerts{
		Rules: alert.Rules{Mail: true, Webhook: true, To: []string{"ops@example.com"}, Domains: map[string][]string{"apac": {"apac@example.com"}}, Regions: map[string]alert.Region{"ap": {}, "emea": {}}},
		SMTP:  mail.Server{Addr: srv.StartTLS, TLS: mail.StartTLS, From: "nf@example.com", CAFile: srv.CAFile},
	}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	// The Core's clock runs 250 times too fast while something is waited for.
	over := func(kind string) {
		t.Helper()
		w.until(kind+" to be over", func() bool {
			w.ahead.Add(int64(5 * time.Second))
			list, err := w.core.Query.Incidents(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range list {
				if i.Kind == kind {
					return false
				}
			}
			return true
		})
	}
	later := func(d time.Duration) { w.ahead.Add(int64(d)) }

	// The source of drivers is missing.
	if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
		t.Fatal("a missing source was published")
	}
	w.untilIncident(string(kinds.Publishes))
	later(2 * time.Minute)
	down := func() (text string) {
		t.Helper()
		w.until("mail to be down", func() bool {
			w.ahead.Add(int64(5 * time.Second))
			list, err := w.core.Query.Incidents(t.Context(), false)
			for _, i := range list {
				if i.Kind == string(kinds.MailDown) {
					text = i.Text
				}
			}
			return err == nil && text != ""
		})
		return text
	}
	if text := down(); !strings.Contains(text, "535") {
		t.Errorf("a wrong password says %q", text)
	}
	hook.until(w, "opened publish")
	secret(core.SecretSMTP, "ops@test "+password)
	later(2 * time.Minute)
	inbox := w.inbox(srv, 1)
	if m := inbox[0]; m.To != "ops@example.com" || !strings.Contains(m.Parts["text/plain"], "new: publish") {
		t.Errorf("to %s:\n%s", m.To, m.Raw)
	}
	over(string(kinds.MailDown))

	// The mail server is away: what ends meanwhile is told when it is back.
	srv.Stop()
	if err := os.MkdirAll(filepath.FromSlash(w.settings.Fleet.Channel("driver").Source), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.FromSlash(w.settings.Fleet.Channel("driver").Source)+"/a.sys", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.publish("driver")
	over(string(kinds.Publishes))
	down()
	w.restart()
	srv.Start()
	later(time.Hour)
	inbox = w.inbox(srv, 2)
	if m := inbox[1]; !strings.Contains(m.Parts["text/plain"], "over: publish") || !strings.Contains(m.Parts["text/html"], "could not be delivered when they were due") {
		t.Errorf("after the outage:\n%s", m.Raw)
	}
	over(string(kinds.MailDown))

	tested, err := w.core.Notifier.Test(t.Context(), "")
	if err != nil || len(tested) != 3 {
		t.Fatalf("%v, %v", tested, err)
	}
	for _, x := range tested {
		if x.Error != "" && x.To != alert.Hook { // that one fails every third time
			t.Errorf("a test: %+v", x)
		}
	}
	w.inbox(srv, 4)
	later(3 * time.Hour) // what was said of mail and webhook meanwhile is settled

	// Every region's morning is now, once.
	now := w.now().UTC()
	morning := alert.Daily{Hour: now.Hour(), Minute: now.Minute(), Zone: time.UTC}
	w.settings.Alerts.Rules.Regions = map[string]alert.Region{"ap": {Report: morning}, "emea": {Report: morning}}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	inbox = w.inbox(srv, 6)
	if all := inbox[4].Parts["text/plain"] + inbox[5].Parts["text/plain"]; !strings.Contains(all, "ap: 0 of 0 verified") || !strings.Contains(all, "emea: 0 of 1 verified") || !strings.Contains(all, "berlin, driver: release 1, 1 B: from ") {
		t.Errorf("reports:\n%s", all)
	}
	hook.until(w, "report ap")
	w.restart()
	hook.until(w, "report emea")
	if n := len(srv.Inbox()); n != 6 {
		for _, m := range srv.Inbox() {
			t.Log(m.To, m.Header.Get("Subject"))
		}
		t.Errorf("%d mails, want 6", n)
	}
	if kept, err := os.ReadFile(filepath.Join(w.options.Data, "alerts.json")); err != nil || strings.Contains(string(kept), password) || strings.Contains(string(kept), token) {
		t.Errorf("what is kept: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range []string{password, wrong, token} {
		if strings.Contains(w.log.String(), s) {
			t.Errorf("%q is in the log", s)
		}
	}
}

// TestDamagedAlerts: a Core that has lost what it had told says so, keeps the file,
// and tells nothing of what was over long ago. A file that it cannot read now it
// leaves alone, and goes on from it when it can.
func TestDamagedAlerts(t *testing.T) {
	t.Parallel()
	hook := newHook(t, "")
	w := newWorldWith(t, nil, func(w *world) {
		w.secret(core.SecretWebhook, hook.URL)
		w.settings.Alerts = core.Alerts{Rules: alert.Rules{Webhook: true, Regions: map[string]alert.Region{"ap": {}, "emea": {}}}}
	})
	source := filepath.FromSlash(w.settings.Fleet.Channel("driver").Source)
	fails := func() {
		t.Helper()
		if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
			t.Fatal("a missing source was published")
		}
		w.untilIncident(string(kinds.Publishes))
	}
	fails()
	hook.until(w, "opened publish")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "a.sys"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.publish("driver")
	hook.until(w, "resolved publish")
	if err := os.RemoveAll(source); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.ahead.Add(int64(30 * time.Hour))
	file := filepath.Join(w.options.Data, "alerts.json")
	if err := os.WriteFile(file, []byte(`{"begun":`), 0o600); err != nil {
		t.Fatal(err)
	}
	hook.forget()
	w.start()
	fails()
	hook.until(w, "opened publish")
	if all := hook.forget(); strings.Contains(all, "resolved publish") {
		t.Errorf("what was over 30 hours ago is told:\n%s", all)
	}
	if left, err := filepath.Glob(file + ".*.damaged"); err != nil || len(left) != 1 {
		t.Errorf("set aside: %q, %v", left, err)
	}
	w.until("the Core to know that it was told", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && bytes.Contains(b, []byte(`"queue":[]`))
	})
	w.stop()
	aside := file + ".for-now"
	if err := errors.Join(os.Rename(file, aside), os.Mkdir(file, 0o700)); err != nil { // nothing reads a folder
		t.Fatal(err)
	}
	w.start()
	w.until("the Core to say so", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(w.log.String(), "no mail or notice is sent until that is possible")
	})
	if err := errors.Join(os.Remove(file), os.Rename(aside, file)); err != nil {
		t.Fatal(err)
	}
	w.ahead.Add(int64(25 * time.Hour))
	hook.until(w, "reminder publish")
	if all := hook.forget(); strings.Contains(all, "opened publish") {
		t.Errorf("what was told before is told again:\n%s", all)
	}
}

// TestWebhookTakenAway: the incident of a webhook that fails ends with the webhook.
func TestWebhookTakenAway(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	w := newWorldWith(t, nil, func(w *world) {
		w.secret(core.SecretWebhook, dead.URL+"/hook-secret")
		w.settings.Alerts = core.Alerts{Rules: alert.Rules{Webhook: true}}
	})
	if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
		t.Fatal("a missing source was published")
	}
	down := func() bool {
		w.ahead.Add(int64(5 * time.Second))
		list, err := w.core.Query.Incidents(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(i query.Incident) bool { return i.Kind == string(kinds.HookDown) })
	}
	w.until("the webhook to be down", down)
	for _, text := range w.texts(string(kinds.HookDown)) {
		if strings.Contains(text, "hook-secret") {
			t.Errorf("the incident contains the webhook's URL: %s", text)
		}
	}
	w.settings.Alerts = core.Alerts{}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.until("that to be over", func() bool { return !down() })
}

// inbox waits until so many mails have arrived.
func (w *world) inbox(srv *mailtest.MailServer, n int) []mailtest.Mail {
	w.t.Helper()
	w.until("a mail; postfix says\n"+srv.Log(), func() bool { return len(srv.Inbox()) >= n })
	return srv.Inbox()
}

// hook is a webhook that fails every third time.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string
	asks int
}

func newHook(t *testing.T, token string) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var body struct {
			Version int
			Notices []alert.Notice
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.asks++; h.asks%3 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if err := json.Unmarshal(b, &body); err != nil || body.Version != 1 || token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the webhook got %s, %v", b, err)
		}
		for _, n := range body.Notices {
			switch {
			case n.Incident != nil:
				h.got = append(h.got, n.Kind+" "+n.Incident.Kind)
			case n.Report != nil:
				h.got = append(h.got, n.Kind+" "+n.Report.Region)
			}
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// forget returns what the webhook has got, and forgets it.
func (h *hook) forget() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := strings.Join(h.got, "\n")
	h.got = nil
	return all
}

// until waits for a notice while the Core's clock goes on.
func (h *hook) until(w *world, what string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		all := strings.Join(h.got, "\n") + "\n"
		h.mu.Unlock()
		if strings.Contains(all, what+"\n") {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("the webhook did not get %q but\n%s", what, all)
		case <-tick.C:
			w.ahead.Add(int64(5 * time.Second)) // past its pause after a failure
		}
	}
}

// TestAlertSecretMissing: a webhook without its secret is reported at the start, not only when a notice fails, and
// the incident closes when the secret is stored.
func TestAlertSecretMissing(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, func(w *world) {
		w.settings.Alerts = core.Alerts{Rules: alert.Rules{Webhook: true, Mail: true}, SMTP: mail.Server{Addr: "127.0.0.1:25", TLS: mail.StartTLS, From: "nf@example.com", CAFile: filepath.Join(w.dir, "absent.pem")}}
	})
	if text := w.untilIncident(string(kinds.HookDown)); !strings.Contains(text, "nightferry secret set webhook") {
		t.Errorf("incident %q", text)
	}
	if text := w.untilIncident(string(kinds.MailDown)); !strings.Contains(text, "absent.pem") {
		t.Errorf("incident %q", text)
	}
	if list := w.core.Notifier.Faults(); len(list) != 2 {
		t.Errorf("faults %q", list)
	}
	w.stop()
	w.secret(core.SecretWebhook, "https://hook.example.com/x")
	w.settings.Alerts.SMTP.CAFile = ""
	w.start()
	w.untilOver(string(kinds.HookDown))
	w.untilOver(string(kinds.MailDown))
	if list := w.core.Notifier.Faults(); len(list) != 0 {
		t.Errorf("faults %q", list)
	}
}
