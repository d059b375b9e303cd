package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/record"
	"nightferry/internal/wire"
)

func joinPath(dir, name string) string { return filepath.Join(dir, name) }

// Reload puts other settings in force, all or none.
func (c *Core) Reload(ctx context.Context, s Settings) error {
	if err := c.apply(ctx, s); err != nil {
		return fmt.Errorf("reload: the settings in force stay: %w", err)
	}
	c.sweepIncidents()
	if err := c.newCert(); err != nil {
		return err
	}
	_ = c.look(ctx) // told as an incident
	return c.ledger.Audit(ctx, ledger.Deed{Who: actor(ctx), What: "reload", Object: "configuration"})
}

// Refresh reads keys and secrets from the vault again after one was set or
// rotated: domains' signing keys, S3 credentials, the release key.
func (c *Core) Refresh(ctx context.Context) error {
	old := c.storage.store.Load()
	if err := c.storage.open(ctx); err != nil {
		return fmt.Errorf("what was in force stays: %w", err)
	}
	_ = old // requests under way still use it; its idle connections end by themselves
	if err := c.newAuthority(ctx, c.settings.Load().Fleet); err != nil {
		return err
	}
	c.readSecrets(ctx)
	c.rekeyAll(ctx)
	c.states.sendAll(ctx)
	return nil
}

// apply checks settings, prepares what they need and puts them in force.
func (c *Core) apply(ctx context.Context, s Settings) error {
	if s.Fleet == nil {
		s.Fleet = &fleet.Fleet{}
	}
	var errs []error
	for _, p := range s.Fleet.Validate() {
		errs = append(errs, p)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	n, err := nights.Parse(s.Fleet)
	if err != nil {
		return err
	}
	s.nights = n
	access := map[string]record.Access{"core": {}} // its own logs, of publishes
	for _, d := range s.Fleet.Domains {
		access[d.Name] = record.Access{Group: d.LogGroup}
	}
	changed, err := c.logs.Prepare(access)
	if err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(access)) {
		if how, ok := changed[d]; ok {
			c.alarms.Raise(LogAccess, d, wire.Address{}, fmt.Sprintf("the log folder of domain %s: %s: put it right, or remove it", d, how))
		} else {
			c.alarms.Over(LogAccess, d, wire.Address{})
		}
	}
	if err := c.newAuthority(ctx, s.Fleet); err != nil {
		return err
	}
	for _, ch := range s.Fleet.Channels {
		rel, err := c.ledger.Releases(ctx, ch.Name, 1)
		if err != nil {
			return err
		}
		for _, r := range rel {
			c.newest.put(r)
		}
	}
	c.settings.Store(&s)
	c.readSecrets(ctx)
	return c.desire(ctx, desired.Change{})
}

// newAuthority applies the vault's domain keys and the ledger's revocations to the bus, see enforce.
func (c *Core) newAuthority(ctx context.Context, f *fleet.Fleet) error {
	c.changeMu.Lock()
	defer c.changeMu.Unlock()
	domains, err := c.readDomains(ctx, f)
	if err != nil {
		return err
	}
	return c.enforce(ctx, domains)
}

// enforceRevocations applies the ledger's revocations and keeps the domain keys.
func (c *Core) enforceRevocations(ctx context.Context) error {
	c.changeMu.Lock()
	defer c.changeMu.Unlock()
	return c.enforce(ctx, c.domains)
}

// cutDomain rejects all users signed by a domain's keys, see enforce.
func (c *Core) cutDomain(ctx context.Context, domain string) error {
	c.changeMu.Lock()
	defer c.changeMu.Unlock()
	left := maps.Clone(c.domains)
	delete(left, domain)
	return c.enforce(ctx, left)
}

// enforce puts an authority with the given domain keys into force. The embedded server disconnects
// revoked users before enforce returns. With a cluster of your own, enforce disconnects no client and only
// triggers a check of the cluster's scopes. The caller holds changeMu.
func (c *Core) enforce(ctx context.Context, domains map[string][][]byte) error {
	a, err := c.openAuthority(ctx, domains)
	if err != nil {
		return err
	}
	if c.server != nil {
		if err := c.server.Update(a); err != nil {
			return err
		}
	}
	c.domains = domains
	c.renewMu.Lock() // wait until signatures under the old authority are sent
	c.authority.Store(a)
	c.renewMu.Unlock()
	c.clusterUp()
	return nil
}
