package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

// haltObject is the newest halt object that this Core knows of, verified.
type haltObject struct {
	raw    []byte
	epoch  uint64
	orders *halt.Orders
	stored bool   // it is in the bucket
	upTo   uint64 // orders up to this number are in the bucket, as far as this process knows
}

const (
	// maxHalt is how large a halt object may be to travel with a state; a larger
	// one sites read from the bucket.
	maxHalt = 256 << 10
	// haltStore bounds how long an order waits for the bucket: sites have been
	// told by then, and it is tried again.
	haltStore = 8 * time.Second
	haltFile  = "halt" // in the folder of state: one byte (1: it is in the bucket), then the object
)

// HaltRequest is an order to stop.
type HaltRequest struct {
	Scope  string `json:"scope"` // of package halt
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
}

// HaltChange is what became of an order to stop, or of lifting one.
type HaltChange struct {
	Orders []uint64 `json:"orders"`            // that were given or lifted
	Epoch  uint64   `json:"epoch"`             // of the set of orders in force
	Sites  int      `json:"sites"`             // configured, that it is for
	Store  string   `json:"trouble,omitempty"` // why the bucket does not have it yet; sites are told, and it is tried again
}

// HaltView is an order to stop and how each site obeys it.
type HaltView struct {
	ledger.Halt
	Unstored bool       `json:"unstored,omitempty"` // the bucket does not have it yet: who cannot hear the Core does not know of it
	Sites    []HaltSite `json:"sites"`
}

// HaltSite is one site under an order.
type HaltSite struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Connected  bool      `json:"connected"`
	Stopped    time.Time `json:"stopped,omitzero"` // zero: it has not confirmed
	BytesAfter int64     `json:"bytes_after"`      // that came between the order's arrival there and the stop
}

// Halt orders sites to stop. It is durable here, and every connected site is
// told, before it returns; the bucket has it too unless HaltChange says why not.
func (c *Core) Halt(ctx context.Context, r HaltRequest) (*HaltChange, error) {
	list, err := c.underHalt(r.Scope, r.Value)
	if err != nil {
		return nil, err
	}
	if r.Reason == "" {
		r.Reason = "no reason given"
	}
	o := halt.Order{Scope: r.Scope, Value: r.Value, Reason: r.Reason, By: actor(ctx), At: c.now().Unix()}
	done, err := c.changeHalts(ctx, "halt", func(orders *halt.Orders, epoch uint64) ([]uint64, error) {
		o.ID = epoch
		orders.Active = append(orders.Active, o)
		return []uint64{epoch}, nil
	})
	if done != nil {
		done.Sites, done.Orders = len(list), []uint64{c.numberOf(o)}
	}
	return done, err
}

// numberOf is the number of an order by now: where somebody else had put one of
// the same number into the bucket, that one keeps it.
func (c *Core) numberOf(o halt.Order) uint64 {
	n := o.ID
	for _, a := range c.halt.Load().orders.Active {
		id := a.ID
		if a.ID = o.ID; a != o {
			continue
		}
		if n = id; id == o.ID {
			break
		}
	}
	return n
}

// ErrNoOrder says that there is no such order to lift.
var ErrNoOrder = errors.New("no such order to stop is active")

// Resume lifts an order; 0: all that were given for exactly this scope. An
// order that only sites know of, because this Core was restored from a backup,
// is lifted too, by its number or by the newest epoch that they have seen.
func (c *Core) Resume(ctx context.Context, order uint64, scope, value string) (*HaltChange, error) {
	return c.changeHalts(ctx, "resume", func(orders *halt.Orders, epoch uint64) ([]uint64, error) {
		var lifted []uint64
		orders.Active = slices.DeleteFunc(orders.Active, func(a halt.Order) bool {
			hit := order != 0 && a.ID == order || order == 0 && a.Scope == scope && a.Value == value
			if hit {
				lifted = append(lifted, a.ID)
			}
			return hit
		})
		if len(lifted) > 0 {
			return lifted, nil
		}
		if known := c.knownEpoch(); order <= known || order > c.haltFloor {
			return nil, ErrNoOrder
		}
		// Kept as an order that was lifted, so that it does not come back from the
		// bucket, should that still hold it.
		err := c.ledger.AddHalt(ctx, ledger.Halt{Order: order, Scope: halt.All, Reason: forgotten, By: "unknown", At: c.now()})
		return []uint64{order}, err
	})
}

