package core

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"nightferry/internal/apitokens"
	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/idempotency"
	"nightferry/internal/incident"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

// Names in the data folder.
const (
	lockName   = "core.lock"
	ledgerName = "ledger.db"
	stateName  = "state"
	logsName   = "logs"
)

// InitMark is the name of a file in the data folder that is there while the folder is being made.
const InitMark = "init.unfinished"

// UnfinishedError means that a data folder was not made completely.
type UnfinishedError struct{ Data string }

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("the Core in %s is not complete: nightferry core init was interrupted, or failed", e.Data)
}

// Remedy names the command that completes it.
func (e *UnfinishedError) Remedy() string {
	return "run nightferry core init again, with the same folder and options: it completes the Core"
}

// InitOptions are the options for making a Core's data folder for an existing repository.
type InitOptions struct {
	Data     string // made if it is missing; must hold no vault
	Master   vault.Master
	StoreURL string
	Store    bucket.Options
	Release  ed25519.PrivateKey // signs releases, heads, halts and control; goes into the vault
	RepoKey  []byte             // of an encrypted repository; goes into the vault
	Root     *trust.Public      // the repository's root key; nil: pin the one in the store
	Now      func() time.Time
	Name     string // display name of the certificate authority
}

// Made is the result of Init.
type Made struct {
	Repo        trust.RepoID
	Root        trust.Public
	Release     trust.Public
	Fingerprint string // of the certificate authority
	Encrypted   bool
}

// Init makes the vault (with certificate authority, bus seeds and the given keys), the ledger and
// the folders. The repository must exist, and its trust document must let Release sign control
// messages. If Init fails halfway, it leaves a vault; remove that before the next try.
func Init(ctx context.Context, o InitOptions) (made *Made, err error) {
	store, err := bucket.Open(ctx, o.StoreURL, o.Store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bucket.Close(store)) }()
	r, err := repo.Open(ctx, store, repo.Options{Root: o.Root, Key: o.RepoKey, Now: o.Now})
	if err != nil {
		return nil, err
	}
	if err := mayControl(r, o.Release); err != nil {
		return nil, err
	}
	if err := repo.Probe(ctx, store); err != nil {
		return nil, err
	}
	dir, unlock, err := lockData(o.Data, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	l, err := ledger.Open(ctx, filepath.Join(o.Data, ledgerName), ledger.Options{Now: o.Now})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := vault.Create(ctx, dir, o.Master); err != nil {
		return nil, err
	}
	v, err := openVault(ctx, dir, o.Master, &lateAudit{ledger: l}, o.Now)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "nightferry"
	}
	ca, err := writeSecrets(ctx, v, &o, r.Trust().Root())
	if err != nil {
		return nil, err
	}
	return &Made{Repo: r.ID(), Root: r.Trust().Root(), Release: repo.PublicOf(o.Release), Fingerprint: ca.Fingerprint().String(), Encrypted: r.Keys() != nil}, nil
}

// lockData opens the data folder and locks it for this process.
func lockData(path string, create bool) (*durable.Root, func() error, error) {
	dir, err := durable.Open(path, durable.Options{Create: create, Trusted: true})
	if err != nil {
		return nil, nil, fmt.Errorf("open the Core's folder: %w", err)
	}
	if !create {
		if _, err := dir.Lstat(InitMark); err == nil {
			return nil, nil, errors.Join(&UnfinishedError{path}, dir.Close())
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, errors.Join(err, dir.Close())
		}
	}
	unlock, err := durable.Lock(dir, lockName)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the Core's folder %s (does a Core run there?): %w", path, err), dir.Close())
	}
	return dir, func() error { return errors.Join(unlock(), dir.Close()) }, nil
}

func openVault(ctx context.Context, dir *durable.Root, m vault.Master, a *lateAudit, now func() time.Time) (*vault.Vault, error) {
	return vault.Open(ctx, dir, m, vault.Options{Now: now, Audit: a.record})
}

// Offline holds a Core's vault and ledger while no daemon runs.
type Offline struct {
	Vault  *vault.Vault
	Ledger *ledger.Ledger
	unlock func() error
}

