package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/alert"
	"nightferry/internal/mail"
)

const alertBase = base + "regions: {ap: {}, emea: {}}\ndomains: {apac: {}}\n"

func TestAlerts(t *testing.T) {
	text := alertBase + `alerts:
  to: [ops@example.com]
  report: 06:30 Asia/Tokyo
  regions: {emea: {to: [e@example.com], report: off}}
  domains: {apac: {to: [a@example.com]}}
  smtp: {server: 'mail.example.com:465', tls: tls, from: nf@example.com, helo: core.example.com, ca_file: /etc/ca.pem}
  webhook: true
`
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, compileSchema(t), []byte(text)); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
	ap := c.Alerts.Rules.Regions["ap"].Report
	if ap.Hour != 6 || ap.Minute != 30 || ap.Zone.String() != "Asia/Tokyo" {
		t.Errorf("the default report is at %+v", ap)
	}
	c.Alerts.Rules.Regions["ap"] = alert.Region{}
	want := Alerts{
		Rules: alert.Rules{Mail: true, Webhook: true, To: []string{"ops@example.com"}, Domains: map[string][]string{"apac": {"a@example.com"}},
			Regions: map[string]alert.Region{"ap": {}, "emea": {To: []string{"e@example.com"}}}},
		SMTP: mail.Server{Addr: "mail.example.com:465", TLS: mail.Implicit, From: "nf@example.com", Helo: "core.example.com", CAFile: "/etc/ca.pem"},
	}
	if diff := cmp.Diff(want, c.Alerts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAlertsRefused(t *testing.T) {
	smtp := "smtp: {server: 'm:25', from: nf@example.com}"
	for _, tt := range []struct{ alerts, want string }{
		{"{" + smtp + "}", "alerts.to: it is missing"},
		{"{to: [ops@example.com]}", "alerts.to: mails to recipients need a mail server"},
		{"{to: ['ops@example.com>\\nBcc: x@y'], " + smtp + "}", "alerts.to[0]: "},
		{`{to: ["a@b\r\nBcc: c@d"], ` + smtp + "}", "alerts.to[0]: "},
		{"{to: ['Ops <ops@example.com>'], " + smtp + "}", "want an address such as"},
		{"{to: [a@b], report: 7:00, " + smtp + "}", "alerts.report: \"7:00\": want a time and an IANA zone"},
		{"{to: [a@b], report: 07:00 Mars/Base, " + smtp + "}", "there is no such time zone"},
		{"{to: [a@b], regions: {aap: {}}, " + smtp + "}", `alerts.regions.aap: there is no such region: did you mean "ap"?`},
		{"{to: [a@b], domains: {corp: {}}, " + smtp + "}", "alerts.domains.corp: there is no such domain"},
		{"{to: [a@b], smtp: {server: m, from: n@b}}", "alerts.smtp.server: \"m\": want HOST:PORT"},
		{"{to: [a@b], smtp: {from: n@b}}", "want HOST:PORT such as mail.example.com:587, or folder"},
		{"{to: [a@b], smtp: {server: 'm:25', folder: /var/mail, from: n@b}}", "alerts.smtp.folder: mails go into a folder or to a server"},
		{"{to: [a@b], smtp: {tls: none, folder: /var/mail, from: n@b}}", "alerts.smtp.folder: mails go into a folder or to a server"},
		{"{to: [a@b], smtp: {server: 'm:25', from: n@b, helo: 'a b'}}", "alerts.smtp.helo: \"a b\": want a name such as core.example.com"},
		{"{to: [a@b], smtp: {server: 'm:25', from: n@b, tls: ssl}}", "alerts.smtp.tls: \"ssl\": want starttls, tls or none"},
		{"{webhook: 'https://h/hunter2'}", "alerts.webhook: want true or false; the URL is a secret"},
		{"{webhook: {url: 'https://h/hunter2'}}", "alerts.webhook: want one value, found keys with values"},
		{"{webhook: [https://h/hunter2]}", "alerts.webhook: want one value, found a list"},
	} {
		c, err := Parse("f", []byte(alertBase+"alerts: "+tt.alerts+"\n"))
		if err == nil || c != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("alerts: %s\nsays %v\nwant %s", tt.alerts, err, tt.want)
		}
	}
}
