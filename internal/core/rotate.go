package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"nightferry/internal/bucket"
	"nightferry/internal/fleet"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// SecretRelease is the key that signs releases, heads, halts and control.
const SecretRelease = secretRelease

// MayRelease says why a release key's file cannot take the place of the one in
// the vault: it is none, or the repository's newest trust document does not let
// it. A Core with such a key could not start again.
func (c *Core) MayRelease(ctx context.Context, file []byte) error {
	key, err := trust.ParseSecret(releaseUse, bytes.TrimSpace(file))
	if err != nil {
		return fmt.Errorf("the new release key: %w", err)
	}
	r, err := c.storage.reopen(ctx, c.storage.store.Load(), c.storage.keys.Load())
	if err != nil {
		return err
	}
	c.storage.repo.Store(r)
	return mayControl(r, key)
}

// MayRelease is that of a Core that does not run, such as one that cannot start
// because the key in its vault, from a backup, was retired meanwhile. o names
// the store.
func (f *Offline) MayRelease(ctx context.Context, o Options, file []byte) (err error) {
	key, err := trust.ParseSecret(releaseUse, bytes.TrimSpace(file))
	if err != nil {
		return fmt.Errorf("the new release key: %w", err)
	}
	return f.withRepo(ctx, o, func(r *repo.Repo) error { return mayControl(r, key) })
}

// CheckStore opens the repository in the store that o names, with the credentials and keys of the
// vault. It returns an error for each feature that the store lacks, see repo.Probe.
func (f *Offline) CheckStore(ctx context.Context, o Options) error {
	return f.withRepo(ctx, o, func(r *repo.Repo) error { return repo.Probe(ctx, r.Store()) })
}

func (f *Offline) withRepo(ctx context.Context, o Options, fn func(*repo.Repo) error) (err error) {
	o.fill()
	k, err := readKeys(ctx, f.Vault, &o)
	if err != nil {
		return err
	}
	store, err := bucket.Open(ctx, o.StoreURL, k.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close(store)) }()
	r, err := repo.Open(ctx, store, repo.Options{Root: &k.root, Key: k.repo, Now: o.Now})
	if err != nil {
		return err
	}
	return fn(r)
}

// keyed notes which domains have an older signing key beside their newest.
func (c *Core) keyed(f *fleet.Fleet, versions map[string][]vault.Version) {
	rotating := map[string]bool{}
	for _, d := range f.Domains {
		rotating[d.Name] = len(versions[domainSecret(d.Name)]) > 1
	}
	c.rotating.Store(&rotating)
}

// rekey gives a site a credential signed by its domain's newest key while older keys are still
// accepted. Older keys can then be removed without work at the site. The Core does not know which
// key signed the site's credential, so it answers each hello with a new one.
func (c *Core) rekey(ctx context.Context, a wire.Address, x *site) {
	if r := c.rotating.Load(); r != nil && (*r)[a.Domain] {
		c.renew(ctx, message{from: a}, x)
	}
}

// rekeyAll does it for all that are connected.
func (c *Core) rekeyAll(ctx context.Context) {
	at := map[wire.Address]*site{}
	c.fleet.each(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.identity != nil && c.fleet.heard(x) {
			at[a] = x
		}
	})
	for a, x := range at {
		c.rekey(ctx, a, x)
	}
}
