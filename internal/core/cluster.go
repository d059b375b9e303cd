package core

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/wire"
)

// Cluster is a NATS cluster of one's own, in place of the embedded server. Its
// account belongs to somebody else: the Core has the seeds of its own signing
// keys only, whose public halves the account must be given, and it can cut
// nobody. What it relies on is its own: it hears no site that it has revoked,
// and no site believes what the Core has not signed.
type Cluster struct {
	URLs      []string // that sites dial, and the Core those of the first one's scheme
	CredsFile string   // the Core's user: may publish nf.down.> and hear nf.up.>
	CAFile    string   // certificate of the authority of its servers; sites pin it
}

// foreign is what was read of it.
type foreign struct {
	account string
	pin     bus.Pin
	roots   *x509.CertPool
	urls    []string // for the Core
}

func (o *Cluster) open() (*foreign, error) {
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

// CheckCluster judges its files, and returns the account's public key. Nothing
// is asked over the network.
func CheckCluster(o *Cluster) (account string, err error) {
	f, err := o.open()
	if err != nil {
		return "", err
	}
	return f.account, nil
}

// pin is the authority that sites are to expect.
func (c *Core) pin() bus.Pin {
	if c.foreign != nil {
		return c.foreign.pin
	}
	return c.keys.Load().ca.Fingerprint()
}

// joinCluster connects to it. While it is away, the Core goes on trying.
func (c *Core) joinCluster(ctx context.Context) error {
	client, err := bus.Dial(ctx, bus.ClientOptions{
		URLs: c.foreign.urls, CredsFile: c.o.Cluster.CredsFile, Roots: c.foreign.roots, TLSFirst: true, Env: c.o.Env,
		Name: "core", Now: c.o.Now, Pending: 64 << 20, Background: true, MaxBackoff: 10 * time.Second,
		OnEvent: func(e bus.Event) {
			if ctx.Err() != nil {
				return // the Core's own end is no incident
			}
			switch e.Kind {
			case bus.Connected:
				c.alarms.over(ClusterBad, "away", wire.Address{})
				c.clusterUp()
			case bus.Lost, bus.Failed, bus.Unwelcome:
				c.alarms.raise(ClusterBad, "away", wire.Address{}, fmt.Sprintf("the NATS cluster: %s: %v; sites go on with what they have", e.Kind, e.Err))
			case bus.Denied:
				c.alarms.raise(ClusterBad, "core", wire.Address{}, fmt.Sprintf("the NATS cluster: %v: the Core's user must be allowed to publish nf.down.> and to subscribe %s", e.Err, wire.AllUp))
			}
			if e.Err != nil {
				c.trouble("cluster", fmt.Errorf("%s: %w", e.Kind, e.Err))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("use the NATS cluster: %w", err)
	}
	if err := client.Subscribe(wire.AllUp, func(subject string, data []byte) { c.receive(subject, data) }); err != nil {
		client.Close()
		return fmt.Errorf("use the NATS cluster: %w", err)
	}
	c.client = client
	return nil
}

// clusterUp makes checkCluster run soon; it must not wait.
func (c *Core) clusterUp() {
	select {
	case c.recheck <- struct{}{}:
	default:
	}
}

// watchCluster checks what the cluster does with the Core's users whenever that
// may have changed, and now and then; soon, while something is amiss: a server
// whose account was just changed judges wrongly for a moment, and whoever mends
// an account wants to see it mended.
func (c *Core) watchCluster(ctx context.Context) error {
	t := time.NewTimer(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.recheck:
			c.tellAll(ctx)
		case <-t.C:
		}
		next := checkEvery
		for _, s := range c.authority.Load().Scopes() {
			if !c.checkScope(ctx, s) {
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

// checkScope connects as a site would and says what is amiss, if anything.
func (c *Core) checkScope(ctx context.Context, s bus.Scope) (fine bool) {
	err := c.tryScope(ctx, s)
	if ctx.Err() != nil {
		return false
	}
	if err == nil {
		c.alarms.over(ClusterBad, s.Key, wire.Address{})
		return true
	}
	c.alarms.raise(ClusterBad, s.Key, wire.Address{}, fmt.Sprintf("the NATS cluster, signing key of %s: %v. Its account needs: nsc edit account --name NAME --sk %s; nsc edit signing-key --account NAME --sk %s --role %q --allow-pub '%s' --allow-sub '%s'; nsc push. Its servers need TLS with handshake_first, and to show the authority's certificate with their own",
		s.Role, err, s.Key, s.Key, s.Role, s.Pub, s.Sub))
	return false
}

// errScope says that a signing key gives its users more than it should, or, without any scope, nothing: a user of ours
// carries no limits of its own, which such a server reads as limits of zero.
var errScope = errors.New("the cluster lets its users hear what is not theirs, or nothing at all: the key has no scope, or a wrong one")

func (c *Core) tryScope(ctx context.Context, s bus.Scope) error {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	seed, public, err := bus.NewIdentity()
	if err != nil {
		return err
	}
	jwt, err := c.authority.Load().Probe(s.Key, checkName, public, time.Minute, c.o.Now())
	if err != nil {
		return err
	}
	verdict := make(chan error, 1)
	client, err := bus.Dial(ctx, bus.ClientOptions{
		URLs: c.urls(), Pins: []bus.Pin{c.foreign.pin}, JWT: func() (string, error) { return jwt, nil }, Seed: seed, Env: c.o.Env, Name: checkName, Now: c.o.Now,
		OnEvent: func(e bus.Event) {
			var err error
			switch e.Kind {
			case bus.Denied: // as it should be
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
	// A refusal comes before the answer to the flush, or in its place when it ends the connection, and is told a moment later.
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

// notCut tells what the Core cannot do on somebody else's cluster.
func (c *Core) notCut(ctx context.Context, a wire.Address, object, remedy string) error {
	if c.foreign == nil {
		return nil
	}
	c.alarms.raise(NotCut, object, a, fmt.Sprintf("%s: the Core hears it no more, but only the account's owner can end its connection to the cluster: %s; nsc push", object, remedy))
	return c.audit(ctx, "revoke", object, "the cluster's account has to be told: "+remedy)
}

func (c *Core) userNotCut(ctx context.Context, a wire.Address, public string) error {
	return c.notCut(ctx, a, "site "+a.Site, "nsc revocations add-user --account NAME --user-public-key "+public)
}
