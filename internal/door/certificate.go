package door

import (
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"nightferry/internal/durable"
)

// CertificateError means that a certificate cannot be used.
type CertificateError struct {
	File, Fix string
	Err       error
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("certificate of the console %q: %v", e.File, e.Err)
}
func (e *CertificateError) Unwrap() error { return e.Err }

// Remedy returns the next step.
func (e *CertificateError) Remedy() string { return e.Fix }

const (
	maxPEM = 1 << 20 // bytes of a file
	// lookEvery is how often files are looked at for a renewal.
	lookEvery = 10 * time.Second
	// renewBefore is the part of a made certificate's life that is left when it is made again.
	renewBefore = 3
)

// FilesOptions of NewFiles.
type FilesOptions struct {
	Certificate, Key string // PEM files
	Now              func() time.Time
	// Report receives a failure to read renewed files, and nil when they could be read. The certificate that was
	// read before stays in force.
	Report func(error)
}

// Files is a certificate in two files, which are read again after they have changed.
type Files struct {
	o FilesOptions

	mu     sync.Mutex
	pair   *tls.Certificate
	read   []string // stamps of the files of pair
	failed bool
	looked time.Time
}

// NewFiles reads nothing yet.
func NewFiles(o FilesOptions) *Files { return &Files{o: o} }

// Certificate returns the certificate of the files. Once it has returned one, it returns an error never again.
func (f *Files) Certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.o.Now()
	if since := now.Sub(f.looked); f.pair != nil && since >= 0 && since < lookEvery {
		return f.pair, nil
	}
	f.looked = now
	stamps, err := f.stamps()
	if err == nil && f.pair != nil && !f.failed && slices.Equal(stamps, f.read) {
		return f.pair, nil
	}
	var pair *tls.Certificate
	if err == nil {
		pair, err = LoadFiles(f.o.Certificate, f.o.Key, now)
	}
	if f.pair == nil {
		f.pair, f.read = pair, stamps
		return pair, err
	}
	if f.failed = err != nil; !f.failed {
		f.pair, f.read = pair, stamps
	}
	f.o.Report(err)
	return f.pair, nil
}

// stamps distinguish versions of the files.
func (f *Files) stamps() (out []string, err error) {
	for _, name := range []string{f.o.Certificate, f.o.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return nil, fileError(name, err)
		}
		out = append(out, fmt.Sprint(info.Size(), info.ModTime().UnixNano()))
	}
	return out, nil
}

// LoadFiles reads a certificate and its key, and judges whether a server can use them. Other accounts must not be able
// to change the files (else durable.ErrUntrusted), or to read the key (else durable.ErrExposed).
func LoadFiles(certificate, key string, now time.Time) (*tls.Certificate, error) {
	chain, err := durable.ReadTrusted(certificate, maxPEM)
	if err != nil {
		return nil, fileError(certificate, err)
	}
	secret, err := durable.ReadPrivate(key, maxPEM)
	if err != nil {
		return nil, fileError(key, err)
	}
	pair, err := tls.X509KeyPair(chain, secret)
	if err != nil {
		return nil, &CertificateError{certificate, fmt.Sprintf("put PEM files there that belong together: the certificate with its chain, and the key in %q without a passphrase", key), err}
	}
	if now.After(pair.Leaf.NotAfter) {
		return nil, &CertificateError{certificate, "renew it, or remove certificate_file and key_file: the Core then makes one itself", fmt.Errorf("it expired on %s", pair.Leaf.NotAfter.UTC().Format(time.DateOnly))}
	}
	return &pair, nil
}

func fileError(name string, err error) error {
	return &CertificateError{name, "name files in listen.console that exist and that the Core's account can read; no other account may change them, or read the key: chown them to that account, and chmod 600 the key", err}
}

// MadeOptions of NewMade.
type MadeOptions struct {
	// Make returns a certificate's chain and its key, as PEM.
	Make func() (chain, key []byte, err error)
	Now  func() time.Time
}

// Made is a certificate that the Core makes, and makes again before it expires.
type Made struct {
	o MadeOptions

	mu   sync.Mutex
	pair *tls.Certificate
}

// NewMade makes nothing yet.
func NewMade(o MadeOptions) *Made { return &Made{o: o} }

// Certificate returns the certificate in force.
func (m *Made) Certificate() (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pair != nil {
		left, life := m.pair.Leaf.NotAfter.Sub(m.o.Now()), m.pair.Leaf.NotAfter.Sub(m.pair.Leaf.NotBefore)
		if left > life/renewBefore {
			return m.pair, nil
		}
	}
	chain, key, err := m.o.Make()
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(chain, key); err == nil {
			m.pair = &pair
		}
	}
	if m.pair == nil {
		return nil, fmt.Errorf("make the console's certificate: %w", err)
	}
	return m.pair, nil // of a failure, the next handshake tries again
}
