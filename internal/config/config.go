// Package config reads the Core's configuration, one strict YAML file. Every
// key, default and rule is documented in docs/config.md and, for editors, in
// schema/nightferry.schema.json. The result has all defaults filled in. If
// the file is invalid, the error lists every mistake with its position.
package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"
	_ "time/tzdata" // Windows has no time zones by IANA name

	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/rights"
	"nightferry/internal/text"
)

// Version is the configuration version that this program reads.
const Version = 1

// Config is a valid configuration with its defaults filled in.
type Config struct {
	Store         string // s3:// URL, as accepted by bucket.Open
	Data          string // folder of ledger, vault, keys and caches; absolute
	LogFolder     string // folder of the job logs; absolute
	MasterKeyFile string // absolute

	// Public are the URLs that sites dial, tls://host:port or
	// wss://host:port, in the order of preference, each with its port.
	Public []string
	Listen Listen
	Bus    *Bus // nil: the Core's own embedded server

	Retention Retention
	Alerts    Alerts  // zero: no alerts are sent
	SignIn    *SignIn // nil: nobody signs in through an identity provider
	Prices    Prices
	Fleet     *fleet.Fleet // valid
}

// Listen holds host:port pairs; an empty one is off. Port 0 is any free one.
type Listen struct {
	Control   string // NATS over TLS
	WebSocket string // the same as WebSocket
	Metrics   string // plain HTTP: /metrics, /healthz, /readyz
	Console   Console
}

// Console is the HTTPS address of the console and of the HTTP interface.
type Console struct {
	Address         string // host:port; empty: off
	URL             string // https://host[:port] that people use
	CertificateFile string // absolute; empty: the Core's authority makes the certificate
	KeyFile         string // absolute
}

// SignIn names an identity provider, and the roles of its people. The client's secret is in the vault.
type SignIn struct {
	Issuer   string // https URL
	ClientID string
	CAFile   string // absolute; empty: the system's authorities
	Claim    string // of the ID token
	Roles    []Grant
}

// Grant gives the people who have a value of the claim a role, over all sites, a domain or a region.
type Grant struct {
	Value  string
	Role   rights.Role
	Domain string
	Region string
}

// Hosts returns the host names and addresses by which clients may ask for the console: that of its URL, those of the
// public URLs, and this machine's own names.
func (c *Config) Hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	urls := []string{c.Listen.Console.URL}
	if c.Bus == nil { // else they are the cluster's
		urls = append(urls, c.Public...)
	}
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Hostname() != "" && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// Bus is an external NATS cluster.
type Bus struct {
	URLs            []string // tls://host:port or wss://host:port
	CredentialsFile string   // absolute
	CAFile          string   // absolute: CA certificate of its servers
}

// Retention sets how long records are kept.
type Retention struct {
	Logs time.Duration // job logs, and exceptions in the ledger; at least a day
	Runs time.Duration // run summaries; at least as long
}

// Load reads the file at path. Only trusted accounts may be able to change
// it, otherwise Load fails with durable.ErrUntrusted. If the file could be
// read, the error is an Errors.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.ToSlash(path), data)
}

func readFile(path string) ([]byte, error) {
	b, err := text.ReadFile(durable.ReadTrusted, path, 4*maxFile)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return b, nil
}

// Parse reads a configuration. Errors use name for the file. Any error is an
// Errors that lists every mistake.
func Parse(name string, data []byte) (*Config, error) {
	d := newDecoder(name)
	var f file
	d.decodeFile(data, &f)
	if !d.checkVersion(&f) {
		return nil, d.errs.sortUnique()
	}
	b := builder{decoder: d, f: &f, refused: map[string]bool{}}
	for _, e := range d.errs {
		b.refused[e.Key] = true
	}
	c := b.buildConfig()
	if len(d.errs) > 0 {
		return nil, d.errs.sortUnique()
	}
	return c, nil
}

// checkVersion reports whether the rest of the file can be checked at all.
func (d *decoder) checkVersion(f *file) bool {
	if len(d.at) == 0 { // not YAML at all
		return false
	}
	p, ok := d.at["version"]
	switch {
	case !ok:
		d.addError(position{1, 1}, "version", "it is missing: write version: %d at the top", Version)
	case f.Version > Version:
		d.errs = nil // keys of a newer version are no errors
		d.addError(p, "version", "%d: this nightferry reads version %d: upgrade it, or use the configuration that came with it", f.Version, Version)
		return false
	case f.Version < Version:
		d.addError(p, "version", "%d: want %d", f.Version, Version)
	}
	return true
}
