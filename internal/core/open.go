package core

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
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
	v, err := openVault(ctx, dir, o.Master, l, o.Now)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "nightferry"
	}
	ca, err := writeSecrets(ctx, v, &o, r.Root())
	if err != nil {
		return nil, err
	}
	return &Made{Repo: r.ID(), Root: r.Root(), Release: repo.PublicOf(o.Release), Fingerprint: ca.Fingerprint().String(), Encrypted: r.Keys() != nil}, nil
}

// lockData opens the data folder and locks it for this process.
func lockData(path string, create bool) (*durable.Root, func() error, error) {
	dir, err := durable.Open(path, durable.Options{Create: create, Trusted: true})
	if err != nil {
		return nil, nil, fmt.Errorf("open the Core's folder: %w", err)
	}
	unlock, err := durable.Lock(dir, lockName)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the Core's folder %s (does a Core run there?): %w", path, err), dir.Close())
	}
	return dir, func() error { return errors.Join(unlock(), dir.Close()) }, nil
}

func openVault(ctx context.Context, dir *durable.Root, m vault.Master, l *ledger.Ledger, now func() time.Time) (*vault.Vault, error) {
	return vault.Open(ctx, dir, m, vault.Options{Now: now, Audit: func(ctx context.Context, a vault.Access) error {
		what := a.Purpose
		if a.Version > 0 {
			what = fmt.Sprintf("version %d %s", a.Version, what)
		}
		return l.Audit(ctx, ledger.Deed{Who: actor(ctx), What: "vault " + string(a.Op), Object: a.Name, Detail: what})
	}})
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
	f.Vault, err = openVault(ctx, dir, m, f.Ledger, now)
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
	o.fill()
	c := newCore(o)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if o.Cluster != nil {
		if c.foreign, err = o.Cluster.open(); err != nil {
			return nil, err
		}
	}
	if c.dir, c.unlock, err = lockData(o.Data, false); err != nil {
		return nil, err
	}
	if err = c.freeReserve(); err != nil {
		return nil, err
	}
	if c.ledger, err = ledger.Open(ctx, filepath.Join(o.Data, ledgerName), ledger.Options{Now: c.wall}); err != nil {
		return nil, err
	}
	c.desired = desired.New(c.ledger)
	c.alarms = c.newAlarms()
	if c.vault, err = openVault(ctx, c.dir, o.Master, c.ledger, o.Now); err != nil {
		return nil, err
	}
	if c.logs, err = record.Open(o.Logs); err != nil {
		return nil, err
	}
	if err = durable.MkdirPrivate(filepath.Join(o.Data, stateName)); err != nil {
		return nil, err
	}
	if c.state, err = durable.Open(filepath.Join(o.Data, stateName), durable.Options{Trusted: true}); err != nil {
		return nil, err
	}
	if err = c.rehearse(ctx); err != nil {
		return nil, err
	}
	if err = c.openStore(ctx); err != nil {
		return nil, err
	}
	c.openHalting(ctx)
	if err = c.loadSites(ctx); err != nil {
		return nil, err
	}
	if err = c.apply(ctx, s); err != nil {
		return nil, err
	}
	c.sweepIncidents()
	if err := c.keepReserve(); err != nil {
		c.trouble("state", fmt.Errorf("keep room for the next start: %w", err))
	}
	return c, nil
}

