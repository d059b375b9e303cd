package mail_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"nightferry/internal/mail"
	"nightferry/internal/mailtest"
)

const password = "correct horse"

// TestPostfix sends through a real server with TLS and a login, with every
// correct setting and with every kind of wrong one.
func TestPostfix(t *testing.T) {
	srv := mailtest.Postfix(t, "ops", password)
	right := mail.Login{User: "ops@test", Password: password}
	start := mail.Server{Addr: srv.StartTLS, TLS: mail.StartTLS, From: "nf@example.com", CAFile: srv.CAFile}
	with := func(fn func(*mail.Server)) mail.Server {
		s := start
		fn(&s)
		return s
	}
	letter := mail.Message{ID: "incident-1-opened-2", To: "ops@example.com", Subject: "[nightferry] silent at Ōsaka", Text: "plain words\n", HTML: "<p>words with <b>style</b></p>", Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	to := func(address, subject string) mail.Message {
		m := letter
		m.To, m.Subject = address, subject
		return m
	}
	for _, tt := range []struct {
		name    string
		server  mail.Server
		login   mail.Login
		message mail.Message
		want    string // in the error; empty: it arrives
	}{
		{"starttls", start, right, letter, ""},
		{"implicit", with(func(s *mail.Server) { s.Addr, s.TLS = srv.Implicit, mail.Implicit }), right, letter, ""},
		{"no tls, no login", with(func(s *mail.Server) { s.Addr, s.TLS = srv.Plain, mail.NoTLS }), mail.Login{}, letter, ""},
		{"names with line ends", start, right, to("ops@example.com", "a\r\nBcc: thief@example.com\r\n\r\nbody\u2028x"), ""},
		{"wrong password", start, mail.Login{User: "ops@test", Password: "wrong-battery"}, letter, "535"},
		{"no login", start, mail.Login{}, letter, "554"},
		{"a login without tls", with(func(s *mail.Server) { s.Addr, s.TLS = srv.Plain, mail.NoTLS }), right, letter, "never sent without TLS"},
		{"a server without tls", with(func(s *mail.Server) { s.Addr = srv.Plain }), right, letter, "STARTTLS"},
		{"unknown authority", with(func(s *mail.Server) { s.CAFile = "" }), right, letter, "certificate"},
		{"refused recipient", start, right, to("ops@elsewhere.net", "x"), "554"},
		{"recipient with a line end", start, right, to("ops@example.com>\r\nRCPT TO:<thief@example.com", "x"), "want an address"},
		{"nobody there", with(func(s *mail.Server) { s.Addr = "127.0.0.1:1" }), right, letter, "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(srv.Inbox())
			err := mail.Send(t.Context(), tt.server, tt.login, tt.message)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "wrong-battery") || strings.Contains(err.Error(), password) {
					t.Fatalf("it says %v, want %q and no password", err, tt.want)
				}
				if got := errors.Is(err, mail.ErrRefused); got != (tt.want == "554") {
					t.Errorf("refused for good: %v: %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, srv.Log())
			}
			got := arrived(t, srv, before+1)
			if len(got.Header["Bcc"]) != 0 || got.To != tt.message.To || len(got.Header["Subject"]) != 1 {
				t.Errorf("headers %v", got.Header)
			}
			if got.Header.Get("Message-Id") != "<incident-1-opened-2@example.com>" || !strings.HasPrefix(got.Header.Get("Date"), "Wed, 04 Mar 2026 05:06:07") {
				t.Errorf("id and date: %v", got.Header)
			}
			for _, part := range []string{"multipart/alternative", "text/plain", "plain words", "text/html", "<b>style</b>"} {
				if !strings.Contains(got.Raw, part) {
					t.Errorf("no %q in\n%s", part, got.Raw)
				}
			}
		})
	}
	for _, m := range srv.Inbox() {
		if strings.Contains(m.To, "thief") {
			t.Error("a name became a recipient")
		}
	}
}

// arrived waits for the nth mail.
func arrived(t *testing.T, srv *mailtest.MailServer, n int) mailtest.Mail {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if list := srv.Inbox(); len(list) >= n {
			return list[n-1]
		}
		select {
		case <-ctx.Done():
			t.Fatalf("mail %d did not arrive; log:\n%s", n, srv.Log())
		case <-tick.C:
		}
	}
}
