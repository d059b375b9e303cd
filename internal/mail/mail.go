// Package mail delivers messages: by SMTP, with TLS and a login, or as JSON
// to a webhook. It stores nothing and tries once; its caller keeps
// undelivered messages.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	netmail "net/mail"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/wneessen/go-mail"

	"nightferry/internal/durable"
	"nightferry/internal/text"
)

// TLS is the protection of a connection to a mail server.
type TLS string

// The kinds of protection.
const (
	StartTLS TLS = "starttls" // required, and the certificate checked
	Implicit TLS = "tls"      // from the first byte, as on port 465
	NoTLS    TLS = "none"     // for a server on the same machine; without a login
)

// Server is a mail server.
type Server struct {
	Addr   string // host:port
	TLS    TLS
	From   string // address of the sender
	Helo   string // name for the EHLO command; empty: the host's name, or the domain of From if that has none
	CAFile string // PEM certificates to trust besides the system's; empty: none

	// Folder, if set, receives mails as files instead of a server: a pickup
	// folder of another program, or a folder read by people.
	Folder string
}

// Login is an account at the server. The zero Login means none.
type Login struct {
	User, Password string
}

// Message is one mail to one recipient.
type Message struct {
	ID         string // becomes the Message-ID, so that a repeated mail can be recognized
	To         string
	Subject    string
	Text, HTML string
	Date       time.Time
}

// ErrRefused: the server accepted the connection and the login, and refused
// this sender, recipient or text permanently. Retry only after a change.
var ErrRefused = errors.New("refused")

// timeout bounds a whole delivery.
const timeout = 30 * time.Second

// Send delivers a message. It escapes control characters in the subject, and
// refuses an invalid address.
func Send(ctx context.Context, s Server, login Login, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := composeMessage(s, m)
	if err != nil {
		return fmt.Errorf("mail to %s: %w", escapeControl(m.To), err)
	}
	if s.Folder != "" {
		return dropMessage(s.Folder, m, msg)
	}
	if err := deliverMessage(ctx, s, login, msg); err != nil {
		err = fmt.Errorf("mail to %s through %s: %w", m.To, s.Addr, hidePassword(err, login))
		if failed, ok := errors.AsType[*mail.SendError](err); ok && !failed.IsTemp() && failed.ErrorCode() >= 500 {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return err
	}
	return nil
}

// CheckAddress returns nil for a plain address such as ops@example.com.
func CheckAddress(text string) error {
	a, err := netmail.ParseAddress(text)
	if err != nil || a.Address != text || a.Name != "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) }) || !strings.Contains(text, "@") {
		return fmt.Errorf("%q: want an address such as ops@example.com", text)
	}
	return nil
}

func composeMessage(s Server, m Message) (*mail.Msg, error) {
	for _, a := range []string{s.From, m.To} {
		if err := CheckAddress(a); err != nil {
			return nil, err
		}
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.FromFormat("nightferry", s.From), msg.EnvelopeFrom(s.From), msg.To(m.To)); err != nil {
		return nil, err
	}
	_, domain, _ := strings.Cut(s.From, "@")
	msg.SetMessageIDWithValue(idSafe(m.ID) + "@" + domain)
	msg.SetDateWithValue(m.Date)
	msg.Subject(escapeControl(m.Subject))
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// Check reports why no mail could be sent with the server's settings and this account, without asking the server.
func (s Server) Check(l Login) error {
	if s.Folder == "" {
		_, err := newClient(s, &login{Login: l})
		return err
	}
	info, err := os.Stat(s.Folder)
	switch {
	case errors.Is(err, fs.ErrNotExist): // the first mail makes it
		return nil
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is no folder", s.Folder)
	}
	return err
}

// maxCAFile bounds a certificate file, in bytes; the CA bundle of a whole
// system fits.
const maxCAFile = 4 << 20

func newClient(s Server, l *login) (*mail.Client, error) {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := text.ReadFile(durable.ReadTrusted, s.CAFile, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool()
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", s.CAFile)
		}
	}
	o := []mail.Option{mail.WithPort(n), mail.WithTimeout(timeout), mail.WithTLSConfig(conf), mail.WithHELO(greetingName(s, localHostname()))}
	switch s.TLS {
	case StartTLS:
		o = append(o, mail.WithTLSPolicy(mail.TLSMandatory))
	case Implicit:
		o = append(o, mail.WithSSL())
	case NoTLS:
		if l.Login != (Login{}) {
			return nil, errors.New("a login is never sent without TLS: use starttls or tls, or remove the secret smtp")
		}
		o = append(o, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return nil, fmt.Errorf("tls %q: want starttls, tls or none", s.TLS)
	}
	if l.Login != (Login{}) {
		l.host = host
		o = append(o, mail.WithSMTPAuthCustom(l))
	}
	return mail.NewClient(host, o...)
}

// hidePassword removes the password from an error, in case a server echoes its input.
func hidePassword(err error, login Login) error {
	if text := err.Error(); login.Password != "" && strings.Contains(text, login.Password) {
		return errors.New(escapeControl(strings.ReplaceAll(text, login.Password, "[secret]")))
	}
	return err
}

// escapeControl escapes control characters, so that no text can end a header
// line.
func escapeControl(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func idSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, s)
}
