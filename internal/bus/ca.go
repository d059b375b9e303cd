package bus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	// caLife is long because sites pin this certificate: before it is replaced, they must have received its successor.
	caLife = 30 * 365 * 24 * time.Hour
	// early backdates a certificate, for sites whose clocks are behind.
	early = 24 * time.Hour
)

// CA signs the server's certificate, with ECDSA P-256.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA creates a certificate authority that is valid for 30 years. name is its common name.
func NewCA(name string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority's key: %w", err)
	}
	t, err := certTemplate(name, now, caLife)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.MaxPathLenZero = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	return &CA{cert, key}, nil
}

// LoadCA parses the output of PEM.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("read the certificate authority: it is not an ECDSA certificate authority's")
	}
	return &CA{pair.Leaf, key}, nil
}

// PEM returns the certificate, which is public, and the key, which belongs in the vault.
func (c *CA) PEM() (cert, key []byte, err error) {
	key, err = keyPEM(c.key)
	return certPEM(c.cert.Raw), key, err
}

// Fingerprint returns the value that sites pin.
func (c *CA) Fingerprint() Pin { return sha256.Sum256(c.cert.Raw) }

// Expires returns the end of the authority's validity.
func (c *CA) Expires() time.Time { return c.cert.NotAfter }

// Server issues a certificate for the Core's host names and IP addresses. The chain ends with the authority's own
// certificate: sites know only its fingerprint and read the certificate from the chain.
func (c *CA) Server(hosts []string, now time.Time, life time.Duration) (chain, key []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errors.New("make the server's certificate: no host name is given")
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the server's key: %w", err)
	}
	t, err := certTemplate(hosts[0], now, life)
	if err != nil {
		return nil, nil, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, priv.Public(), c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the server's certificate for %q: %w", hosts, err)
	}
	if key, err = keyPEM(priv); err != nil {
		return nil, nil, err
	}
	return append(certPEM(der), certPEM(c.cert.Raw)...), key, nil
}

func certTemplate(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: now.Add(-early).UTC(), NotAfter: now.Add(life).UTC(),
	}, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a certificate's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
