package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/alert"
	"nightferry/internal/durable"
	"nightferry/internal/incident"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/mail"
	"nightferry/internal/query"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// Alerts configure who is notified of which incidents. The zero Alerts notify no one.
type Alerts struct {
	Rules alert.Rules
	SMTP  mail.Server
}

// Names of the secrets for delivering alerts.
const (
	SecretSMTP    = "smtp"    // user and password, separated by white space; optional
	SecretWebhook = "webhook" // see mail.ParseHook
)

const alertsName = "alerts.json"

// maxAlerts bounds the size of alertsName, in bytes.
const maxAlerts = 256 << 20

// Notifier delivers alerts. It owns the secrets that were used last, and what was
// sent to whom.
type Notifier struct {
	settings  *atomic.Pointer[Settings]
	dir       *durable.Root // of the file of what was sent
	incidents incidentRecords
	runs      runReader
	vault     *vault.Vault
	query     *query.Service
	notices   *notices
	clock     *clocks
	now       func() time.Time // this machine's
	given     sync.Map         // vault.Secret, by name, with which mails were last sent
	faults    atomic.Pointer[AlertFaults]
}

// incidentRecords reads incidents. *ledger.Incidents is one.
type incidentRecords interface {
	List(ctx context.Context, all bool) ([]ledger.Incident, error)
}

// dispatcher notifies people of incidents. It is used by one goroutine at a time.
type dispatcher struct {
	by     *Notifier
	state  alert.State
	loaded bool
	unkept bool      // the state in memory is ahead of the file
	full   time.Time // since when the ledger has refused writes
}

// hookBody is the body of a webhook request.
type hookBody struct {
	Version int            `json:"version"`
	Notices []alert.Notice `json:"notices"`
}

// notifyPeople queues new notices and delivers those that are due. A notice is made durable before it
// is sent, so a crash can at worst send a mail twice.
func (t *dispatcher) notifyPeople(ctx context.Context) {
	s := t.by.settings.Load()
	rules := &s.Alerts.Rules
	if !rules.Mail && !rules.Webhook {
		t.saveState(t.state.Retarget(rules))
		t.reportFailures() // closes the incidents of recipients that are no longer configured
		return
	}
	if !t.loaded {
		if err := t.loadState(); err != nil {
			t.by.notices.ReportFailure("alerts", err)
			return
		}
	}
	now := t.by.clock.wallTime()
	changed := t.state.Retarget(rules)
	list, err := t.listIncidents(ctx, now)
	if err != nil {
		t.by.notices.ReportFailure("alerts", err)
	} else if t.state.Update(now, rules, list) {
		changed = true
	}
	for _, region := range t.state.ReportsDue(now, rules) {
		rep, err := t.by.morningReport(ctx, region, now)
		if err != nil {
			t.by.notices.ReportFailure("alerts", fmt.Errorf("report of region %s: %w", region, err))
			continue
		}
		t.state.AddReport(now, rules, *rep)
		changed = true
	}
	t.saveState(changed)
	t.deliverMails(ctx, &s.Alerts)
}

// deliverMails sends each due mail once. If the mail server itself fails, the remaining e-mails of this
// round fail with the same error, without another attempt.
func (t *dispatcher) deliverMails(ctx context.Context, a *Alerts) {
	var mailErr error
	for _, l := range t.state.Messages(t.by.clock.wallTime(), &a.Rules) {
		if ctx.Err() != nil {
			return
		}
		if f := t.state.Failing[l.To]; f != nil && !f.Due(t.by.clock.wallTime()) {
			continue // it failed in this round
		}
		err := mailErr
		if l.To == alert.Hook || err == nil {
			err = t.by.sendMail(ctx, a, &l)
		}
		now := t.by.clock.wallTime()
		switch {
		case err == nil:
			t.state.Delivered(&l)
		case ctx.Err() != nil:
			return
		default:
			t.state.Failed(now, l.To, err)
			if l.To != alert.Hook && isUnreachable(err) {
				mailErr = err
			}
			t.by.notices.ReportFailure("mail", err)
		}
		t.saveState(true)
	}
	t.reportFailures()
}

// isUnreachable reports whether the server itself failed, and did not just refuse one recipient.
func isUnreachable(err error) bool { return !errors.Is(err, mail.ErrRefused) }

// reportFailures opens an incident for failed deliveries and closes it when they work again. A single
// failure opens none, because some mail servers reject every unknown sender once.
func (t *dispatcher) reportFailures() {
	var mails, hook error
	for to, f := range t.state.Failing {
		if f.Times < 2 {
			continue
		}
		err := fmt.Errorf("since %s: %s: it is kept and tried again", f.Since.UTC().Format(time.RFC3339), f.Why)
		if to == alert.Hook {
			hook = err
		} else {
			mails = err
		}
	}
	t.by.reportFaults(mails, hook)
}

