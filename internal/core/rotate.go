package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"nightferry/internal/bucket"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
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
	r, err := c.storage.reopenRepository(ctx, c.storage.store.Load(), c.storage.keys.Load())
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
	return f.withRepo(ctx, o, func(r *repo.Repo, _ *keys) error { return mayControl(r, key) })
}

// CheckStore opens the repository in the store that o names, with the credentials and keys of the
// vault. It returns an error for each feature that the store lacks, see repo.Probe, and for a release key that was
// retired or revoked, with which no Core starts.
func (f *Offline) CheckStore(ctx context.Context, o Options) error {
	return f.withRepo(ctx, o, func(r *repo.Repo, k *keys) error {
		return errors.Join(mayControl(r, k.release), repo.Probe(ctx, r.Store()))
	})
}

func (f *Offline) withRepo(ctx context.Context, o Options, fn func(*repo.Repo, *keys) error) (err error) {
	o.setDefaults()
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
	return fn(r, k)
}
