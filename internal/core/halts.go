package core

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/halting"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

const (
	// maxHalt bounds the halt object that travels with a state, in bytes; sites
	// read a larger one from the store.
	maxHalt  = 256 << 10
	haltFile = "halts" // in the folder of state: the halting service's record
)

// HaltRequest is an order to stop.
type HaltRequest struct {
	Scope  string `json:"scope"` // of package halt
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
	// Until is when the caller gives up. A Core that hung until then does not
	// carry the order out: the caller may have stopped, and resumed, by another
	// way since. Zero: never.
	Until time.Time `json:"until,omitzero"`
}

// ErrLate says that a halt came to its turn after its caller had given up.
var ErrLate = errors.New("the halt is not carried out: its caller gave up before the Core could")

// HaltChange is the result of giving or lifting halt orders.
type HaltChange struct {
	Orders []halt.ID `json:"orders"`            // that were given or lifted
	Epoch  uint64    `json:"epoch"`             // of the set of orders in force
	Sites  int       `json:"sites"`             // configured, that it is for
	Store  string    `json:"trouble,omitempty"` // why the bucket does not have it yet; sites have it, and it is tried again
}

// HaltView is an order to stop and how each site obeys it.
type HaltView struct {
	ledger.Halt            // Order is zero if it was given on the site itself
	Unstored    bool       `json:"unstored,omitempty"` // the bucket does not have it yet: a site that cannot reach the Core does not know it
	Sites       []HaltSite `json:"sites"`
}

// HaltSite is one site under an order.
type HaltSite struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Enrolled   bool      `json:"enrolled"`
	Connected  bool      `json:"connected"`
	Stopped    time.Time `json:"stopped,omitzero"` // zero: the process that uses the identity has not confirmed
	BytesAfter int64     `json:"bytes_after"`      // that came between the order's arrival there and the stop
	// Error is the possible error of Stopped, in both directions. Within is the longest time that can have passed from the
	// order to the stop, by the Core's own clock. Both are nil if they are not known.
	Error  *ledger.Seconds `json:"error_seconds,omitempty"`
	Within *ledger.Seconds `json:"within_seconds,omitempty"`
	// Confirmed is when the Core received the confirmation. If Stopped is zero, it came from an earlier process: another one
	// has used the site's identity since NewSince and has not confirmed.
	Confirmed time.Time `json:"confirmed,omitzero"`
	NewSince  time.Time `json:"new_process_since,omitzero"`
	// Contested names the two machines that use the site's identity: no stop there is proven. Empty: one machine uses it.
	Contested string `json:"contested,omitempty"`
	// MovesUntil is when the last URL of an agent without a valid identity ends at the latest; zero: there is no such
	// agent. It was revoked, or the configuration has moved or removed its site. It obeys the store's orders that name
	// its own domain, FormerDomain, and confirms nothing.
	MovesUntil   time.Time `json:"moves_until,omitzero"`
	FormerDomain string    `json:"former_domain,omitempty"`
}

// Halts are the Core's half of the kill switch, as people use it. The orders
// themselves belong to package halting.
type Halts struct {
	o              *Options
	settings       *atomic.Pointer[Settings]
	ledger         halting.Ledger
	identities     func(ctx context.Context, ended bool) ([]ledger.Identity, error)
	storage        *storage
	fleet          *sites
	states         *stateSender
	down           *downlink
	notices        *notices
	clock          *clocks
	asides         *sync.WaitGroup
	stopPublishing func(*halt.Orders)

	service  *halting.Service
	record   *haltRecord
	catching atomic.Bool // a site's newer halt orders are being learned
}

// Halt orders sites to stop. Every connected site has the order, and it is
// durable here, before Halt returns; the bucket has it too unless HaltChange
// says why not.
func (h *Halts) Halt(ctx context.Context, r HaltRequest) (*HaltChange, error) {
	if !r.Until.IsZero() && h.o.Now().After(r.Until) {
		return nil, ErrLate
	}
	list, err := h.underHalt(r.Scope, r.Value)
	if err != nil {
		return nil, err
	}
	if r.Reason == "" {
		r.Reason = "no reason given"
	}
	o := halt.NewOrder(r.Scope, r.Value, r.Reason, actorOf(ctx), h.clock.now())
	done, err := h.service.Give(ctx, o)
	return h.haltChanged(ctx, "halt", done, len(list)), err
}

