// Package bustest starts a NATS server with its own operator, account and certificates, as a customer would run it.
package bustest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Cluster is a NATS server as run by a customer: it has its own operator and account, certificates of its own CA, and
// TLS before the greeting.
type Cluster struct {
	URLs      []string // tls://
	WebSocket []string // wss://, the same server
	CAFile    string
	CredsFile string // of a user who may publish nf.down.> and subscribe to nf.up.>
	Account   string // public

	t        testing.TB
	ns       *server.Server
	options  *server.Options
	operator nkeys.KeyPair
	claims   *jwt.AccountClaims
	resolver *server.MemAccResolver
}

// NATS starts a Cluster on loopback that runs until the test ends.
func NATS(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t, resolver: &server.MemAccResolver{}}
	dir := t.TempDir()
	cert := c.certificate(dir)
	operator, err1 := nkeys.CreateOperator()
	account, err2 := nkeys.CreateAccount()
	c.must(errors.Join(err1, err2))
	c.operator = operator
	public := func(k nkeys.KeyPair) string {
		p, err := k.PublicKey()
		c.must(err)
		return p
	}
	c.Account = public(account)
	c.claims = jwt.NewAccountClaims(c.Account)
	c.store()

	user, err := nkeys.CreateUser()
	c.must(err)
	u := jwt.NewUserClaims(public(user))
	u.Pub.Allow.Add("nf.down.>")
	u.Sub.Allow.Add("nf.up.>")
	token, err := u.Encode(account)
	c.must(err)
	seed, err := user.Seed()
	c.must(err)
	creds, err := jwt.FormatUserConfig(token, seed)
	c.must(err)
	c.CredsFile = filepath.Join(dir, "core.creds")
	c.must(os.WriteFile(c.CredsFile, creds, 0o600))

	c.options = &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		TLS: true, TLSHandshakeFirst: true, TLSTimeout: 10,
		TLSConfig:        &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		TrustedOperators: []*jwt.OperatorClaims{jwt.NewOperatorClaims(public(operator))}, AccountResolver: c.resolver,
	}
	c.options.Websocket = server.WebsocketOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT, TLSConfig: c.options.TLSConfig}
	c.Start()
	t.Cleanup(c.Stop)
	return c
}

// Start starts the server; after a Stop, at the same addresses.
func (c *Cluster) Start() {
	c.t.Helper()
	o := c.options.Clone()
	o.TrustedOperators, o.AccountResolver = c.options.TrustedOperators, c.resolver
	var err error
	c.ns, err = server.NewServer(o)
	c.must(err)
	c.ns.Start()
	if !c.ns.ReadyForConnections(10 * time.Second) {
		c.t.Fatal("the cluster does not start")
	}
	c.options.Port = c.ns.Addr().(*net.TCPAddr).Port
	c.URLs = []string{"tls://" + c.ns.Addr().String()}
	c.WebSocket = []string{c.ns.WebsocketURL()}
	u, err := url.Parse(c.WebSocket[0])
	c.must(err)
	c.options.Websocket.Port, err = strconv.Atoi(u.Port())
	c.must(err)
}

// Stop stops the server.
func (c *Cluster) Stop() {
	c.ns.Shutdown()
	c.ns.WaitForShutdown()
}

// Trust adds a signing key to the account. Its users may publish and subscribe to these subjects. Without subjects, the
// key has no scope, as a careless administrator might set it up.
func (c *Cluster) Trust(key string, pubSub ...string) {
	c.t.Helper()
	if len(pubSub) == 0 {
		c.claims.SigningKeys.Add(key)
	} else {
		s := jwt.NewUserScope()
		s.Key = key
		s.Template.Pub.Allow.Add(pubSub[0])
		s.Template.Sub.Allow.Add(pubSub[1])
		c.claims.SigningKeys.AddScopedSigner(s)
	}
	c.push()
}

// Distrust removes a signing key.
func (c *Cluster) Distrust(key string) {
	c.t.Helper()
	delete(c.claims.SigningKeys, key)
	c.push()
}

func (c *Cluster) push() {
	c.t.Helper()
	c.store()
	token, err := c.resolver.Fetch(c.Account)
	c.must(err)
	claims, err := jwt.DecodeAccountClaims(token)
	c.must(err)
	acc, err := c.ns.LookupAccount(c.Account)
	c.must(err)
	c.ns.UpdateAccountClaims(acc, claims)
}

func (c *Cluster) store() {
	c.t.Helper()
	token, err := c.claims.Encode(c.operator)
	c.must(err)
	c.must(c.resolver.Store(c.Account, token))
}

// certificate makes a CA and a server certificate. The chain sent by the server ends with the CA's certificate.
func (c *Cluster) certificate(dir string) tls.Certificate {
	c.t.Helper()
	var chain [][]byte
	var parent *x509.Certificate
	var signer, key *ecdsa.PrivateKey
	for i, name := range []string{"cluster authority", "cluster"} {
		var err error
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		c.must(err)
		t := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true}
		if parent == nil {
			t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign
			parent, signer = t, key
		} else {
			t.IPAddresses, t.KeyUsage, t.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
		c.must(err)
		if t.IsCA {
			parent, err = x509.ParseCertificate(der)
			c.must(err)
			c.CAFile = filepath.Join(dir, "ca.pem")
			c.must(os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		}
		chain = append([][]byte{der}, chain...)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}

func (c *Cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}
