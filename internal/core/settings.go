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
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/record"
	"nightferry/internal/wire"
)

func joinPath(dir, name string) string { return filepath.Join(dir, name) }

// Reload puts other settings in force, all or none.
func (c *Core) Reload(ctx context.Context, s Settings) error {
	if err := c.applySettings(ctx, s); err != nil {
		return fmt.Errorf("reload: the settings in force stay: %w", err)
	}
	c.sweepIncidents()
	if err := c.link.newCert(); err != nil {
		return err
	}
	_ = c.watching.readStore(ctx) // told as an incident
	return c.ledger.Audit(ctx, ledger.Deed{Who: actorOf(ctx), What: "reload", Object: "configuration"})
}

// Refresh reads keys and secrets from the vault again after one was set or
// rotated: domains' signing keys, S3 credentials, the release key.
func (c *Core) Refresh(ctx context.Context) error {
	old := c.storage.store.Load()
	if err := c.storage.openStorage(ctx); err != nil {
		return fmt.Errorf("the configuration in force stays: %w", err)
	}
	_ = old // requests under way still use it; its idle connections end by themselves
	if err := c.access.Refresh(ctx); err != nil {
		return err
	}
	c.Notifier.readSecrets(ctx)
	c.SignIn.Forget()
	c.Enrolment.RekeyAll(ctx)
	c.states.sendAll(ctx)
	return nil
}

// applySettings checks settings, prepares what they need and puts them in force.
func (c *Core) applySettings(ctx context.Context, s Settings) error {
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
			c.incidents.Raise(kinds.LogAccess, d, wire.Address{}, fmt.Sprintf("the log folder of domain %s: %s: put it right, or remove it", d, how))
		} else {
			c.incidents.Resolve(kinds.LogAccess, d, wire.Address{})
		}
	}
	for _, ch := range s.Fleet.Channels {
		rel, err := c.ledger.Releases(ctx, ch.Name, 1)
		if err != nil {
			return err
		}
		for _, r := range rel {
			c.newest.Put(r)
		}
	}
	if err := c.access.updateAccess(ctx, s.Fleet); err != nil {
		return err
	}
	c.settings.Store(&s)
	c.Notifier.readSecrets(ctx)
	return c.Orders.updateDesired(ctx, desired.Change{})
}
