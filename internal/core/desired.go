package core

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
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
	c.looked.note(err, c.now())
	local := localFault(err)
	switch {
	case err == nil || local:
		c.alarms.over(Store, "", wire.Address{})
	default:
		c.alarms.raise(Store, "", wire.Address{}, fmt.Sprintf("the store: %v; sites go on with what they have", err))
		c.trouble("store", err)
	}
	if local {
		c.trouble("state", err)
	} else if err == nil {
		c.works("state")
	}
	return err
}

// localFault reports whether nothing but the Core's own disk has failed.
func localFault(err error) bool {
	remote, call := (*bucket.Error)(nil), syscall.Errno(0)
	return !errors.As(err, &remote) && (errors.As(err, &call) || errors.Is(err, ledger.ErrFull))
}

func (c *Core) lookOnce(ctx context.Context) error {
	if err := c.probe(ctx); err != nil {
		return err
	}
	r, unkept := c.openRepo(ctx, c.store.Load(), c.keys.Load())
	if r == nil {
		return unkept
	}
	c.repo.Store(r)
	if err := mayControl(r, c.keys.Load().release); err != nil {
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
	if news || c.undesired.Load() {
		errs = append(errs, c.desire(ctx, nil))
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
	err := c.compareClocks(pctx)
	if err != nil && pctx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("it has not answered within %s: %w", probeTime, err)
	}
	return err
}

// adopt enters a channel's head into the ledger, if it is news.
func (c *Core) adopt(ctx context.Context, channel string, run ledger.RunID) (news bool, err error) {
	r := c.repo.Load()
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
	c.say(Event{Kind: Released, Channel: channel, Text: fmt.Sprintf("release %d", h.Number)})
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
	e := ledger.Release{Channel: channel, Number: rel.Number, Digest: rel.Digest, Tree: rel.Tree, Files: rel.Totals.Files, Bytes: rel.Totals.Bytes, Published: c.motion.At(unixTime(rel.Created))}
	if e.Number > 1 {
		e.Parent = e.Number - 1
	}
	return e
}

// extra is what the ledger keeps of a row beyond its columns. It is JSON, so
// that a program with one field more or less reads the others: an operator's
// limit outlives every upgrade.
type extra struct {
	Sent       digest.Digest `json:"sent"` // of all that the site is sent of the channel: any change is a new revision
	Rehash     bool          `json:"rehash,omitempty"`
	Adopt      bool          `json:"adopt,omitempty"`
	Now        bool          `json:"now,omitempty"`
	Check      uint8         `json:"check,omitempty"`
	Verify     bool          `json:"verify,omitempty"`
	Above      uint64        `json:"above,omitempty"` // a revision that the site has seen, where the ledger knew less
	Limit      string        `json:"limit,omitempty"` // an operator's timetable for the whole site
	LimitUntil int64         `json:"limit_until,omitempty"`
}

// order is a change of one row that is not the configuration's.
type order struct {
	start, dryRun, rehash, adopt, now bool
	check                             uint8
	verify                            bool
	limit                             *limitOrder
	above                             uint64
}

type rowKey struct {
	wire.Address
	channel string
}

// desire makes what sites should hold follow from the configuration, the newest
// releases and orders. All that changes has one revision; who is concerned is
// told.
func (c *Core) desire(ctx context.Context, orders map[rowKey]order) (err error) {
	c.desireMu.Lock()
	defer c.desireMu.Unlock()
	defer func() { c.undesired.Store(err != nil) }()
	rows, err := c.ledger.AllDesired(ctx)
	if err != nil {
		return err
	}
	have := make(map[rowKey]ledger.Desired, len(rows))
	for _, d := range rows {
		have[rowKey{wire.Address{Domain: d.Domain, Site: d.Site}, d.Channel}] = d
	}
	f, k, by := c.settings.Load().Fleet, c.keys.Load(), actor(ctx)
	var set []ledger.Desired
	states := map[wire.Address]*wire.State{}
	touched := map[wire.Address]bool{}
	wants := map[rowKey]bool{}
	for i := range f.Sites {
		s := &f.Sites[i]
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		st := &wire.State{Beat: uint32(c.o.Beat.Seconds()), Rate: s.Rate}
		night, err := c.nightIn(s, a, have, orders)
		if err != nil {
			return err
		}
		night.into(st)
		for j := range s.Placements {
			p := &s.Placements[j]
			key := rowKey{a, p.Channel}
			wants[key] = true
			row, w, err := c.row(key, s, p, &night, have[key], orders[key], k)
			if err != nil {
				return err
			}
			row.By = by
			st.Desired = append(st.Desired, *w)
			if old, ok := have[key]; !ok || !sameRow(&old, row) {
				set = append(set, *row)
				touched[a] = true
			}
		}
		states[a] = st
	}
	var revision uint64
	if len(set) > 0 {
		if revision, err = c.ledger.SetDesired(ctx, set); err != nil {
			c.ledgerFailed(err)
			return err
		}
	}
	dropped := map[wire.Address]uint64{}
	for key := range have {
		if !wants[key] {
			if dropped[key.Address], err = c.ledger.DropDesired(ctx, key.Domain, key.Site, key.channel); err != nil {
				return err
			}
			touched[key.Address] = true
		}
	}
	var tell []wire.Address
	for a, st := range states {
		x := c.fleet.get(a)
		x.mu.Lock()
		fresh := x.want == 0
		rateOnly := x.state.Rate != st.Rate || x.state.Beat != st.Beat
		x.state = *st
		switch {
		case dropped[a] > 0:
			x.want = max(dropped[a], revision)
		case touched[a]:
			x.want = revision
		}
		x.mu.Unlock()
		if fresh && !touched[a] {
			_, rev, err := c.ledger.DesiredOf(ctx, a.Domain, a.Site)
			if err != nil {
				return err
			}
			x.mu.Lock()
			x.want = rev
			x.mu.Unlock()
		}
		if touched[a] || rateOnly {
			tell = append(tell, a)
		}
	}
	c.fleet.each(func(a wire.Address, x *site) { // no longer configured
		if states[a] == nil {
			x.mu.Lock()
			x.state, x.want = wire.State{}, 0
			x.mu.Unlock()
		}
	})
	c.tell(ctx, tell)
	return nil
}

// row is what a site should hold of a channel.
func (c *Core) row(key rowKey, s *fleet.Site, p *fleet.Placement, night *siteNight, old ledger.Desired, o order, k *keys) (*ledger.Desired, *wire.Desired, error) {
	was, err := extraOf(&old)
	if err != nil {
		return nil, nil, err
	}
	rel, _ := c.newest.of(key.channel)
	row := &ledger.Desired{Domain: key.Domain, Site: key.Site, Channel: key.channel, Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, Start: old.Start, DryRun: old.DryRun}
	rehash, adopt, now, check, verify := was.Rehash, was.Adopt, was.Now, was.Check, was.Verify
	if o.start {
		// There are never more orders than revisions: it is above all that the site has seen, whatever a restored ledger forgot.
		row.Start, row.DryRun, rehash, adopt, now = max(old.Start, was.Above, o.above)+1, o.dryRun, o.rehash, o.adopt, o.now
		check, verify = o.check, o.verify
	}
	row.Nonce = k.nonceOf(key.Address, key.channel, row.Number, row.Start)
	w := wire.Desired{
		Channel: key.channel, Number: row.Number, Release: row.Release, Target: p.Target,
		Nonce: row.Nonce[:], Start: row.Start, DryRun: row.DryRun, Rehash: rehash, Now: now, Bytes: rel.Bytes,
		Check: check, Verify: verify, Adopt: adopt, Policy: p.Policy,
	}
	sent, err := wire.Encode(&struct {
		_       struct{} `cbor:",toarray"`
		Desired *wire.Desired
		Rate    int64
		Night   *siteNight
	}{Desired: &w, Rate: s.Rate, Night: night})
	if err != nil {
		return nil, nil, err
	}
	row.Body, err = json.Marshal(&extra{Sent: digest.Of(sent), Rehash: rehash, Adopt: adopt, Now: now, Check: check, Verify: verify,
		Above: max(was.Above, o.above), Limit: night.Limit, LimitUntil: night.Until})
	return row, &w, err
}

func extraOf(old *ledger.Desired) (was extra, err error) {
	if len(old.Body) == 0 {
		return was, nil
	}
	if err := json.Unmarshal(old.Body, &was); err != nil {
		return was, fmt.Errorf("ledger: desired state of site %q, channel %q: %w", old.Site, old.Channel, err)
	}
	return was, nil
}

// nightIn is what a site is told of its nights: the configuration's, with the
// limit that was last ordered, as long as it lasts.
func (c *Core) nightIn(s *fleet.Site, a wire.Address, have map[rowKey]ledger.Desired, orders map[rowKey]order) (siteNight, error) {
	n := nightOf(s)
	n.Rehearsal = c.rehearsal()
	now := c.wall().Unix()
	for _, p := range s.Placements {
		key := rowKey{a, p.Channel}
		if o := orders[key].limit; o != nil {
			n.Limit, n.Until = o.table, o.until
			return n, nil
		}
		if old, ok := have[key]; ok {
			was, err := extraOf(&old)
			if err != nil {
				return n, err
			}
			if was.Limit != "" && (was.LimitUntil == 0 || now < was.LimitUntil) {
				n.Limit, n.Until = was.Limit, was.LimitUntil
			}
		}
	}
	return n, nil
}

func sameRow(a, b *ledger.Desired) bool {
	return a.Number == b.Number && a.Release == b.Release && a.Tree == b.Tree && a.Nonce == b.Nonce && a.Start == b.Start && a.DryRun == b.DryRun && bytes.Equal(a.Body, b.Body)
}

// Sync orders sites to start now.
func (c *Core) Sync(ctx context.Context, r SyncRequest) ([]Order, error) {
	return c.orderSites(ctx, "sync", r.Scope, order{start: true, dryRun: r.DryRun, rehash: r.Rehash, adopt: r.Adopt, now: r.Now},
		fmt.Sprintf("dry run %t, rehash %t, adopt %t, now %t", r.DryRun, r.Rehash, r.Adopt, r.Now))
}

// orderSites gives each site and channel of a scope an order to start.
func (c *Core) orderSites(ctx context.Context, verb string, scope fleet.Scope, o order, detail string) ([]Order, error) {
	list, err := c.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	orders := map[rowKey]order{}
	for _, s := range list {
		for _, p := range s.Placements {
			orders[rowKey{wire.Address{Domain: s.Domain, Site: s.Name}, p.Channel}] = o
		}
	}
	if len(orders) == 0 {
		return nil, fmt.Errorf("%s: no site of this scope holds a channel", verb)
	}
	if err := c.audit(ctx, verb, scopeText(scope), detail); err != nil {
		return nil, err
	}
	if err := c.desire(ctx, orders); err != nil {
		return nil, err
	}
	var out []Order
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		x := c.fleet.get(a)
		x.mu.Lock()
		for _, d := range x.state.Desired {
			if _, ok := orders[rowKey{a, d.Channel}]; ok {
				ordered := Order{Domain: a.Domain, Site: a.Site, Channel: d.Channel, Number: d.Number, Start: d.Start, Connected: c.heard(x)}
				if !o.now {
					ordered.Opens = c.settings.Load().nights.opens(a.Site, d.Channel, c.wall())
				}
				out = append(out, ordered)
			}
		}
		x.mu.Unlock()
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

func (c *Core) audit(ctx context.Context, what, object, detail string) error {
	return c.ledger.Audit(ctx, ledger.Deed{Who: actor(ctx), What: what, Object: object, Detail: detail})
}
