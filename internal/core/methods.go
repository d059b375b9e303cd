package core

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

var errSoon = errors.New("not there yet")

// InitOptions make a Core's data folder around a repository that exists.
type InitOptions struct {
	Data     string // made if it is missing; must hold no vault
	Master   vault.Master
	StoreURL string
	Store    bucket.Options
	Env      func(string) string
	Release  ed25519.PrivateKey // signs releases, heads, halts and control; goes into the vault
	RepoKey  []byte             // of an encrypted repository; goes into the vault
	Root     *trust.Public      // the repository's root key; nil: pin what is there
	Now      func() time.Time
	Name     string // of the certificate authority, for people
}

// Made is what Init made.
type Made struct {
	Repo        trust.RepoID
	Root        trust.Public
	Release     trust.Public
	Fingerprint string // of the certificate authority
	Encrypted   bool
}

// Init makes the vault (with certificate authority, bus seeds and the keys
// given), the ledger and the folders. The repository must exist, and its trust
// document must let Release sign control messages.
func Init(ctx context.Context, o InitOptions) (*Made, error) { return nil, errSoon }

// Core is a running Core. Its methods are safe for concurrent use.
type Core struct{}

// Open opens all that Init made and starts nothing yet: what is offline is
// checked, and the store is asked for the repository.
func Open(ctx context.Context, o Options, s Settings) (*Core, error) { return nil, errSoon }

// Run serves until ctx ends, and returns nil then. It is called once.
func (c *Core) Run(ctx context.Context) error { return errSoon }

// Close releases what Open opened. Run must have returned.
func (c *Core) Close() error { return errSoon }

// Ready is closed once Run listens.
func (c *Core) Ready() <-chan struct{} { return nil }

// Addr and WebSocketAddr are where it listens; empty before Ready.
func (c *Core) Addr() string          { return "" }
func (c *Core) WebSocketAddr() string { return "" }

// Reload puts other settings in force, all or none.
func (c *Core) Reload(ctx context.Context, s Settings) error { return errSoon }

// Vault is the open vault; what is asked of it is audited with ctx's actor.
func (c *Core) Vault() *vault.Vault { return nil }

// Refresh reads keys and secrets from the vault again after one was set or
// rotated: domains' signing keys, S3 credentials.
func (c *Core) Refresh(ctx context.Context) error { return errSoon }

// Token makes a one-time token for a configured site, good for life (0: 24 h).
func (c *Core) Token(ctx context.Context, site string, life time.Duration) (*IssuedToken, error) {
	return nil, errSoon
}

// Wave makes tokens for the first n sites of a scope that have not joined.
func (c *Core) Wave(ctx context.Context, scope fleet.Scope, n int, life time.Duration) ([]IssuedToken, error) {
	return nil, errSoon
}

// RevokeSite ends a site's identity and cuts its connection before it returns.
func (c *Core) RevokeSite(ctx context.Context, site, why string) error { return errSoon }

// RevokeDomain ends the identities of all sites of a domain, cuts them and
// replaces its signing key; it returns the sites.
func (c *Core) RevokeDomain(ctx context.Context, domain, why string) ([]string, error) {
	return nil, errSoon
}

// Publish publishes a channel's source and states the release to its sites.
// Two of the same channel do not run at once.
func (c *Core) Publish(ctx context.Context, channel string, o PublishOptions) (*Published, error) {
	return nil, errSoon
}

// Sync orders sites to start now.
func (c *Core) Sync(ctx context.Context, r SyncRequest) ([]Order, error) { return nil, errSoon }

// Status counts.
func (c *Core) Status(ctx context.Context) (*Status, error) { return nil, errSoon }

// Sites lists the sites of a scope.
func (c *Core) Sites(ctx context.Context, scope fleet.Scope) ([]SiteStatus, error) {
	return nil, errSoon
}

// Runs lists runs, the newest first.
func (c *Core) Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	return nil, errSoon
}

// RunShow calls begin with the run, then fn for each file, until one returns an
// error. id may be the beginning of one, if it is the only such. With all, it
// tells of every file of the release, the unchanged ones derived from the
// manifest, in path order.
func (c *Core) RunShow(ctx context.Context, id string, all bool, begin func(RunDetail) error, fn func(record.File) error) error {
	return errSoon
}

// Logs lists log files, by path below the logs' folder, which LogsDir tells.
func (c *Core) Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error {
	return errSoon
}

// LogsDir is the folder of the job logs.
func (c *Core) LogsDir() string { return "" }

// Where tells for each site that should have the channel what it holds of a
// path of it.
func (c *Core) Where(ctx context.Context, channel, path string) ([]Place, error) {
	return nil, errSoon
}

// Incidents lists incidents: the open ones, or all.
func (c *Core) Incidents(ctx context.Context, all bool) ([]ledger.Incident, error) {
	return nil, errSoon
}

// Deeds lists the audit.
func (c *Core) Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error) {
	return nil, errSoon
}

// Tokens lists the tokens that were issued, without secrets.
func (c *Core) Tokens(ctx context.Context) ([]ledger.Token, error) { return nil, errSoon }

// Follow calls fn for each event from now on, until ctx ends or fn returns an
// error, which it returns. Who is too slow misses events.
func (c *Core) Follow(ctx context.Context, fn func(Event) error) error { return errSoon }

// Metrics returns the counters.
func (c *Core) Metrics() Metrics { return Metrics{} }

// Health says whether the Core works.
func (c *Core) Health(ctx context.Context) Health { return Health{} }
