package bus

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// TestForeignCluster uses a NATS server with the usual setup: TLS after the greeting, headers, and one user of an
// account with a credentials file.
func TestForeignCluster(t *testing.T) {
	w := newWorld(t)
	operator, err := w.authority().operatorClaims()
	if err != nil {
		t.Fatal(err)
	}
	operator.StrictSigningKeyUsage = false
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewAccountClaims(public).Encode(w.authority().operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(public, token); err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{*w.cert}}
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, TLSConfig: conf, TLSTimeout: 5,
		TrustedOperators: []*jwt.OperatorClaims{operator}, AccountResolver: resolver,
		Websocket: server.WebsocketOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT, TLSConfig: conf},
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("it does not start")
	}

	seed, user := w.identity()
	token, err = jwt.NewUserClaims(user).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	for _, url := range []string{"tls://" + ns.Addr().String(), ns.PortsInfo(time.Second).WebSocket[0]} {
		o := ClientOptions{URLs: []string{url}, CredsFile: file, Roots: roots}
		s := w.dial(o)
		heard := s.hear("nf.up.>")
		s.say("nf.up.alpha.rome.beat", "here")
		if got := receive(t, "the word", heard); got != "nf.up.alpha.rome.beat here" {
			t.Errorf("heard %q", got)
		}
		o.Roots = nil
		if s, err := w.try(o); err == nil {
			s.Close()
			t.Error("a certificate of nobody's was accepted")
		}
	}
}