// ErrNoOrder says that there is no such order to lift.
var ErrNoOrder = halting.ErrNoOrder

// Resume lifts the order whose ID begins with prefix. Without a prefix it lifts
// the orders that were given for exactly this scope, and with scope all every
// order.
func (h *Halts) Resume(ctx context.Context, prefix, scope, value string) (*HaltChange, error) {
	done, err := h.service.Lift(ctx, actorOf(ctx), func(o *halt.Orders) ([]halt.Order, error) {
		if prefix != "" {
			found, err := o.Match(prefix)
			if found == nil {
				return nil, err
			}
			return []halt.Order{*found}, nil
		}
		return o.Given(scope, value), nil
	})
	return h.haltChanged(ctx, "resume", done, 0), err
}

// haltChanged records a change in the audit. The orders themselves say who gave
// and who lifted them, so a ledger that cannot take it now does not make the
// change fail.
func (h *Halts) haltChanged(ctx context.Context, what string, done *halting.Change, sites int) *HaltChange {
	if done == nil {
		return nil
	}
	out := &HaltChange{Epoch: done.Epoch, Sites: sites}
	actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	for _, o := range done.Orders {
		out.Orders = append(out.Orders, o.ID)
		if err := h.notices.Audit(actx, what, o.Target(), fmt.Sprintf("order %s: %s", o.ID.Short(), o.Reason)); err != nil {
			h.notices.LedgerFailed(err)
		}
	}
	if done.Store != nil {
		out.Store = done.Store.Error()
	}
	return out
}

// auditTime bounds how long the kill switch waits for its audit record.
const auditTime = 500 * time.Millisecond

// openOrders takes up the halt orders that an earlier process has recorded.
func (h *Halts) openOrders(ctx context.Context) {
	h.record = &haltRecord{root: h.storage.state}
	kept, err := h.record.openRecord()
	var reopen func() ([]byte, error)
	if err != nil {
		h.notices.ReportFailure("state", fmt.Errorf("room for halt orders: %w", err))
		reopen = h.record.openRecord
	}
	h.service, err = halting.Open(ctx, halting.Options{
		Repository: func() halting.Repository { return haltRepo{h.storage.repo.Load(), h.storage.keys.Load().release} },
		Ledger:     h.ledger, Record: h.record, Recorded: kept, Reopen: reopen, Epoch: h.storage.repo.Load().Memory().Halt, Now: h.clock.now, Device: h.o.Now,
		Changed: func(ctx context.Context, s *halting.Set) {
			h.states.sendAll(ctx)
			h.stopPublishing(s.Orders)
		},
		Failed: func(what string, err error) {
			switch {
			case err == nil && what == "ledger":
				h.notices.LedgerWorks()
			case err == nil:
			case what == "ledger":
				h.notices.LedgerFailed(err)
			default:
				h.notices.ReportFailure("halt", err)
			}
		},
	})
	h.states.halting = h.service
	if err != nil {
		h.notices.ReportFailure("halt", err)
	}
}

// haltRepo is the repository with the key that signs halts.
type haltRepo struct {
	repo *repo.Repo
	key  ed25519.PrivateKey
}

func (r haltRepo) SignHalt(epoch uint64, o *halt.Orders) ([]byte, error) {
	return r.repo.Halts().Sign(r.key, epoch, o)
}

func (r haltRepo) OpenHalt(object []byte) (*repo.HaltObject, error) {
	return r.repo.Halts().Open(object)
}

func (r haltRepo) AllowsHalt(object []byte) error { return r.repo.Halts().Allows(object) }

func (r haltRepo) Halt(ctx context.Context) (*repo.HaltObject, error) {
	return r.repo.Halts().Read(ctx)
}

func (r haltRepo) MergeHalt(ctx context.Context, change func(*repo.HaltObject, bool) (uint64, error)) (*repo.HaltObject, error) {
	return r.repo.Halts().Merge(ctx, r.key, change)
}