// openStore reads the keys and opens the store and its repository with them.
func (c *Core) openStore(ctx context.Context) error {
	k, err := readKeys(ctx, c.vault, &c.o)
	if err != nil {
		return err
	}
	store, err := bucket.Open(ctx, c.o.StoreURL, k.store)
	if err != nil {
		return err
	}
	lender, ok := store.(bucket.Presigner)
	if !ok {
		return errors.Join(fmt.Errorf("store %q: sites pull through URLs that only an S3 store can lend", c.o.StoreURL), bucket.Close(store))
	}
	raw, _, err := lender.PresignGet(ctx, "format", c.now(), time.Minute)
	if err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("the store lends URLs that do not parse") // the cause could contain a presigned URL
	}
	if c.o.wrapStore != nil {
		store = c.o.wrapStore(store)
	}
	b := &backend{Store: store, Presigner: lender, origin: u.Scheme + "://" + u.Host}
	r, err := c.firstRepo(ctx, b, k)
	if err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	if err := mayControl(r, k.release); err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	if c.foreign != nil {
		k.seeds.Account = c.foreign.account
	}
	c.keys.Store(k)
	c.store.Store(b)
	c.repo.Store(r)
	return nil
}

// backend is the currently open store.
type backend struct {
	bucket.Store
	bucket.Presigner
	origin string // scheme://host[:port] of its presigned URLs
}

// openRepo opens the repository again, which reads newer trust documents. If they were read but
// could not be made durable, it returns both the repository and an error. The caller may then read
// halt orders but must not adopt releases.
func (c *Core) openRepo(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	c.repoMu.Lock()
	defer c.repoMu.Unlock()
	var m *repo.Memory
	if old := c.repo.Load(); old != nil {
		now := old.Memory()
		m = &now
	} else {
		var err error
		if m, err = repo.LoadMemory(c.state); err != nil {
			return nil, err
		}
	}
	r, err := repo.Open(ctx, b.Store, c.repoOptions(m, k))
	if err != nil {
		return nil, err
	}
	return r, repo.SaveMemory(c.state, r.Memory())
}

// openTime bounds the first request for a known repository.
const openTime = 3 * time.Second

// firstRepo opens the repository. If the store does not answer or refuses, it opens the last known
// state, because the kill switch must work meanwhile; each poll asks the store again. A Core that
// has never seen its repository, or whose store has none, cannot start.
func (c *Core) firstRepo(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	m, err := repo.LoadMemory(c.state)
	if err != nil {
		return nil, err
	}
	remembered, err := repo.OpenRemembered(b.Store, c.repoOptions(m, k))
	if errors.Is(err, repo.ErrNoRepository) {
		return c.openRepoPatiently(ctx, b, k)
	}
	if err != nil {
		return nil, err
	}
	octx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	r, err := c.openRepo(octx, b, k)
	switch {
	case err == nil:
		return r, nil
	case r != nil:
		c.trouble("state", err)
		return r, nil
	case ctx.Err() != nil || errors.Is(err, repo.ErrNoRepository) || errors.Is(err, bucket.ErrNoBucket):
		return nil, err
	case octx.Err() != nil || errors.As(err, new(*bucket.Error)):
		c.trouble("store", fmt.Errorf("%w: the Core starts with what it knew last", err))
		return remembered, nil
	}
	return nil, err
}

func (c *Core) repoOptions(m *repo.Memory, k *keys) repo.Options {
	return repo.Options{Memory: m, Root: &k.root, Key: k.repo, Now: c.o.Now, OnRetry: func(err error) { c.trouble("store", err) }}
}

// openTries is how often a starting Core asks the store, waiting one second longer each time. One
// damaged response must not stop the Core.
const openTries = 3

func (c *Core) openRepoPatiently(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	for try := 1; ; try++ {
		r, err := c.openRepo(ctx, b, k)
		refused := (*bucket.Error)(nil)
		if err == nil || try == openTries || !errors.As(err, &refused) || refused.Kind == bucket.KindNotExist {
			return r, err
		}
		c.trouble("store", err)
		wait := time.NewTimer(time.Duration(try) * time.Second)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// Close releases what Open opened. Run must have returned.
func (c *Core) Close() error {
	var errs []error
	if b := c.store.Load(); b != nil {
		errs = append(errs, bucket.Close(b.Store))
	}
	if c.halting != nil {
		c.halting.Close()
		errs = append(errs, c.halts.Close())
	}
	if c.state != nil {
		errs = append(errs, c.state.Close())
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
