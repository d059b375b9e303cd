package core

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/vault"
)

// access decides who may use the bus. It owns the keys of the domains and the
// authority made of them.
type access struct {
	vault   *vault.Vault
	ledger  accessRecords
	storage *storage
	link    *busLink
	clock   *clocks

	authority atomic.Pointer[bus.Authority]
	rotating  atomic.Pointer[map[string]bool] // domains with an older key that still counts
	renewMu   sync.RWMutex                    // held while a credential is signed and sent
	mu        sync.Mutex                      // one change of the authority at a time
	domains   map[string][][]byte             // the domains' signing keys in force
	fleet     *fleet.Fleet                    // the configured sites
}

// accessRecords reads the sites' identities and the users of tokens. *ledger.Sites is one.
type accessRecords interface {
	Identities(ctx context.Context, all bool) ([]ledger.Identity, error)
	EndedTokenUsers(ctx context.Context) ([]string, error)
	Cut(ctx context.Context, public string, at time.Time) error
}

// updateAccess applies the vault's domain keys and the ledger's revocations to the bus, see enforce.
func (ac *access) updateAccess(ctx context.Context, f *fleet.Fleet) error {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	domains, err := ac.readDomains(ctx, f)
	if err != nil {
		return err
	}
	old := ac.fleet
	ac.fleet = f
	if err := ac.enforceKeys(ctx, domains); err != nil {
		ac.fleet = old
		return err
	}
	ac.recordCut(ctx)
	return nil
}

// recordCut records since when the configuration has no site for an identity: until then, its agent could get URLs. A cut
// that cannot be recorded now counts from the next change. The caller holds ac.mu.
func (ac *access) recordCut(ctx context.Context) {
	ids, err := ac.ledger.Identities(ctx, false)
	for _, id := range ids {
		at := time.Time{}
		if s := ac.fleet.Site(id.Site); s == nil || s.Domain != id.Domain {
			at = ac.clock.now()
		}
		if at.IsZero() != id.Cut.IsZero() {
			err = errors.Join(err, ac.ledger.Cut(ctx, id.Public, at))
		}
	}
	if err != nil {
		ac.link.notices.LedgerFailed(err)
	}
}

// Refresh applies the vault's domain keys and the ledger's revocations for the fleet in force. A reload may be changing it.
func (ac *access) Refresh(ctx context.Context) error {
	ac.mu.Lock()
	f := ac.fleet
	ac.mu.Unlock()
	return ac.updateAccess(ctx, f)
}

// Enforce applies the ledger's revocations and keeps the domain keys.
func (ac *access) Enforce(ctx context.Context) error {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return ac.enforceKeys(ctx, ac.domains)
}

// Sign calls fn with the authority in force. The authority changes only after fn has returned.
func (ac *access) Sign(fn func(*bus.Authority) error) error {
	ac.renewMu.RLock()
	defer ac.renewMu.RUnlock()
	return fn(ac.authority.Load())
}

// Rotating reports whether a domain has an older signing key beside its newest.
func (ac *access) Rotating(domain string) bool {
	r := ac.rotating.Load()
	return r != nil && (*r)[domain]
}

// EndDomain removes a domain's signing keys from the vault and rejects all users that they have signed. It returns the
// public keys.
func (ac *access) EndDomain(ctx context.Context, domain string) (keys []string, err error) {
	for _, s := range ac.authority.Load().Scopes() {
		if s.Role == bus.DomainRole(domain) {
			keys = append(keys, s.Key)
		}
	}
	if err := ac.vault.Delete(ctx, domainSecret(domain)); err != nil {
		return nil, err
	}
	return keys, ac.cutDomain(ctx, domain)
}

// cutDomain rejects all users signed by a domain's keys, see enforceKeys.
func (ac *access) cutDomain(ctx context.Context, domain string) error {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	left := maps.Clone(ac.domains)
	delete(left, domain)
	return ac.enforceKeys(ctx, left)
}

// enforceKeys puts an authority with the given domain keys into force. The embedded server disconnects
// revoked users before enforce returns. With a cluster of your own, enforce disconnects no client and only
// triggers a check of the cluster's scopes. The caller holds changeMu.
func (ac *access) enforceKeys(ctx context.Context, domains map[string][][]byte) error {
	a, err := ac.openAuthority(ctx, domains)
	if err != nil {
		return err
	}
	if ac.link.server != nil {
		if err := ac.link.server.Update(a); err != nil {
			return err
		}
	}
	ac.domains = domains
	ac.renewMu.Lock() // wait until signatures under the old authority are sent
	ac.authority.Store(a)
	ac.renewMu.Unlock()
	ac.link.clusterUp()
	return nil
}

// noteKeyed notes which domains have an older signing key beside their newest.
func (ac *access) noteKeyed(f *fleet.Fleet, versions map[string][]vault.Version) {
	rotating := map[string]bool{}
	for _, d := range f.Domains {
		rotating[d.Name] = len(versions[domainSecret(d.Name)]) > 1
	}
	ac.rotating.Store(&rotating)
}

// readDomains reads the signing keys of the fleet's domains from the vault and makes missing ones.
// changeMu is held.
func (ac *access) readDomains(ctx context.Context, f *fleet.Fleet) (map[string][][]byte, error) {
	have, err := ac.vault.List(ctx)
	if err != nil {
		return nil, err
	}
	versions := map[string][]vault.Version{}
	for _, i := range have {
		versions[i.Name] = i.Versions
	}
	domains := map[string][][]byte{}
	for _, d := range f.Domains {
		name := domainSecret(d.Name)
		if len(versions[name]) == 0 {
			if err := ac.newDomainKey(ctx, d.Name); err != nil {
				return nil, err
			}
			versions[name] = []vault.Version{{Version: 1}}
		}
		// The newest signs; sites whose JWT an older one signed stay until that is pruned.
		for i := len(versions[name]) - 1; i >= 0; i-- {
			s, err := ac.vault.GetVersion(ctx, name, versions[name][i].Version, "serve the bus")
			if err != nil {
				return nil, err
			}
			domains[d.Name] = append(domains[d.Name], bytes.TrimSpace(s.Reveal()))
		}
	}
	ac.noteKeyed(f, versions)
	return domains, nil
}

// openAuthority opens the bus's authority over domains. It revokes users of ended tokens and identities, and of sites that
// are not configured. Those of the latter are accepted again once the site is configured again.
func (ac *access) openAuthority(ctx context.Context, domains map[string][][]byte) (*bus.Authority, error) {
	o := bus.AuthorityOptions{Seeds: ac.storage.keys.Load().seeds, Domains: domains}
	var err error
	if o.Revoked, err = ac.ledger.EndedTokenUsers(ctx); err != nil {
		return nil, err
	}
	ids, err := ac.ledger.Identities(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if s := ac.fleet.Site(id.Site); !id.Ended.IsZero() || s == nil || s.Domain != id.Domain {
			o.Revoked = append(o.Revoked, id.Public)
		}
	}
	return bus.OpenAuthority(o)
}

func (ac *access) newDomainKey(ctx context.Context, domain string) error {
	seed, err := bus.NewDomainSeed()
	if err != nil {
		return err
	}
	_, err = ac.vault.Set(ctx, domainSecret(domain), seed)
	return err
}
