package core

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/kinds"
	"nightferry/internal/wire"
)

// Cluster is the operator's own NATS cluster, used in place of the embedded server. The Core does
// not own its account: it holds only the seeds of its own signing keys and cannot disconnect users.
// The operator must add the public halves of those keys to the account. Security does not depend on
// the cluster: the Core ignores sites that it has revoked, and sites accept only messages that the
// Core has signed.
type Cluster struct {
	URLs      []string // that sites dial; the Core dials those with the first one's scheme
	CredsFile string   // the Core's user: may publish nf.down.> and subscribe to nf.up.>
	CAFile    string   // certificate of the authority that issued its servers' certificates; sites pin it
}

// foreign is the data read from a Cluster's files.
type foreign struct {
	account string
	pin     bus.Pin
	roots   *x509.CertPool
	urls    []string // for the Core
}

func (o *Cluster) openForeign() (*foreign, error) {
	f := &foreign{}
	var err error
	if f.account, err = bus.AccountOf(o.CredsFile); err != nil {
		return nil, err
	}
	if f.pin, f.roots, err = bus.LoadAuthorityFile(o.CAFile); err != nil {
		return nil, err
	}
	scheme := ""
	for _, s := range o.URLs {
		u, err := url.Parse(s)
		if err != nil {
			return nil, errors.New("a URL of the cluster does not parse")
		}
		if scheme == "" {
			scheme = u.Scheme
		}
		if u.Scheme == scheme {
			f.urls = append(f.urls, s)
		}
	}
	return f, nil
}

// CheckCluster checks the cluster's files and returns the account's public key. It does not use the
// network.
func CheckCluster(o *Cluster) (account string, err error) {
	f, err := o.openForeign()
	if err != nil {
		return "", err
	}
	return f.account, nil
}