// haltRecord is the record's file. halting opens it again if that failed before.
type haltRecord struct {
	root  *durable.Root
	mu    sync.Mutex
	slots *durable.Slots
}

func (r *haltRecord) openRecord() (kept []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots != nil { // it is read once more
		if err := r.slots.Close(); err != nil {
			return nil, err
		}
		r.slots = nil
	}
	r.slots, kept, err = durable.OpenSlots(r.root, haltFile, halting.MaxRecord)
	return kept, err
}

// Write implements halting.Record.
func (r *haltRecord) Write(b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots.Write(b)
}

// Close implements io.Closer.
func (r *haltRecord) Close() error {
	if r.slots == nil {
		return nil
	}
	return r.slots.Close()
}

// handleStopped takes a site's word of the orders that it obeys, and answers so that
// the site need not repeat it.
func (h *Halts) handleStopped(ctx context.Context, a wire.Address, x *site, v *wire.Stopped) {
	if h.fleet.isContested(a) {
		return // the other machine may still move
	}
	if len(v.Orders) > wire.MaxStops {
		return
	}
	var local *wire.Stop
	now := h.clock.now()
	for i := range v.Orders {
		s := &v.Orders[i]
		s.At, s.Heard, s.Bytes = nearTime(s.At, now), nearTime(s.Heard, now), max(0, s.Bytes)
		if s.Order.IsZero() {
			local = &v.Orders[i]
			local.By, local.Reason = clipText(local.By), clipText(local.Reason)
		}
	}
	x.mu.Lock()
	if hex.EncodeToString(v.Instance) != x.process.id {
		x.mu.Unlock()
		return // its hello comes first, and it repeats this
	}
	x.local, x.epoch = local, v.Epoch
	asked := now.Sub(x.caughtUp) < time.Second
	x.mu.Unlock()
	h.service.Confirm(a, hex.EncodeToString(v.Instance), v.Orders)
	if v.Epoch <= h.service.Current().Epoch {
		h.down.sendSigned(a, wire.VerbConfirmed, 0, &wire.Confirmed{Number: v.Number})
		if v.Epoch < h.service.Current().Epoch {
			h.states.sendStates(ctx, []wire.Address{a})
		}
		return
	}
	if asked || !h.catching.CompareAndSwap(false, true) {
		return // the site repeats it
	}
	x.mu.Lock()
	x.caughtUp = now
	x.mu.Unlock()
	h.asides.Go(func() {
		defer h.catching.Store(false)
		h.catchUp(ctx, a, v)
	})
}

// nearTime returns a site's Unix milliseconds, or now if they are not of this year:
// its clock is wrong, or it makes them up.
func nearTime(at int64, now time.Time) int64 {
	if d := time.UnixMilli(at).Sub(now); d < -365*24*time.Hour || d > 24*time.Hour {
		return now.UnixMilli()
	}
	return at
}

// catchUp learns a newer set of halt orders that a site has: from the store,
// which the site may have read, and if that does not have it, from the site.
// This Core was restored from a backup then.
func (h *Halts) catchUp(ctx context.Context, a wire.Address, v *wire.Stopped) {
	lctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	err := h.service.Look(lctx)
	if v.Epoch > h.service.Current().Epoch && len(v.Object) > 0 {
		err = h.service.Adopt(ctx, v.Object)
	}
	if ctx.Err() != nil {
		return
	}
	behind := v.Epoch > h.service.Current().Epoch
	if behind && err != nil {
		h.notices.ReportFailure("halt", fmt.Errorf("site %s has seen epoch %d of the halt orders, the newest here is %d: %w", a.Site, v.Epoch, h.service.Current().Epoch, err))
	}
	h.service.Confirm(a, hex.EncodeToString(v.Instance), v.Orders)
	h.down.sendSigned(a, wire.VerbConfirmed, 0, &wire.Confirmed{Number: v.Number, Want: behind && len(v.Object) == 0})
}

// catchUpTime bounds the look at the store before a site is asked for its halt
// object.
const catchUpTime = 3 * time.Second