// sendMail delivers one mail.
func (nt *Notifier) sendMail(ctx context.Context, a *Alerts, l *alert.Message) error {
	if l.To == alert.Hook {
		secret, err := nt.readSecret(ctx, SecretWebhook, "send to the webhook")
		if err != nil {
			return err
		}
		hook, err := mail.ParseHook(secret)
		if err != nil {
			return fmt.Errorf("the secret %s: %w", SecretWebhook, err)
		}
		return hook.Post(ctx, hookBody{1, l.Notices})
	}
	login, err := nt.mailLogin(ctx, a)
	if err != nil {
		return err
	}
	subject, text, html, err := alert.Render(l)
	if err != nil {
		return err
	}
	return mail.Send(ctx, a.SMTP, login, mail.Message{ID: l.ID, To: l.To, Subject: subject, Text: text, HTML: html, Date: nt.now()})
}

// mailLogin returns the account at the mail server. A folder needs none.
func (nt *Notifier) mailLogin(ctx context.Context, a *Alerts) (login mail.Login, err error) {
	if a.SMTP.Folder != "" {
		return login, nil
	}
	secret, err := nt.readSecret(ctx, SecretSMTP, "send a mail")
	if err != nil {
		return login, err
	}
	return parseLogin(secret)
}

// parseLogin reads the secret of an account at the mail server. An empty one is no account.
func parseLogin(secret string) (login mail.Login, err error) {
	if secret == "" {
		return login, nil
	}
	user, password := secret, ""
	if i := strings.IndexAny(secret, " \t\r\n"); i >= 0 {
		user, password = secret[:i], strings.Trim(secret[i:], " \t\r\n")
	}
	if user == "" || password == "" {
		return login, errors.New("the secret smtp is not USER PASSWORD: set it anew")
	}
	return mail.Login{User: user, Password: password}, nil
}

// readSecret reads an optional secret. It is empty if there is none. While the ledger's disk is full,
// the vault cannot record the access and returns nothing. The last value is then used, because
// people must be notified of the full disk.
func (nt *Notifier) readSecret(ctx context.Context, name, purpose string) (string, error) {
	s, _, err := nt.vault.Get(ctx, name, purpose)
	switch {
	case errors.Is(err, vault.ErrAudit) && errors.Is(err, ledger.ErrFull):
		last, ok := nt.given.Load(name)
		if !ok {
			return "", err
		}
		return string(last.(vault.Secret).Reveal()), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	nt.given.Store(name, s)
	return string(s.Reveal()), nil
}

// AlertFaults are the reasons why alerts cannot be delivered with the secrets and files that exist.
type AlertFaults struct{ Mail, Webhook error }

// CheckAlerts checks the files and secrets that the settings of alerts need. secret returns the value of a secret,
// empty if there is none.
func CheckAlerts(a *Alerts, secret func(name string) (string, error)) (f AlertFaults) {
	if a.Rules.Mail {
		var login mail.Login
		var value string
		var err error
		if a.SMTP.Folder == "" {
			value, err = secret(SecretSMTP)
		}
		if err == nil {
			login, err = parseLogin(value)
		}
		if unusable := a.SMTP.Check(login); unusable != nil {
			err = unusable
		}
		f.Mail = err
	}
	if a.Rules.Webhook {
		value, err := secret(SecretWebhook)
		switch {
		case err != nil:
		case value == "":
			err = errors.New("alerts.webhook is true, but the vault has no secret webhook: store it with nightferry secret set webhook")
		default:
			if _, err = mail.ParseHook(value); err != nil {
				err = fmt.Errorf("the secret %s: %w", SecretWebhook, err)
			}
		}
		f.Webhook = err
	}
	return f
}

// Faults returns why alerts cannot be delivered, as of the last reading of the settings and secrets.
func (nt *Notifier) Faults() (list []string) {
	if f := nt.faults.Load(); f != nil {
		for _, err := range []error{f.Mail, f.Webhook} {
			if err != nil {
				list = append(list, err.Error())
			}
		}
	}
	return list
}

// readSecrets reads the secrets for later mails while the vault can still record the access, and reports what is
// missing.
func (nt *Notifier) readSecrets(ctx context.Context) {
	var unread error
	f := CheckAlerts(&nt.settings.Load().Alerts, func(name string) (string, error) {
		value, err := nt.readSecret(ctx, name, "tell of a full disk, too")
		unread = errors.Join(unread, err)
		return value, err
	})
	if unread != nil { // the next delivery reads it again, and its failure shows
		nt.notices.ReportFailure("alerts", unread)
		if errors.Is(unread, f.Mail) {
			f.Mail = nil
		}
		if errors.Is(unread, f.Webhook) {
			f.Webhook = nil
		}
	}
	nt.faults.Store(&f)
	for _, text := range nt.Faults() {
		nt.notices.ReportFailure("mail", errors.New(text)) // the incident is opened by reportFaults
	}
	nt.reportFaults(nil, nil)
}

// reportFaults opens the incidents of alerts that cannot be delivered, by the errors of deliveries or else by what is
// missing, and closes them if there is neither.
func (nt *Notifier) reportFaults(mails, hook error) {
	if f := nt.faults.Load(); f != nil {
		if mails == nil {
			mails = f.Mail
		}
		if hook == nil {
			hook = f.Webhook
		}
	}
	if mails != nil {
		nt.notices.incidents.Raise(kinds.MailDown, "", wire.Address{}, mails.Error())
	} else {
		nt.notices.incidents.Resolve(kinds.MailDown, "", wire.Address{})
	}
	if hook != nil {
		nt.notices.incidents.Raise(kinds.HookDown, "", wire.Address{}, hook.Error())
	} else {
		nt.notices.incidents.Resolve(kinds.HookDown, "", wire.Address{})
	}
}

// listIncidents lists the incidents as alerts show them, newest first. A ledger on a full disk cannot
// store the incident about it, so incidents creates that one itself.
func (t *dispatcher) listIncidents(ctx context.Context, now time.Time) ([]alert.Incident, error) {
	list, err := t.by.incidents.List(ctx, true)
	if err != nil {
		return nil, err
	}
	open, err := t.by.incidents.List(ctx, false) // those older than the newest thousand
	if err != nil {
		return nil, err
	}
	list = append(list, open...)
	symptom, known := incident.Symptoms(list, now), map[int64]bool{}
	var out []alert.Incident
	for _, i := range list {
		if known[i.ID] || i.Kind == string(kinds.Full) {
			continue
		}
		known[i.ID] = true
		if !symptom[i.ID] || t.state.Told[i.ID] != nil { // one mail per cause; an incident that was notified before is notified until it is resolved
			out = append(out, t.by.alertIncident(i))
		}
	}
	if !t.by.notices.full.Load() {
		t.full = time.Time{}
		return out, nil
	}
	if t.full.IsZero() {
		t.full = now
	}
	text := ledger.ErrFull.Error() + "; sites keep what they report until then"
	return append(out, alert.Incident{ID: -1, Key: string(kinds.Full), Kind: string(kinds.Full), Text: text, Remedy: kinds.Remedy(kinds.Full, ""), Opened: t.full, Last: now, Count: 1,
		Members: []alert.Member{{Text: text, First: t.full}}}), nil
}

func (nt *Notifier) alertIncident(i ledger.Incident) alert.Incident {
	x := alert.Incident{ID: i.ID, Key: i.Key, Kind: i.Kind, Text: i.Text, Remedy: kinds.Remedy(kinds.Kind(i.Kind), i.Text), Opened: i.Opened, Last: i.Last, Count: i.Count, Resolved: i.Resolved, Acked: i.Acked != "", Silent: i.Silent}
	f := nt.settings.Load().Fleet
	for _, m := range i.Members {
		n := alert.Member{Domain: m.Domain, Site: m.Site, Text: m.Text, First: m.First, Left: m.Left}
		if s := f.Site(m.Site); s != nil && s.Domain == m.Domain {
			n.Region = s.Region
		}
		x.Members = append(x.Members, n)
	}
	return x
}

// loadState reads the stored state of alerts. A damaged file is set aside, and open incidents are then
// notified again. A file that cannot be read now is left as it is.
func (t *dispatcher) loadState() error {
	f, err := t.by.dir.Open(alertsName)
	if errors.Is(err, fs.ErrNotExist) {
		t.loaded = true
		return nil
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, maxAlerts))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("read %s: %w: no mail or notice is sent until that is possible", alertsName, err)
	}
	t.loaded = true
	if err = json.Unmarshal(b, &t.state); err == nil {
		return nil
	}
	now := t.by.clock.wallTime()
	t.state = alert.Lost(now)
	aside := alertsName + "." + now.UTC().Format("20060102T150405") + ".damaged"
	return errors.Join(fmt.Errorf("read %s: %w: it is set aside, and open incidents are mailed again", alertsName, err), t.by.dir.Rename(alertsName, aside))
}