// joinCluster connects to the cluster. While the cluster is unreachable, the Core keeps trying.
func (l *busLink) joinCluster(ctx context.Context) error {
	client, err := bus.Dial(ctx, bus.ClientOptions{
		URLs: l.foreign.urls, CredsFile: l.o.Cluster.CredsFile, Roots: l.foreign.roots, TLSFirst: true, Env: l.o.Env,
		Name: "core", Now: l.o.Now, Pending: 64 << 20, Background: true, MaxBackoff: 10 * time.Second,
		OnEvent: func(e bus.Event) {
			if ctx.Err() != nil {
				return // the Core's own shutdown is not an incident
			}
			switch e.Kind {
			case bus.Connected:
				l.notices.incidents.Resolve(kinds.ClusterBad, "away", wire.Address{})
				l.clusterUp()
			case bus.Lost, bus.Failed, bus.Unwelcome:
				l.notices.incidents.Raise(kinds.ClusterBad, "away", wire.Address{}, fmt.Sprintf("the NATS cluster: %s: %v; sites keep their releases", e.Kind, e.Err))
			case bus.Denied:
				l.notices.incidents.Raise(kinds.ClusterBad, "core", wire.Address{}, fmt.Sprintf("the NATS cluster: %v: the Core's user must be allowed to publish nf.down.> and to subscribe %s", e.Err, wire.AllUp))
			}
			if e.Err != nil {
				l.notices.ReportFailure("cluster", fmt.Errorf("%s: %w", e.Kind, e.Err))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("use the NATS cluster: %w", err)
	}
	if err := client.Subscribe(wire.AllUp, func(subject string, data []byte) { l.receive(subject, data) }); err != nil {
		client.Close()
		return fmt.Errorf("use the NATS cluster: %w", err)
	}
	l.down.client = client
	return nil
}

// clusterUp makes watchCluster run its checks soon. It must not block.
func (l *busLink) clusterUp() {
	select {
	case l.recheck <- struct{}{}:
	default:
	}
}

// watchCluster checks the limits that the cluster puts on the Core's users: every checkEvery, and
// when the connection returns. After a failure it checks again after checkAgain, for two reasons. A
// server whose account was just changed decides wrongly for a moment, and an operator who repairs
// an account wants to see the result.
func (l *busLink) watchCluster(ctx context.Context) error {
	t := time.NewTimer(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.recheck:
			l.states.sendAll(ctx)
		case <-t.C:
		}
		next := checkEvery
		for _, s := range l.access.authority.Load().Scopes() {
			if !l.checkScope(ctx, s) {
				next = checkAgain
			}
		}
		t.Reset(next)
	}
}

const (
	checkName  = "core-check" // the site's name that the check's users have
	checkWait  = 10 * time.Second
	checkEvery = 5 * time.Minute
	checkAgain = 10 * time.Second
)

// checkScope connects as a site would, and opens or resolves the incident of the scope.
func (l *busLink) checkScope(ctx context.Context, s bus.Scope) (fine bool) {
	err := l.tryScope(ctx, s)
	if ctx.Err() != nil {
		return false
	}
	if err == nil {
		l.notices.incidents.Resolve(kinds.ClusterBad, s.Key, wire.Address{})
		return true
	}
	l.notices.incidents.Raise(kinds.ClusterBad, s.Key, wire.Address{}, fmt.Sprintf("the NATS cluster, signing key of %s: %v. Its account needs: nsc edit account --name NAME --sk %s; nsc edit signing-key --account NAME --sk %s --role %q --allow-pub '%s' --allow-sub '%s'; nsc push. Its servers need TLS with handshake_first, and to show the authority's certificate with their own",
		s.Role, err, s.Key, s.Key, s.Role, s.Pub, s.Sub))
	return false
}

// errScope means that a signing key gives its users more rights than it should, or none because it
// has no scope. Our user JWTs carry no limits of their own, and such a server reads that as limits
// of zero.
var errScope = errors.New("the cluster lets its users receive messages of others, or none at all: the key has no scope, or a wrong one")

func (l *busLink) tryScope(ctx context.Context, s bus.Scope) error {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	seed, public, err := bus.NewIdentity()
	if err != nil {
		return err
	}
	jwt, err := l.access.authority.Load().Probe(s.Key, checkName, public, time.Minute, l.o.Now())
	if err != nil {
		return err
	}
	verdict := make(chan error, 1)
	client, err := bus.Dial(ctx, bus.ClientOptions{
		URLs: l.URLs(), Pins: []bus.Pin{l.foreign.pin}, JWT: func() (string, error) { return jwt, nil }, Seed: seed, Env: l.o.Env, Name: checkName, Now: l.o.Now,
		OnEvent: func(e bus.Event) {
			var err error
			switch e.Kind {
			case bus.Denied: // as expected
			case bus.Limited:
				err = errScope
			default:
				return
			}
			select {
			case verdict <- err:
			default:
			}
		},
	})
	if errors.Is(err, bus.ErrLimited) {
		return errScope
	}
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Subscribe(wire.AllUp, func(string, []byte) {})
	if err == nil {
		err = client.Flush(ctx)
	}
	// A refusal arrives before the answer to the flush, or instead of it if it ends the
	// connection. The client reports it a moment later.
	select {
	case err := <-verdict:
		return err
	case <-time.After(time.Second):
		if err != nil {
			return err
		}
		return errScope
	}
}

// notCut raises an incident and writes an audit entry if the Core cannot disconnect a user because
// it does not own the cluster's account.
func (l *busLink) notCut(ctx context.Context, a wire.Address, object, remedy string) error {
	if l.foreign == nil {
		return nil
	}
	l.notices.incidents.Raise(kinds.NotCut, object, a, fmt.Sprintf("%s: the Core accepts no message from it, but only the account's owner can close its connection to the cluster: %s; nsc push", object, remedy))
	return l.notices.Audit(ctx, "revoke", object, "the cluster's account must be updated: "+remedy)
}

// NotCut is notCut for the user of an identity.
func (l *busLink) NotCut(ctx context.Context, a wire.Address, public string) error {
	return l.notCut(ctx, a, "site "+a.Site, "nsc revocations add-user --account NAME --user-public-key "+public)
}

// DomainNotCut is notCut for the users of a domain's signing key.
func (l *busLink) DomainNotCut(ctx context.Context, domain, key string) error {
	return l.notCut(ctx, wire.Address{}, "domain "+domain, "nsc edit account --name NAME --rm-sk "+key)
}
