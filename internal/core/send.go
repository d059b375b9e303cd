package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/bus"
	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/halting"
	"nightferry/internal/heads"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// downlink signs messages and sends them to sites.
type downlink struct {
	storage *storage // with the key that signs
	fleet   *sites
	notices *notices
	client  *bus.Client // set before the first message
}

// stateSender sends sites their desired state, with the newest halt orders.
type stateSender struct {
	down    *downlink
	storage *storage
	fleet   *sites
	fills   func(ctx context.Context, domain, site string) ([]ledger.Fill, error)
	newest  *heads.Service
	desired *desired.Service
	may     func(revision uint64) bool // false: halt orders only, see incarnation.Service.MayState
	halting *halting.Service
	clock   *clocks
	notices *notices
	ready   chan struct{} // closed when messages can be sent
	sent    atomic.Int64
}

// sendSigned signs a message and sends it. If the message is lost, the site asks again or the Core
// sends it again.
func (l *downlink) sendSigned(a wire.Address, verb string, number uint64, v any) {
	if err := l.signAndSend(a, verb, number, v); err != nil && !errors.Is(err, bus.ErrAway) {
		l.notices.ReportFailure("send", err)
	} else if err == nil {
		l.notices.ReportSuccess("send")
	}
}

func (l *downlink) signAndSend(a wire.Address, verb string, number uint64, v any) error {
	r := l.storage.repo.Load()
	msg, err := wire.Sign(l.storage.keys.Load().release, r.ID(), a, verb, number, v)
	if err != nil {
		return err
	}
	d := wire.Down{Message: msg}
	memory := r.Memory()
	if a.Domain == wire.EnrolDomain || l.fleet.trustOf(a) < memory.Trust {
		d.Trust = memory.TrustDoc
	}
	b, err := d.Encode()
	if err != nil {
		return err
	}
	return l.client.Publish(a.Down(verb), b)
}

// sendAll sends the desired state to every site with an identity.
func (s *stateSender) sendAll(ctx context.Context) {
	var all []wire.Address
	s.fleet.eachSite(func(a wire.Address, x *site) { all = append(all, a) })
	s.sendStates(ctx, all)
}

// sendStates sends sites their desired state. A site that misses it gets it after its next hello.
func (s *stateSender) sendStates(ctx context.Context, list []wire.Address) {
	select {
	case <-s.ready:
	default:
		return // Run sends it to all sites
	}
	// Signing takes most of the time, so use all CPU cores.
	var g errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(list) && ctx.Err() == nil; i += workers {
				s.sendOne(ctx, list[i])
			}
			return nil
		})
	}
	_ = g.Wait() // they return nil
}

func (s *stateSender) sendOne(ctx context.Context, a wire.Address) {
	x := s.fleet.findSite(a)
	if x == nil {
		return
	}
	h := s.halting.Current()
	st := s.desired.Of(a)
	x.mu.Lock()
	told := x.identity != nil
	var err error
	older := ""
	var stated []wire.Desired
	for _, d := range st.Desired { // an older state under a new revision would move the site back
		h := findHeld(x.holds, d.Channel)
		if h.Number > d.Number {
			older = fmt.Sprintf("site %s holds release %d of %q, and this Core knows only %d: the ledger was probably restored from a backup. The site keeps its desired release of that channel until the store has been read", a, h.Number, d.Channel, d.Number)
		}
		if h.Number > d.Number || !s.newest.Read(d.Channel) {
			st.Withheld = append(st.Withheld, d.Channel)
		} else {
			stated = append(stated, d)
		}
	}
	if h.Object != nil && x.epoch < h.Epoch && len(h.Object) <= maxHalt {
		st.Halt = h.Object
	}
	x.mu.Unlock()
	if !told {
		return
	}
	if st.Desired, err = s.addFormer(ctx, a, stated); err != nil {
		s.notices.LedgerFailed(err)
	}
	if err != nil || !s.may(st.Revision) {
		st = desired.Stated{State: wire.State{Halt: st.Halt}} // a halt is obeyed under any revision
	} else if older == "" {
		s.notices.incidents.Resolve(kinds.Behind, "", a)
	}
	if older != "" {
		s.notices.incidents.Raise(kinds.Behind, "", a, older)
	}
	st.At, st.Store = s.clock.now().UnixMilli(), s.storage.store.Load().origin
	s.down.sendSigned(a, wire.VerbState, st.Revision, &st.State)
	s.sent.Add(1)
}

// addFormer adds the ledger's record of each target. An agent that has lost its own record would otherwise take the mount
// point of an absent volume for a new target, so without the ledger a site gets no desired state.
func (s *stateSender) addFormer(ctx context.Context, a wire.Address, list []wire.Desired) ([]wire.Desired, error) {
	fills, err := s.fills(ctx, a.Domain, a.Site)
	if err != nil {
		return nil, err
	}
	for i := range list {
		d := &list[i]
		for _, f := range fills {
			if f.Channel == d.Channel && fleet.SameFolder(f.Target, d.Target) {
				d.Former = wire.Former{Filled: true, Number: f.Number, Release: f.Release, Place: wire.Place{Target: f.Target, Volume: f.Volume, Machine: f.Machine}}
			}
		}
	}
	return list, nil
}
