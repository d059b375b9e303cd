package bus

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"

	"nightferry/internal/durable"
	"nightferry/internal/text"
)

// maxFile bounds a file with credentials or a certificate, in bytes.
const maxFile = 64 << 10

// AccountOf returns the public key of the account of a user on your own NATS cluster. It reads the user's credentials
// file. Errors never contain the file's content.
func AccountOf(credsFile string) (string, error) {
	text, err := durable.ReadPrivate(credsFile, maxFile)
	if err != nil {
		return "", fmt.Errorf("read the cluster's credentials: %w", err)
	}
	defer clear(text)
	token, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return "", fmt.Errorf("read the cluster's credentials %s: they hold no user's JWT", credsFile)
	}
	c, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return "", fmt.Errorf("read the cluster's credentials %s: they hold no user's JWT", credsFile)
	}
	if c.IssuerAccount != "" {
		return c.IssuerAccount, nil
	}
	return c.Issuer, nil
}

// LoadAuthorityFile reads the PEM certificate of the authority that signs a cluster's servers. It returns the pin for
// sites and the pool for the Core's own client.
func LoadAuthorityFile(file string) (Pin, *x509.CertPool, error) {
	authority, err := text.ReadFile(durable.ReadTrusted, file, maxFile)
	if err != nil {
		return Pin{}, nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	block, rest := pem.Decode(authority)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return Pin{}, nil, fmt.Errorf("read the cluster's authority %s: want one certificate, as PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err == nil && !cert.IsCA {
		err = errors.New("it is not an authority's")
	}
	if err != nil {
		return Pin{}, nil, fmt.Errorf("read the cluster's authority %s: %w", file, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return sha256.Sum256(cert.Raw), pool, nil
}

// EnrolRole is the role of the key that signs users of enrollment tokens.
const EnrolRole = "enrollment"

// DomainRole is the role of a domain's signing keys.
func DomainRole(domain string) string { return "domain " + domain }

// Scope is a signing key that the account on your own cluster must have, with its permissions.
type Scope struct {
	Role string // EnrolRole, or a DomainRole
	Key  string // public
	Pub  string
	Sub  string
}

// Probe signs the JWT of a user that tests whether an account accepts users of a signing key. key is its public half.
func (a *Authority) Probe(key, name, public string, life time.Duration, now time.Time) (string, error) {
	kp, ok := a.signers[key]
	if !ok {
		return "", fmt.Errorf("sign a JWT for %q: key %q is not the authority's", name, clipText(key))
	}
	return a.signUser(kp, name, public, life, now)
}

// Scopes lists the signing keys that an account needs in order to accept this authority's users, ordered by role. It
// omits the key of the Core's own user.
func (a *Authority) Scopes() []Scope {
	var out []Scope
	core, _ := a.core.PublicKey() // never fails: the key was parsed from a seed
	for _, key := range slices.Sorted(maps.Keys(a.claims.SigningKeys)) {
		s, ok := a.claims.SigningKeys[key].(*jwt.UserScope)
		if !ok || key == core {
			continue
		}
		out = append(out, Scope{s.Role, key, s.Template.Pub.Allow[0], s.Template.Sub.Allow[0]})
	}
	slices.SortStableFunc(out, func(a, b Scope) int { return bytes.Compare([]byte(a.Role), []byte(b.Role)) })
	return out
}
