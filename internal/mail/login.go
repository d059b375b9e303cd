package mail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// methods lists the login methods in the order of attempts. NTLM is last:
// some servers offer it but accept it only from members of their domain.
var methods = []string{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5", "NTLM"}

// maxMethods bounds the attempts of one delivery, so that a wrong password
// does not lock an account.
const maxMethods = 3

// login logs in by the first method that the server offers and has not
// refused before. It is used for one delivery and its retries.
type login struct {
	Login
	host    string
	refused []string
	method  string // of this connection; empty: none yet
	done    bool   // the server accepted it
	inner   smtp.Auth
}

// Start implements smtp.Auth.
func (l *login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	for _, m := range methods {
		if slices.Contains(server.Auth, m) && !slices.Contains(l.refused, m) {
			l.method, l.inner = m, l.chooseAuth(m)
			return l.inner.Start(server)
		}
	}
	if len(server.Auth) == 0 {
		return "", nil, errors.New("the server offers no login: remove the secret smtp, or use another port")
	}
	return "", nil, fmt.Errorf("the server offers the login methods %s: want one of %s", strings.Join(server.Auth, ", "), strings.Join(methods, ", "))
}

func (l *login) chooseAuth(method string) smtp.Auth {
	switch method {
	case "SCRAM-SHA-256":
		return smtp.ScramSHA256Auth(l.User, l.Password)
	case "SCRAM-SHA-1":
		return smtp.ScramSHA1Auth(l.User, l.Password)
	case "PLAIN":
		return smtp.PlainAuth("", l.User, l.Password, l.host, false)
	case "LOGIN":
		return smtp.LoginAuth(l.User, l.Password, l.host, false)
	case "CRAM-MD5":
		return smtp.CRAMMD5Auth(l.User, l.Password)
	}
	return smtp.NTLMAuth(l.User, l.Password, "")
}

// Next implements smtp.Auth.
func (l *login) Next(challenge []byte, more bool) ([]byte, error) {
	answer, err := l.inner.Next(challenge, more)
	l.done = !more && err == nil
	return answer, err
}

// deliverMessage connects, logs in and sends. If a login is refused, it tries the
// next method over a new connection, because the library closes the first
// one.
func deliverMessage(ctx context.Context, s Server, who Login, msg *mail.Msg) error {
	l := &login{Login: who}
	var errs []error
	for {
		l.method, l.done = "", false
		c, err := newClient(s, l)
		if err != nil {
			return err
		}
		err = c.DialAndSendWithContext(ctx, msg)
		if err == nil {
			return nil
		}
		if l.method == "" || l.done || ctx.Err() != nil {
			if l.method == "" && len(errs) > 0 {
				return errors.Join(errs...) // no method is left
			}
			return err
		}
		errs = append(errs, fmt.Errorf("login by %s: %w", l.method, err))
		if l.refused = append(l.refused, l.method); len(l.refused) == maxMethods {
			return errors.Join(errs...)
		}
	}
}

// greetingName returns the name for the EHLO command. It has a domain, because
// many servers refuse names without one.
func greetingName(s Server, hostname string) string {
	if s.Helo != "" {
		return s.Helo
	}
	_, domain, _ := strings.Cut(s.From, "@")
	if !strings.Contains(hostname, ".") && strings.Contains(domain, ".") {
		return domain
	}
	if hostname == "" {
		return "localhost"
	}
	return hostname
}

func localHostname() string {
	name, _ := os.Hostname() // without a host name, greeting uses another name
	return name
}
