package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

// backend is what the local socket offers: the Core, and the process around it.
func (d *daemon) backend() api.Backend {
	c := d.core
	return api.Backend{Fleet: c.Query, Records: c.Query, Forecast: c.Query, Incidents: c, Alerts: &c.Notifier, Halts: &c.Halts, Orders: &c.Orders, Publisher: &c.Publisher, Members: c.Enrolment,
		Secrets: coreVault{c}, Process: process{c, d}}
}

// process is the daemon as its clients see it.
type process struct {
	*core.Core
	daemon *daemon
}

// Reload implements api.Process.
func (p process) Reload(ctx context.Context) (api.Reloaded, error) { return p.daemon.reload(ctx) }

// Held implements api.Process.
func (p process) Held(ctx context.Context) (*api.Held, error) {
	all, err := p.Upkeep.Held(ctx)
	if err != nil {
		return nil, err
	}
	h := &api.Held{Repo: p.Repo().String(), Releases: map[string][]trust.ReleaseNumber{}, Oldest: map[string][]string{}}
	for channel, numbers := range all {
		h.Releases[channel] = slices.Sorted(maps.Keys(numbers))
		h.Oldest[channel] = numbers[h.Releases[channel][0]]
	}
	return h, nil
}

// coreVault is the vault of a running Core, which uses what changes.
type coreVault struct{ core *core.Core }

// ListSecrets implements api.Secrets.
func (v coreVault) ListSecrets(ctx context.Context) ([]vault.Info, error) {
	return v.core.Vault().List(ctx)
}

// ChangeSecret implements api.Secrets.
func (v coreVault) ChangeSecret(ctx context.Context, rotate bool, r api.SecretRequest) (a api.SecretChange, err error) {
	if r.Name == core.SecretRelease && r.Value != nil {
		if err := v.core.MayRelease(ctx, r.Value); err != nil {
			return a, errors.Join(err, &refusedError{r.Name + " stays as it is", "give the key file that nightferry trust rotate has made"})
		}
	}
	if a, err = applySecret(ctx, v.core.Vault(), rotate, r); err != nil {
		return a, err
	}
	if err := v.core.Refresh(ctx); err != nil {
		return a, errors.Join(err, &refusedError{r.Name + " is stored, but the Core still uses the old value", "set a value that works"})
	}
	return a, nil
}