// saveState stores the state. Notices are sent even if it cannot be stored, because people must be
// notified of a full disk.
func (t *dispatcher) saveState(changed bool) {
	if t.unkept = t.unkept || changed; !t.unkept {
		return
	}
	b, err := json.Marshal(&t.state)
	if err == nil {
		err = t.by.dir.WriteFile(alertsName, b, 0o600)
	}
	if err != nil {
		t.by.notices.ReportFailure("alerts", fmt.Errorf("store the record of sent notices: %w", err))
		return
	}
	t.unkept = false
	t.by.notices.ReportSuccess("alerts")
}

// AlertTest is the result of one test.
type AlertTest struct {
	To    string `json:"to"`
	Error string `json:"error,omitempty"` // empty: it was accepted
}

// Test sends a test notice to every recipient, or only to the one named.
func (nt *Notifier) Test(ctx context.Context, only string) ([]AlertTest, error) {
	a := &nt.settings.Load().Alerts
	if !a.Rules.Mail && !a.Rules.Webhook {
		return nil, errors.New("the configuration has no recipient: give it alerts.smtp or alerts.webhook")
	}
	targets := a.Rules.Targets()
	if only != "" {
		targets = []string{only}
	}
	out := make([]AlertTest, len(targets))
	var wait sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, to := range targets {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			l := alert.TestNotice(nt.now(), to)
			out[i].To = to
			if err := nt.sendMail(ctx, a, &l); err != nil {
				out[i].Error = err.Error()
			}
		})
	}
	wait.Wait()
	return out, ctx.Err()
}
