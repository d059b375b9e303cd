package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

// newest is each channel's newest release, as the ledger has it.
type newest struct {
	mu  sync.RWMutex
	all map[string]ledger.Release
}

func (n *newest) of(channel string) (ledger.Release, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r, ok := n.all[channel]
	return r, ok
}

func (n *newest) list() []ledger.Release {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]ledger.Release, 0, len(n.all))
	for _, r := range n.all {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ledger.Release) int { return cmp.Compare(a.Channel, b.Channel) })
	return out
}

// put notes a release and reports whether it is news.
func (n *newest) put(r ledger.Release) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]ledger.Release{}
	}
	if old, ok := n.all[r.Channel]; ok && old.Number >= r.Number {
		return false
	}
	n.all[r.Channel] = r
	return true
}

// look reads what others may have changed in the store: trust, halts, heads;
// and the store's clock.
func (c *Core) look(ctx context.Context) error {
	err := c.lookOnce(ctx)
	if ctx.Err() != nil {
		return err
	}
	c.looked.note(err, c.clock.now())
	local := localFault(err)
	switch {
	case err == nil || local:
		c.alarms.Over(Store, "", wire.Address{})
	default:
		c.alarms.Raise(Store, "", wire.Address{}, fmt.Sprintf("the store: %v; sites go on with what they have", err))
		c.notices.Trouble("store", err)
	}
	if local {
		c.notices.Trouble("state", err)
	} else if err == nil {
		c.notices.Works("state")
	}
	return err
}

// localFault reports whether nothing but the Core's own disk has failed.
func localFault(err error) bool {
	var remote *bucket.Error
	if errors.As(err, &remote) {
		return false
	}
	var call syscall.Errno
	if errors.As(err, &call) {
		return true
	}
	return slices.ContainsFunc([]error{durable.ErrNotRegular, durable.ErrLink, durable.ErrUntrusted, ledger.ErrFull}, func(e error) bool { return errors.Is(err, e) })
}

func (c *Core) lookOnce(ctx context.Context) error {
	if err := c.probe(ctx); err != nil {
		return err
	}
	r, unkept := c.storage.reopen(ctx, c.storage.store.Load(), c.storage.keys.Load())
	if r == nil {
		return unkept
	}
	c.storage.repo.Store(r)
	if err := mayControl(r, c.storage.keys.Load().release); err != nil {
		return fmt.Errorf("sites refuse what this Core says: %w", err)
	}
	if err := errors.Join(c.halting.Look(ctx), unkept); err != nil {
		return err
	}
	news := false
	var errs []error
	for _, ch := range c.settings.Load().Fleet.Channels {
		fresh, err := c.adopt(ctx, ch.Name, ledger.RunID{})
		news = news || fresh
		errs = append(errs, err)
	}
	if news || c.desired.Behind() {
		errs = append(errs, c.desire(ctx, desired.Change{}))
	}
	return errors.Join(errs...)
}

// looked is how the last look at the store ended.
type looked struct {
	mu   sync.Mutex
	read time.Time // of the last that worked
	err  error     // of the last
}

func (l *looked) note(err error, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err == nil {
		l.read = now
	}
}

// last returns when the store was read last, and why it was not since.
func (l *looked) last() (read time.Time, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		why = l.err.Error()
	case l.read.IsZero():
		why = "it has not answered yet"
	}
	return l.read, why
}

// probeTime bounds the first request of a look: a store that says nothing must
// not hold up the looks after it is back.
const probeTime = 10 * time.Second

// probe compares the clocks, and so finds whether the store answers.
func (c *Core) probe(ctx context.Context) error {
	pctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := c.clock.compare(pctx)
	if err != nil && pctx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("it has not answered within %s: %w", probeTime, err)
	}
	return err
}