// changeHalts makes the next epoch.
func (c *Core) changeHalts(ctx context.Context, what string, change func(o *halt.Orders, epoch uint64) ([]uint64, error)) (*HaltChange, error) {
	ctx = context.WithoutCancel(ctx) // whoever gives the order may be gone before all is done
	c.haltMu.Lock()
	old := c.halt.Load()
	if old == nil {
		old = &haltObject{orders: &halt.Orders{}, epoch: c.knownEpoch(), stored: true}
	}
	orders := &halt.Orders{Active: slices.Clone(old.orders.Active)}
	epoch := max(old.epoch, c.haltFloor) + 1
	changed, err := change(orders, epoch)
	if err != nil {
		c.haltMu.Unlock()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	raw, err := c.repo.Load().SignHalt(c.keys.Load().release, epoch, orders)
	if err != nil {
		c.haltMu.Unlock()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	h := &haltObject{raw: raw, epoch: epoch, orders: orders, upTo: old.upTo}
	if old.stored {
		h.upTo = old.epoch
	}
	// A stop is told at once, because to record it may take as long as a disk is
	// busy, and holds also where it cannot be recorded; a start must be recorded
	// first. Nobody is answered before it is.
	var kept error
	if what == "resume" {
		if kept = c.keepHalt(ctx, h); kept != nil {
			c.haltMu.Unlock()
			return nil, fmt.Errorf("resume: %w", kept)
		}
		c.halt.Store(h)
		c.tellAll(ctx)
	} else {
		c.halt.Store(h)
		c.tellAll(ctx)
		c.stopPublishing(orders)
		kept = c.keepHalt(ctx, h)
	}
	c.haltFloor = 0 // passed
	c.haltMu.Unlock()
	if err := c.audit(ctx, what, fmt.Sprintf("epoch %d", epoch), fmt.Sprintf("orders %v", changed)); err != nil {
		kept = errors.Join(kept, err)
	}
	done := &HaltChange{Orders: changed, Epoch: epoch}
	sctx, cancel := context.WithTimeout(ctx, haltStore)
	defer cancel()
	if err := c.storeHalt(sctx, c.repo.Load()); err != nil {
		done.Store = err.Error()
		c.trouble("halt", err)
	}
	done.Epoch = max(done.Epoch, c.knownEpoch())
	if kept != nil {
		return done, fmt.Errorf("%s: the sites are told, but it could not be recorded here: %w", what, kept)
	}
	return done, nil
}

// knownEpoch is the newest that this Core knows.
func (c *Core) knownEpoch() uint64 {
	if h := c.halt.Load(); h != nil {
		return h.epoch
	}
	return c.repo.Load().Memory().Halt
}

// keepHalt makes an object durable: as a file, and its orders in the ledger.
func (c *Core) keepHalt(ctx context.Context, h *haltObject) error {
	b := []byte{0}
	if h.stored {
		b[0] = 1
	}
	err := c.state.WriteFile(haltFile, append(b, h.raw...), 0o600)
	list, lerr := c.ledger.Halts(ctx, false)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, o := range h.orders.Active {
		row := rowOf(o)
		if slices.ContainsFunc(list, func(l ledger.Halt) bool { return sameHalt(&l, &row) }) {
			continue
		}
		aerr := c.ledger.AddHalt(ctx, row)
		if errors.Is(aerr, ledger.ErrConflict) { // another's, or of an older life of this Core
			aerr = c.ledger.ReplaceHalt(ctx, row)
			c.fleet.each(func(_ wire.Address, x *site) {
				x.mu.Lock()
				delete(x.stops, o.ID)
				x.mu.Unlock()
			})
		}
		err = errors.Join(err, aerr)
	}
	for _, l := range list {
		if !slices.ContainsFunc(h.orders.Active, func(o halt.Order) bool { return l.Order == o.ID }) {
			if rerr := c.ledger.Resume(ctx, l.Order, actor(ctx)); !errors.Is(rerr, ledger.ErrNotFound) {
				err = errors.Join(err, rerr)
			}
		}
	}
	return err
}

func rowOf(o halt.Order) ledger.Halt {
	return ledger.Halt{Order: o.ID, Scope: o.Scope, Value: o.Value, Reason: o.Reason, By: o.By, At: unixTime(o.At)}
}

// forgotten is the reason of an order of which only its number is known.
const forgotten = "given before the backup from which this Core was restored; only sites knew of it"

func sameHalt(a, b *ledger.Halt) bool {
	return a.Order == b.Order && a.Scope == b.Scope && a.Value == b.Value && a.Reason == b.Reason && a.By == b.By && a.At.Equal(b.At)
}

// loadHalt takes up what an earlier process has kept.
func (c *Core) loadHalt() error {
	b, err := os.ReadFile(filepath.Join(c.state.Dir(), haltFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) < 2 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the halts that were kept: %w", err)
	}
	orders, epoch, err := c.repo.Load().ReadHalt(b[1:])
	if err != nil {
		return fmt.Errorf("the halts that were kept: %w: remove %s from the Core's folder of state if the bucket has what is in force", err, haltFile)
	}
	c.halt.Store(&haltObject{raw: b[1:], epoch: epoch, orders: orders, stored: b[0] == 1})
	return nil
}

// storeHalt puts the newest object into the bucket. What somebody else has
// ordered there meanwhile stays in force.
func (c *Core) storeHalt(ctx context.Context, r *repo.Repo) error {
	c.haltStoreMu.Lock()
	defer c.haltStoreMu.Unlock()
	h := c.halt.Load()
	if h == nil || h.stored {
		return nil
	}
	list, err := c.ledger.Halts(ctx, true)
	if err != nil {
		list = nil // what was lifted stays in force: an order too many harms less than one too few
	}
	resumed := func(o halt.Order) bool {
		row := rowOf(o)
		return slices.ContainsFunc(list, func(l ledger.Halt) bool {
			return l.Order == o.ID && !l.Resumed.IsZero() && (sameHalt(&l, &row) || l.Reason == forgotten)
		})
	}
	same := true
	var put *halt.Orders
	floor := h.epoch - 1
	if orders, seen, _, err := r.Halts(ctx); err == nil {
		if n := clashes(h.orders.Active, orders.Active); n > 0 { // each needs a number that nobody has used
			floor = max(seen, h.epoch) + n - 1
		}
	}
	epoch, err := r.PutHaltAbove(ctx, c.keys.Load().release, floor, func(o *halt.Orders, epoch uint64) error {
		o.Active, same = mergeHalts(h.orders.Active, o.Active, resumed, epoch)
		put = o
		return nil
	})
	if err != nil {
		return fmt.Errorf("put the orders to stop into the store: %w", err)
	}
	c.haltMu.Lock()
	if now := c.halt.Load(); now != h { // a newer order came meanwhile, and is stored next
		c.haltMu.Unlock()
		return nil
	}
	next := &haltObject{raw: h.raw, epoch: epoch, orders: put, stored: true}
	if !same || epoch != h.epoch {
		if next.raw, err = r.SignHalt(c.keys.Load().release, epoch, put); err != nil {
			c.haltMu.Unlock()
			return err
		}
	}
	err = c.keepHalt(ctx, next)
	c.halt.Store(next)
	c.haltMu.Unlock()
	if epoch != h.epoch {
		c.tellAll(ctx)
		c.stopPublishing(put)
	}
	return err
}

// mergeHalts adds to ours what others have ordered in the bucket, and reports
// whether that was nothing. Orders of ours whose numbers others have used take
// the new epoch's and those right before it, which nobody has used.
func mergeHalts(ours, theirs []halt.Order, resumed func(halt.Order) bool, epoch uint64) (all []halt.Order, same bool) {
	same, all = true, slices.Clone(ours)
	for _, t := range theirs {
		i := slices.IndexFunc(all, func(o halt.Order) bool { return o.ID == t.ID })
		switch {
		case i >= 0 && all[i] == t, i < 0 && resumed(t):
			continue
		case i >= 0:
			moved := all[i]
			moved.ID = epoch
			epoch--
			all = append(all[:i], all[i+1:]...)
			all = append(all, moved)
		}
		all, same = append(all, t), false
	}
	slices.SortFunc(all, func(a, b halt.Order) int { return cmp.Compare(a.ID, b.ID) })
	return all, same
}

// clashes counts the orders of ours whose numbers others have used.
func clashes(ours, theirs []halt.Order) (n uint64) {
	for _, t := range theirs {
		if slices.ContainsFunc(ours, func(o halt.Order) bool { return o.ID == t.ID && o != t }) {
			n++
		}
	}
	return n
}

// readHalt adopts a newer halt object from the bucket, and tells the sites.
func (c *Core) readHalt(ctx context.Context, r *repo.Repo) error {
	if h := c.halt.Load(); h != nil && !h.stored {
		sctx, cancel := context.WithTimeout(ctx, haltStore)
		defer cancel()
		return c.storeHalt(sctx, r)
	}
	_, seen, _, err := r.Halts(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrOlder) {
		return c.restoreHalt(ctx, r, err)
	}
	if err != nil {
		return err
	}
	if old := c.halt.Load(); old != nil && old.epoch == seen {
		return nil
	}
	body, _, err := r.Store().Get(ctx, "halt", 0, -1)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(body, halt.Max+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	orders, epoch, err := r.ReadHalt(raw)
	if err != nil || epoch != seen {
		return err // it changed in between: next time
	}
	c.haltMu.Lock()
	old := c.halt.Load()
	if old != nil && epoch <= old.epoch { // given here meanwhile; storing it settles which counts
		c.haltMu.Unlock()
		return nil
	}
	h := &haltObject{raw: raw, epoch: epoch, orders: orders, stored: true}
	err = c.keepHalt(ctx, h)
	c.halt.Store(h)
	c.haltMu.Unlock()
	c.tellAll(ctx)
	c.stopPublishing(orders)
	return err
}

// restoreHalt stores again what is in force, after somebody has removed the
// object or put an old one back. It returns why, which is told even so.
func (c *Core) restoreHalt(ctx context.Context, r *repo.Repo, why error) error {
	c.haltMu.Lock()
	h := c.halt.Load()
	if h == nil {
		c.haltMu.Unlock()
		return why
	}
	c.halt.Store(&haltObject{raw: h.raw, epoch: h.epoch, orders: h.orders})
	c.haltMu.Unlock()
	if err := c.storeHalt(ctx, r); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w; the orders in force were stored again: who can write to the bucket?", why)
}

// seenEpoch takes a site's word that it has seen a newer epoch: this Core was
// restored from a backup. What it orders from now on is newer still; what the
// site was told stays in force there until then.
func (c *Core) seenEpoch(a wire.Address, epoch uint64) {
	h := c.halt.Load()
	if h == nil || epoch <= h.epoch || epoch > h.epoch+maxLeap {
		return
	}
	c.haltMu.Lock()
	news := epoch > c.haltFloor
	c.haltFloor = max(c.haltFloor, epoch)
	c.haltMu.Unlock()
	if news {
		c.trouble("epoch", fmt.Errorf("site %s has seen epoch %d of the orders to stop, the newest here is %d: what it was told is in force there until nightferry resume %d", a.Site, epoch, h.epoch, epoch))
	}
}

// stopped takes a site's word of the orders that it obeys.
func (c *Core) stopped(ctx context.Context, a wire.Address, x *site, v *wire.Stopped) {
	if len(v.Orders) > wire.MaxStops {
		return
	}
	var local *wire.Stop
	var news []wire.Stop
	x.mu.Lock()
	for i, s := range v.Orders {
		switch {
		case s.Order == 0:
			local = &v.Orders[i]
			local.By, local.Reason = clip(local.By), clip(local.Reason)
		case !x.stops[s.Order]:
			news = append(news, s)
		}
	}
	x.local = local
	x.mu.Unlock()
	for _, s := range news {
		err := c.ledger.Confirm(ctx, s.Order, ledger.Stop{Domain: a.Domain, Site: a.Site, Stopped: time.UnixMilli(s.At).UTC(), BytesAfter: s.Bytes})
		if err != nil && !errors.Is(err, ledger.ErrNotFound) {
			c.ledgerFailed(err)
			return
		}
		if err == nil {
			x.mu.Lock()
			if x.stops == nil {
				x.stops = map[uint64]bool{}
			}
			x.stops[s.Order] = true
			x.mu.Unlock()
		}
	}
}

// Halts lists the active orders, or with all also those that were lifted, the
// newest first, and those that were given on a site itself with number 0.
func (c *Core) Halts(ctx context.Context, all bool) ([]HaltView, error) {
	list, err := c.ledger.Halts(ctx, all)
	if err != nil {
		return nil, err
	}
	h := c.halt.Load()
	out := make([]HaltView, 0, len(list))
	for _, l := range list {
		v := HaltView{Halt: l, Unstored: h != nil && !h.stored && l.Order > h.upTo && l.Resumed.IsZero()}
		sites, err := c.underHalt(l.Scope, l.Value)
		if err != nil {
			sites = nil // a name that is configured no more
		}
		for _, s := range sites {
			w := HaltSite{Domain: s.Domain, Site: s.Name, Connected: c.connected(wire.Address{Domain: s.Domain, Site: s.Name})}
			if i := slices.IndexFunc(l.Confirmed, func(p ledger.Stop) bool { return p.Domain == s.Domain && p.Site == s.Name }); i >= 0 {
				w.Stopped, w.BytesAfter = l.Confirmed[i].Stopped, l.Confirmed[i].BytesAfter
			}
			v.Sites = append(v.Sites, w)
		}
		out = append(out, v)
	}
	for _, s := range c.settings.Load().Fleet.Sites {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		x := c.fleet.get(a)
		x.mu.Lock()
		local, connected := x.local, c.heard(x)
		x.mu.Unlock()
		if local != nil {
			out = append(out, HaltView{Halt: ledger.Halt{Scope: halt.Site, Value: s.Name, Reason: local.Reason, By: local.By, At: time.UnixMilli(local.Heard).UTC()},
				Sites: []HaltSite{{Domain: s.Domain, Site: s.Name, Connected: connected, Stopped: time.UnixMilli(local.At).UTC(), BytesAfter: local.Bytes}}})
		}
	}
	return out, nil
}

func (c *Core) connected(a wire.Address) bool {
	x := c.fleet.get(a)
	x.mu.Lock()
	defer x.mu.Unlock()
	return c.heard(x)
}

// underHalt lists the sites that an order is for. A name that is not configured
// is an error: an order with a slip in it stops nobody.
func (c *Core) underHalt(scope, value string) ([]fleet.Site, error) {
	var s fleet.Scope
	switch scope {
	case halt.All:
	case halt.Region:
		s.Region = value
	case halt.Domain:
		s.Domain = value
	case halt.Site:
		s.Site = value
	case halt.Channel:
		s.Channel = value
	default:
		return nil, fmt.Errorf("halt: scope %q: want all, region, domain, site or channel", scope)
	}
	if (value == "") != (scope == halt.All) {
		return nil, fmt.Errorf("halt: scope %s: name exactly one", scope)
	}
	return c.settings.Load().Fleet.Select(s)
}

// stopPublishing ends the publishes, and the measurements of sources, that an
// order is for.
func (c *Core) stopPublishing(o *halt.Orders) {
	host, _ := os.Hostname() // only for orders that name it as a site
	why := func(channel string) error {
		if order := o.Find(halt.Subject{Site: host, Channel: channel}); order != nil {
			return &halt.Error{Order: *order}
		}
		return nil
	}
	c.publishing.Stop(why)
}
