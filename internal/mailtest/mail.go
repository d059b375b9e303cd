// Package mailtest starts a real Postfix with TLS and a login, and reads the mail that it accepted.
package mailtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/testbed"
)

// MailServer is a real Postfix in its own processes, with TLS and a login. It accepts mail for example.com and refuses
// every other domain.
type MailServer struct {
	t        testing.TB
	dir      string
	StartTLS string // host:port that requires STARTTLS
	Implicit string // host:port of TLS from the first byte
	Plain    string // host:port without TLS and login
	CAFile   string // certificate to trust
}

const postfixMain = `compatibility_level = 3.6
queue_directory = @/queue
data_directory = @/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = @/log
maillog_file_prefixes = @
myhostname = mail.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
alias_database =
virtual_mailbox_domains = example.com
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = @/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = test
smtpd_sasl_security_options = noanonymous
smtpd_tls_cert_file = @/cert.pem
smtpd_tls_key_file = @/key.pem
smtpd_tls_auth_only = yes
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = reject_unauth_destination
`

const postfixMaster = `%s inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt -o smtpd_client_restrictions=permit_sasl_authenticated,reject
%s inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject
%s inet n - n - - smtpd
  -o smtpd_tls_security_level=none
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
`

// Postfix starts a MailServer. It needs root, as Postfix does.
func Postfix(t testing.TB, user, password string) *MailServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "nightferry-mail-") // short: it contains sockets
	if err != nil {
		t.Fatal(err)
	}
	m := &MailServer{t: t, dir: dir, StartTLS: freeAddr(t), Implicit: freeAddr(t), Plain: freeAddr(t), CAFile: filepath.Join(dir, "cert.pem")}
	t.Cleanup(func() {
		m.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("start postfix (it needs root, and the packages postfix and sasl2-bin): %v", err)
		}
	}
	must(os.Chmod(dir, 0o755)) // its parts run under their own accounts
	for _, d := range []string{"conf", "conf/sasl", "queue", "data", "mail"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	write := func(name, text string) {
		t.Helper()
		must(os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "@", dir)), 0o644))
	}
	write("conf/main.cf", postfixMain)
	write("conf/master.cf", fmt.Sprintf(postfixMaster, m.StartTLS, m.Implicit, m.Plain))
	write("conf/sasl/smtpd.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: @/sasldb2\nmech_list: PLAIN LOGIN\n")
	must(writeCert(dir))
	add := exec.Command("saslpasswd2", "-p", "-c", "-f", filepath.Join(dir, "sasldb2"), "-u", "test", user)
	add.Stdin = strings.NewReader(password)
	must(said(add))
	must(said(exec.Command("chown", "postfix", filepath.Join(dir, "sasldb2"), filepath.Join(dir, "data"))))
	must(said(exec.Command("chown", "65534:65534", filepath.Join(dir, "mail"))))
	m.Start()
	return m
}

// Start restarts the server after Stop.
func (m *MailServer) Start() {
	m.t.Helper()
	if err := said(exec.Command("postfix", "-c", filepath.Join(m.dir, "conf"), "start")); err != nil {
		m.t.Fatal(err)
	}
	for range 200 { // it usually listens already; this is for slow machines
		c, err := net.Dial("tcp", m.StartTLS)
		if err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.t.Fatal("postfix does not listen")
}

// Stop stops the server; its addresses then refuse connections.
func (m *MailServer) Stop() {
	_ = said(exec.Command("postfix", "-c", filepath.Join(m.dir, "conf"), "stop")) // it may be stopped already
}

// Log returns the server's log.
func (m *MailServer) Log() string {
	b, _ := os.ReadFile(filepath.Join(m.dir, "log"))
	return string(b)
}

// Mail is one delivered mail.
type Mail struct {
	To     string // from the envelope
	Header mail.Header
	Raw    string
	Parts  map[string]string // by media type, decoded
}

func parseMail(b []byte) (Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		return Mail{}, err
	}
	m := Mail{To: msg.Header.Get("Delivered-To"), Header: msg.Header, Raw: string(b), Parts: map[string]string{}}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		return Mail{}, err
	}
	r := multipart.NewReader(msg.Body, params["boundary"])
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return Mail{}, err
		}
		text, err := io.ReadAll(p)
		if err != nil {
			return Mail{}, err
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			return Mail{}, err
		}
		m.Parts[kind] = string(text)
	}
}

// Inbox returns the delivered mails, the oldest first.
func (m *MailServer) Inbox() []Mail {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.dir, "mail", "inbox", "new", "*"))
	if err != nil {
		m.t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int {
		x, err1 := os.Stat(a)
		y, err2 := os.Stat(b)
		if err := errors.Join(err1, err2); err != nil {
			m.t.Fatal(err)
		}
		return x.ModTime().Compare(y.ModTime())
	})
	var out []Mail
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			m.t.Fatal(err)
		}
		one, err := parseMail(b)
		if err != nil {
			m.t.Fatal(err)
		}
		out = append(out, one)
	}
	return out
}

func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := testbed.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func said(c *exec.Cmd) error {
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.Args[0], err, b)
	}
	return nil
}

func writeCert(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600))
}
