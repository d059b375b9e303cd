package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// process is an agent that uses a site's identity, as its hellos name it.
type process struct {
	id      string // 16 random bytes
	machine string // for people
	since   time.Time
	at      int64 // Unix milliseconds, its own clock, when it was heard first
}

// maxProcesses bounds the earlier processes that are remembered for each site.
const maxProcesses = 8

// processes are the agents that were heard with one identity. Of those on one
// machine, each begins after the one before has ended. So an earlier process
// that is heard again is a second machine: a copy of the server.
type processes struct {
	now    process
	before []process
}

// noteProcess takes a message of a process. It returns true when the process is new,
// and the other machine when there are two.
func (p *processes) noteProcess(n process) (isNew bool, other *process) {
	switch {
	case n.id == p.now.id:
		if n.machine != "" {
			p.now.machine = n.machine
		}
		return false, nil
	case p.now.id == "":
		p.now = n
		return false, nil
	}
	for i := range p.before {
		if p.before[i].id != n.id {
			continue
		}
		// What it sent before the other began may still have been on the way.
		if n.at > p.now.at || n.since.Sub(p.now.since) > 2*time.Second {
			return false, &p.before[i]
		}
		return false, nil
	}
	p.before = append(p.before, p.now)
	p.before = p.before[max(0, len(p.before)-maxProcesses):]
	p.now = n
	return true, nil
}

// noteContact notes which process of a site sent a message. When a new one appears,
// the connections of the others are closed: if the agent was restarted there are
// none, and if the server was copied, the other comes back at once and is found
// out.
func (e *Enrolment) noteContact(ctx context.Context, a wire.Address, x *site, instance []byte, at int64, machine string) {
	if len(instance) != 16 {
		return
	}
	x.mu.Lock()
	isNew, other := x.noteProcess(process{string(instance), clipText(machine[:min(len(machine), wire.MaxMachine)]), e.o.Now(), at})
	now, id := x.now, x.identity
	contested := id != nil && !id.Contested.IsZero()
	x.mu.Unlock()
	switch {
	case id == nil || contested:
	case other != nil:
		e.markContested(ctx, a, x, fmt.Sprintf("two machines use the identity of site %s: %s and %s. Nothing that they report is believed: stop one of them and enroll the site again, or, if the other one is gone for good, nightferry site confirm %s",
			a.Site, machineText(other.machine), machineText(now.machine), a.Site))
	case isNew && e.link.server != nil:
		if err := e.link.server.KeepNewest(id.Public); err != nil {
			e.notices.ReportFailure("bus", err)
		}
	}
}

func machineText(s string) string {
	if s == "" {
		return "a client without a name"
	}
	return s
}

// markContested marks a site whose identity two machines use. It lasts until the site
// is enrolled again, revoked or confirmed.
func (e *Enrolment) markContested(ctx context.Context, a wire.Address, x *site, text string) {
	id, err := e.ledger.Sites.Contest(ctx, a.Domain, a.Site, text)
	if err != nil {
		e.notices.LedgerFailed(err)
		return
	}
	x.mu.Lock()
	if x.identity != nil && x.identity.Public == id.Public {
		x.identity, x.local = &id, nil
	}
	x.mu.Unlock()
	if err := e.halting.Forget(ctx, a); err != nil { // the other machine may still move
		e.notices.LedgerFailed(err)
	}
	e.notices.incidents.Raise(kinds.Cloned, "", a, text)
	if err := e.notices.Audit(ctx, "contested", "site "+a.Site, text); err != nil {
		e.notices.LedgerFailed(err)
	}
}

// Confirm takes an operator's word that only one machine is left that uses
// the site's identity. What the site holds has to be proven anew.
func (e *Enrolment) Confirm(ctx context.Context, name, reason string) error {
	s := e.settings.Load().Fleet.Site(name)
	if s == nil {
		return fmt.Errorf("no site %q is configured: %w", name, ledger.ErrNotFound)
	}
	a := wire.Address{Domain: s.Domain, Site: s.Name}
	if !e.fleet.isContested(a) {
		return fmt.Errorf("site %q: no two machines use its identity: nothing to confirm", name)
	}
	id, err := e.ledger.Sites.Settle(ctx, a.Domain, a.Site)
	if err != nil {
		return err
	}
	x := e.fleet.siteOf(a)
	x.mu.Lock()
	if x.identity != nil && x.identity.Public == id.Public {
		x.identity, x.processes = &id, processes{}
	}
	x.mu.Unlock()
	e.notices.incidents.Resolve(kinds.Cloned, "", a)
	_, err = e.request(ctx, "confirm", fleet.Scope{Site: name}, desired.Request{}, reason)
	return err
}

// dropServer drops what was known of a site's server: another one has taken its
// place, or none has. A confirmation of the old one proves nothing any more.
func (e *Enrolment) dropServer(ctx context.Context, a wire.Address, x *site) {
	x.mu.Lock()
	x.local, x.epoch = nil, 0
	x.mu.Unlock()
	if err := e.halting.Forget(ctx, a); err != nil {
		e.notices.LedgerFailed(err)
	}
}
