package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/alert"
	"nightferry/internal/fleet"
	"nightferry/internal/mail"
)

// Alerts configure the recipients of alerts, their rules and their transport.
type Alerts struct {
	Rules alert.Rules
	SMTP  mail.Server // empty without Rules.Mail
}

type alertsFile struct {
	To      []string                `yaml:"to"`
	Report  *daily                  `yaml:"report"`
	Regions map[string]alertsRegion `yaml:"regions"`
	Domains map[string]alertsDomain `yaml:"domains"`
	SMTP    *smtpFile               `yaml:"smtp"`
	Webhook *secretSwitch           `yaml:"webhook"`
}

type alertsRegion struct {
	To     []string `yaml:"to"`
	Report *daily   `yaml:"report"`
}

type alertsDomain struct {
	To []string `yaml:"to"`
}

type smtpFile struct {
	Server *string `yaml:"server"`
	TLS    *string `yaml:"tls"`
	From   *string `yaml:"from"`
	Helo   *string `yaml:"helo"`
	CAFile *string `yaml:"ca_file"`
	Folder *string `yaml:"folder"`
}

// secretSwitch turns on something whose address is a secret. Its errors do not repeat the value, which may be that
// address.
type secretSwitch bool

func (s *secretSwitch) parseText(text string) error {
	if text != "true" && text != "false" {
		return errors.New("want true or false; the URL is a secret: nightferry secret set webhook")
	}
	*s = text == "true"
	return nil
}

// daily is a time of day and its zone: 07:00 Europe/Berlin.
type daily string

func (d *daily) parseText(text string) error {
	*d = daily(text)
	_, err := d.alertDaily()
	return err
}

func (d daily) alertDaily() (alert.Daily, error) {
	text := string(d)
	if text == off {
		return alert.Daily{}, nil
	}
	clock, zone, _ := strings.Cut(text, " ")
	at, err := time.Parse("15:04", clock)
	if err != nil || len(clock) != 5 || zone == "" || zone == "Local" {
		return alert.Daily{}, fmt.Errorf("%s: want a time and an IANA zone, such as 07:00 Europe/Berlin, or off", quoteShort(text))
	}
	where, err := time.LoadLocation(zone)
	if err != nil {
		return alert.Daily{}, fmt.Errorf("%s: there is no such time zone: want an IANA name such as Europe/Berlin", quoteShort(zone))
	}
	return alert.Daily{Hour: at.Hour(), Minute: at.Minute(), Zone: where}, nil
}

func (b *builder) buildAlerts(fl *fleet.Fleet) Alerts {
	f := &b.f.Alerts
	out := Alerts{Rules: alert.Rules{To: b.checkAddresses("alerts.to", f.To), Domains: map[string][]string{}, Regions: map[string]alert.Region{}}}
	report := alert.Daily{Hour: 7, Zone: time.UTC}
	if f.Report != nil {
		report, _ = f.Report.alertDaily() // errors were reported before
	}
	for _, r := range fl.Regions {
		out.Rules.Regions[r.Name] = alert.Region{Report: report}
	}
	for _, name := range sortedKeys(f.Regions) {
		key := "alerts.regions." + name
		if fl.Region(name) == nil {
			b.reportBad(key, "there is no such region: %s", fleet.Suggest(name, sortedKeys(b.f.Regions)))
			continue
		}
		r := alert.Region{To: b.checkAddresses(key+".to", f.Regions[name].To), Report: report}
		if own := f.Regions[name].Report; own != nil {
			r.Report, _ = own.alertDaily()
		}
		out.Rules.Regions[name] = r
	}
	for _, name := range sortedKeys(f.Domains) {
		key := "alerts.domains." + name
		if fl.Domain(name) == nil {
			b.reportBad(key, "there is no such domain: %s", fleet.Suggest(name, sortedKeys(b.f.Domains)))
			continue
		}
		out.Rules.Domains[name] = b.checkAddresses(key+".to", f.Domains[name].To)
	}
	b.buildSMTP(&out)
	out.Rules.Webhook = f.Webhook != nil && bool(*f.Webhook)
	if !out.Rules.Mail && !out.Rules.Webhook {
		return Alerts{}
	}
	return out
}

func (b *builder) checkAddresses(key string, given []string) []string {
	for i, a := range given {
		if err := mail.CheckAddress(a); err != nil {
			b.reportBad(fmt.Sprintf("%s[%d]", key, i), "%v", err)
		}
	}
	return given
}

// helo matches the valid arguments of an EHLO command.
var helo = regexp.MustCompile(`^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f.:]+\]|\[IPv6:[0-9A-Fa-f.:]+\])$`)

func (b *builder) buildSMTP(out *Alerts) {
	f := b.f.Alerts.SMTP
	if f == nil {
		for _, key := range []string{"alerts.to", "alerts.regions", "alerts.domains"} {
			if b.hasKey(key) {
				b.reportBad(key, "mails to recipients need a mail server: give alerts.smtp")
				return
			}
		}
		return
	}
	out.Rules.Mail = true
	out.SMTP.TLS = mail.StartTLS
	if f.TLS != nil {
		out.SMTP.TLS = mail.TLS(*f.TLS)
	}
	switch out.SMTP.TLS {
	case mail.StartTLS, mail.Implicit, mail.NoTLS:
	default:
		b.reportBad("alerts.smtp.tls", "%s: want starttls, tls or none", quoteShort(string(out.SMTP.TLS)))
	}
	out.SMTP.Folder = b.buildFolder("alerts.smtp.folder", f.Folder, "")
	switch {
	case f.Folder != nil:
		if f.Server != nil || f.TLS != nil || f.CAFile != nil || f.Helo != nil {
			b.reportBad("alerts.smtp.folder", "mails go into a folder or to a server: remove this, or server, tls, helo and ca_file")
		}
	case f.Server == nil:
		b.reportBad("alerts.smtp.server", "it is missing: want HOST:PORT such as mail.example.com:587, or folder")
	default:
		host, port, err := net.SplitHostPort(*f.Server)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@ ") {
			b.reportBad("alerts.smtp.server", "%s: want HOST:PORT such as mail.example.com:587", quoteShort(*f.Server))
		}
		out.SMTP.Addr = *f.Server
	}
	if f.From == nil {
		b.reportBad("alerts.smtp.from", "it is missing: name the address that the mails come from")
	} else {
		if err := mail.CheckAddress(*f.From); err != nil {
			b.reportBad("alerts.smtp.from", "%v", err)
		}
		out.SMTP.From = *f.From
	}
	if f.Helo != nil {
		if !helo.MatchString(*f.Helo) {
			b.reportBad("alerts.smtp.helo", "%s: want a name such as core.example.com, or an address such as [192.0.2.1]", quoteShort(*f.Helo))
		}
		out.SMTP.Helo = *f.Helo
	}
	if f.CAFile != nil {
		out.SMTP.CAFile = b.buildFolder("alerts.smtp.ca_file", f.CAFile, "")
	}
	if len(out.Rules.To) == 0 {
		b.reportBad("alerts.to", "it is missing: name at least one address, which receives every notice")
	}
}
