package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"nightferry/internal/api"
	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
	"nightferry/internal/tasks"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

// backend is what the local socket offers: the Core, and the process around it.
func (d *daemon) backend() api.Backend {
	c := d.core
	return api.Backend{Fleet: c.Query, Records: c.Query, LogFiles: c.Query, Forecast: c.Query, Incidents: c, Alerts: &c.Notifier, Halts: &c.Halts, Orders: &c.Orders, Publisher: &c.Publisher, Members: c.Enrolment,
		Secrets: coreVault{c}, Process: process{c, d}, Events: d.events, Tokens: apiTokens{c.Tokens}, Console: consoleDoor{d}, Jobs: c.Jobs, Rights: &c.Rights, Now: d.e.now, Explain: told}
}

// process is the daemon as its clients see it.
type process struct {
	*core.Core
	daemon *daemon
}

// Health implements api.Process.
func (p process) Health(ctx context.Context) (core.Health, error) { return p.Core.Health(ctx), nil }

// Tasks implements api.Process.
func (p process) Tasks(context.Context) ([]tasks.Status, error) { return p.Core.Tasks(), nil }

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

// apiTokens are the API tokens of a running Core.
type apiTokens struct{ *apitokens.Service }

// List implements api.Tokens.
func (a apiTokens) List(context.Context) ([]ledger.APIToken, error) { return a.Service.List(), nil }

// Issue implements api.Tokens.
func (a apiTokens) Issue(ctx context.Context, r apitokens.Request) (string, ledger.APIToken, error) {
	r.By = rights.Of(ctx).Name
	return a.Service.Issue(ctx, r)
}

// Revoke implements api.Tokens.
func (a apiTokens) Revoke(ctx context.Context, id string) (ledger.APIToken, error) {
	return a.Service.Revoke(ctx, id, rights.Of(ctx).Name)
}