// adopt enters a channel's head into the ledger, if it is news.
func (c *Core) adopt(ctx context.Context, channel string, run ledger.RunID) (news bool, err error) {
	r := c.storage.repo.Load()
	h, err := r.Head(ctx, channel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if have, ok := c.newest.of(channel); ok && have.Number >= h.Number {
		return false, nil
	}
	rel, err := r.Release(ctx, channel, h.Number, h.Release)
	if err != nil {
		return false, err
	}
	c.adoptBetween(ctx, r, channel, h.Number)
	e := c.releaseEntry(channel, rel)
	e.Run = run
	if err := c.ledger.AddRelease(ctx, e); err != nil && !errors.Is(err, ledger.ErrConflict) {
		return false, err
	}
	if !c.newest.put(e) {
		return false, nil
	}
	c.notices.emit(Event{Kind: Released, Channel: channel, Text: fmt.Sprintf("release %d", h.Number)})
	return true, nil
}

// maxBetween bounds how many releases are looked up that the ledger missed.
const maxBetween = 64

// adoptBetween enters releases that the ledger has missed, as far as they are
// still there: it is a restored backup, and sites may yet attest them.
func (c *Core) adoptBetween(ctx context.Context, r *repo.Repo, channel string, head uint64) {
	have, ok := c.newest.of(channel)
	if !ok {
		return
	}
	first := have.Number + 1
	if head > maxBetween {
		first = max(first, head-maxBetween)
	}
	for n := first; n < head; n++ {
		if rel, err := r.Release(ctx, channel, n, digest.Digest{}); err == nil {
			_ = c.ledger.AddRelease(ctx, c.releaseEntry(channel, rel)) // the newest one is what counts
		}
	}
}

func (c *Core) releaseEntry(channel string, rel *repo.Release) ledger.Release {
	e := ledger.Release{Channel: channel, Number: rel.Number, Digest: rel.Digest, Tree: rel.Tree, Files: rel.Totals.Files, Bytes: rel.Totals.Bytes, Published: c.clock.motion.At(unixTime(rel.Created))}
	if e.Number > 1 {
		e.Parent = e.Number - 1
	}
	return e
}

type rowKey struct {
	wire.Address
	channel string
}

// desire makes what sites should hold follow from the configuration, the newest
// releases and a change, and states it to the sites that it concerns.
func (c *Core) desire(ctx context.Context, ch desired.Change) error {
	k := c.storage.keys.Load()
	ch.By = actor(ctx)
	changed, err := c.desired.Update(ctx, desired.World{
		Fleet: c.settings.Load().Fleet, Release: c.newest.of, Beat: c.o.Beat, Rehearsal: c.clock.parameters(), Core: c.publicURLs(), Now: c.clock.wall().Unix(),
		Nonce: func(key desired.Key, number, start uint64) [16]byte {
			return k.nonceOf(key.Address, key.Channel, number, start)
		},
	}, ch)
	if err != nil {
		c.notices.LedgerFailed(err)
		return err
	}
	c.states.send(ctx, changed)
	return nil
}

// Sync orders sites to start now.
func (c *Core) Sync(ctx context.Context, r SyncRequest) ([]Order, error) {
	return c.request(ctx, "sync", r.Scope, desired.Request{DryRun: r.DryRun, Rehash: r.Rehash, Adopt: r.Adopt, Now: r.Now},
		fmt.Sprintf("dry run %t, rehash %t, adopt %t, now %t", r.DryRun, r.Rehash, r.Adopt, r.Now))
}

// request asks each site and channel of a scope to start.
func (c *Core) request(ctx context.Context, verb string, scope fleet.Scope, r desired.Request, detail string) ([]Order, error) {
	list, err := c.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	ch := desired.Change{Requests: map[desired.Key]desired.Request{}}
	for _, s := range list {
		ch.Only = append(ch.Only, s.Name)
		for _, p := range s.Placements {
			ch.Requests[desired.Key{Address: wire.Address{Domain: s.Domain, Site: s.Name}, Channel: p.Channel}] = r
		}
	}
	if len(ch.Requests) == 0 {
		return nil, fmt.Errorf("%s: no site of this scope holds a channel", verb)
	}
	if err := c.notices.Audit(ctx, verb, scopeText(scope), detail); err != nil {
		return nil, err
	}
	if err := c.desire(ctx, ch); err != nil {
		return nil, err
	}
	var out []Order
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		connected := c.fleet.connected(a)
		for _, d := range c.desired.Of(a).Desired {
			if _, ok := ch.Requests[desired.Key{Address: a, Channel: d.Channel}]; !ok {
				continue
			}
			ordered := Order{Domain: a.Domain, Site: a.Site, Channel: d.Channel, Number: d.Number, Start: d.Start, Connected: connected}
			if !r.Now {
				ordered.Opens = c.settings.Load().nights.Opens(a.Site, d.Channel, c.clock.wall())
			}
			if o := c.orderFor(&s, d.Channel); o != nil {
				ordered.Halted = (&halt.Error{Order: *o}).Error()
			}
			out = append(out, ordered)
		}
	}
	return out, nil
}

func scopeText(s fleet.Scope) string {
	t := ""
	for _, p := range []struct{ k, v string }{{"domain", s.Domain}, {"region", s.Region}, {"site", s.Site}, {"channel", s.Channel}} {
		if p.v != "" {
			t += " " + p.k + " " + p.v
		}
	}
	if t == "" {
		return "all"
	}
	return t[1:]
}