// List lists the active orders, or with all also those that were lifted, the
// newest first, and those that were given on a site itself with a zero ID.
func (h *Halts) List(ctx context.Context, all bool) ([]HaltView, error) {
	list, err := h.service.List(ctx, all)
	if err != nil {
		return nil, err
	}
	former, err := h.formerAgents(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]HaltView, 0, len(list))
	for _, l := range list {
		v := HaltView{Halt: l, Unstored: l.Resumed.IsZero() && !h.service.InStore(l.Order)}
		sites, err := h.underHalt(l.Scope, l.Value)
		if err != nil {
			sites = nil // a name that is configured no more
		}
		for _, s := range sites {
			w, now, _ := h.fleet.haltSite(&s)
			if i := slices.IndexFunc(l.Confirmed, func(p ledger.Stop) bool { return p.Domain == s.Domain && p.Site == s.Name }); i >= 0 {
				w.showStop(&l, &l.Confirmed[i], now)
			}
			if f := former[s.Name]; !w.Enrolled {
				w.MovesUntil, w.FormerDomain = f.MovesUntil, f.FormerDomain
			}
			v.Sites = append(v.Sites, w)
		}
		order := halt.Orders{Active: []halt.Order{{Scope: l.Scope, Value: l.Value}}}
		for _, f := range former { // of sites that the configuration has removed or moved
			listed := slices.ContainsFunc(sites, func(s fleet.Site) bool { return s.Name == f.Site })
			if !listed && order.Find(halt.Subject{Site: f.Site, Domain: f.Domain, Channel: l.Value}) != nil {
				v.Sites = append(v.Sites, f)
			}
		}
		out = append(out, v)
	}
	for _, s := range h.settings.Load().Fleet.Sites {
		w, _, local := h.fleet.haltSite(&s)
		if local != nil {
			w.Stopped, w.BytesAfter = time.UnixMilli(local.At).UTC(), local.Bytes
			out = append(out, HaltView{Halt: ledger.Halt{Scope: halt.Site, Value: s.Name, Reason: local.Reason, By: local.By, At: time.UnixMilli(local.Heard).UTC()}, Sites: []HaltSite{w}})
		}
	}
	return out, nil
}

// showStop fills in a site's confirmation. It proves nothing about a process that has taken the place of the one that
// confirmed: that may be another machine.
func (w *HaltSite) showStop(h *ledger.Halt, c *ledger.Stop, now process) {
	w.Confirmed = c.Confirmed
	if now.id != "" && now.id != c.Process {
		w.NewSince = now.since
		return
	}
	w.Stopped, w.BytesAfter = c.Stopped, c.BytesAfter
	if c.Within >= 0 {
		within := c.Within
		early, late := ledger.Seconds(c.Stopped.Sub(h.At)), within-ledger.Seconds(c.Stopped.Sub(h.At))
		wrong := max(early, late)
		w.Within, w.Error = &within, &wrong
	}
}

// formerAgents returns, by site, the agents without a valid identity that may still hold valid URLs.
func (h *Halts) formerAgents(ctx context.Context) (map[string]HaltSite, error) {
	all, err := h.identities(ctx, true)
	if err != nil {
		return nil, err
	}
	now, f := h.clock.now(), h.settings.Load().Fleet
	former := map[string]HaltSite{}
	for _, id := range all {
		end := id.Ended
		if end.IsZero() || !id.Cut.IsZero() && id.Cut.Before(end) {
			end = id.Cut
		}
		if s := f.Site(id.Site); end.IsZero() && (s == nil || s.Domain != id.Domain) {
			end = now // the ledger could not record the cut
		}
		if until := end.Add(bucket.MaxPresign); !end.IsZero() && until.After(now) && until.After(former[id.Site].MovesUntil) {
			former[id.Site] = HaltSite{Domain: id.Domain, Site: id.Site, MovesUntil: until, FormerDomain: id.Domain}
		}
	}
	return former, nil
}

// underHalt lists the sites that an order is for. A name that is not configured
// is an error: an order with a slip in it stops nobody.
func (h *Halts) underHalt(scope, value string) ([]fleet.Site, error) {
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
	return h.settings.Load().Fleet.Select(s)
}