// OpenOffline opens the vault and the ledger. It fails with durable.ErrBusy while a daemon runs.
// Vault accesses are audited with ctx's actor.
func OpenOffline(ctx context.Context, data string, m vault.Master, now func() time.Time) (_ *Offline, err error) {
	dir, unlock, err := lockData(data, false)
	if err != nil {
		return nil, err
	}
	f := &Offline{unlock: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.Ledger, err = ledger.Open(ctx, filepath.Join(data, ledgerName), ledger.Options{Now: now}); err != nil {
		return nil, err
	}
	f.Vault, err = openVault(ctx, dir, m, &lateAudit{ledger: f.Ledger}, now)
	return f, err
}

// Close closes the vault and the ledger and releases the lock.
func (f *Offline) Close() error {
	var err error
	if f.Ledger != nil {
		err = f.Ledger.Close()
	}
	return errors.Join(err, f.unlock())
}

// Open opens everything that Init made but starts nothing. It checks the local data, then requests
// the repository from the store.
func Open(ctx context.Context, o Options, s Settings) (_ *Core, err error) {
	o.setDefaults()
	c := newCore(o)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if o.Cluster != nil {
		if c.link.foreign, err = o.Cluster.openForeign(); err != nil {
			return nil, err
		}
		c.storage.account = c.link.foreign.account
	}
	if c.dir, c.unlock, err = lockData(o.Data, false); err != nil {
		return nil, err
	}
	c.reserve.dir = c.dir
	full, err := c.reserve.freeReserve()
	if err != nil {
		return nil, err
	}
	if c.ledger, err = ledger.Open(ctx, filepath.Join(o.Data, ledgerName), ledger.Options{Now: c.clock.wallTime}); err != nil {
		return nil, err
	}
	c.desired = desired.New(c.ledger)
	c.refusals.ledger = &c.ledger.Sites
	c.incidents = incident.New(incident.Options{Records: &c.ledger.Incidents, Now: c.clock.wallTime, OnChange: c.notices.emitChanged})
	c.notices.incidents, c.notices.audits, c.clock.incidents = c.incidents, c.ledger, c.incidents
	c.vaultAudit.ledger, c.vaultAudit.report = c.ledger, c.notices.LedgerFailed
	if c.vault, err = openVault(ctx, c.dir, o.Master, &c.vaultAudit, o.Now); err != nil {
		return nil, err
	}
	c.storage.vault = c.vault
	if c.logs, err = record.Open(o.Logs); err != nil {
		return nil, err
	}
	if err = durable.MkdirPrivate(filepath.Join(o.Data, stateName)); err != nil {
		return nil, err
	}
	if c.storage.state, err = durable.Open(filepath.Join(o.Data, stateName), durable.Options{Trusted: true}); err != nil {
		return nil, err
	}
	c.restoreTasks()
	if c.clock.motion, err = startRehearsal(c.dir, o.Data, o.Rehearse, o.Now(), func() (bool, error) {
		list, err := c.ledger.Sites.Identities(ctx, false)
		return len(list) > 0, err
	}); err != nil {
		return nil, err
	}
	if err = c.storage.openStorage(ctx); err != nil {
		return nil, err
	}
	c.openHalts(ctx)
	c.composeParts()
	if c.Tokens, err = apitokens.Open(ctx, apitokens.Options{Store: &c.ledger.APITokens, Now: o.Now, Audit: c.notices.Audit}); err != nil {
		return nil, err
	}
	c.Repeats = idempotency.New(idempotency.Options{Store: &c.ledger.KeyedRequests, Now: o.Now, Secret: func() []byte { return c.storage.keys.Load().nonce }})
	if c.Jobs, err = jobs.Open(ctx, jobs.Options{Store: &c.ledger.Jobs, Now: o.Now}); err != nil {
		return nil, err
	}
	if c.SignIn, err = openSignIn(ctx, c); err != nil {
		return nil, err
	}
	if full {
		c.notices.LedgerFailed(ledger.ErrFull)
	}
	if err = c.sightings.loadSightings(ctx); err != nil {
		return nil, err
	}
	if err = c.applySettings(ctx, s); err != nil {
		return nil, err
	}
	c.sweepIncidents()
	if err := c.reserve.keepReserve(); err != nil {
		c.notices.ReportFailure("state", fmt.Errorf("keep room for the next start: %w", err))
	}
	return c, nil
}

// Close releases what Open opened. Run must have returned.
func (c *Core) Close() error {
	var errs []error
	if b := c.storage.store.Load(); b != nil {
		errs = append(errs, bucket.Close(b.Store))
	}
	if c.Halts.service != nil {
		c.Halts.service.Close()
		errs = append(errs, c.Halts.record.Close())
	}
	if c.storage.state != nil {
		errs = append(errs, c.storage.state.Close())
	}
	if c.logs != nil {
		errs = append(errs, c.logs.Close())
	}
	if c.ledger != nil {
		errs = append(errs, c.ledger.Close())
	}
	if c.unlock != nil {
		errs = append(errs, c.unlock())
	}
	return errors.Join(errs...)
}
