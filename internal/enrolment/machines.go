package enrolment

import (
	"context"
	"fmt"
	"time"

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

// machines are the agents that were heard with one identity. Of those on one
// machine, each begins after the one before has ended. So an earlier process
// that is heard again is a second machine: a copy of the server.
type machines struct {
	now    process
	before []process
}

// noteProcess takes a message of a process. It returns true when the process is new,
// and the other machine when there are two.
func (m *machines) noteProcess(n process) (isNew bool, other *process) {
	switch {
	case n.id == m.now.id:
		if n.machine != "" {
			m.now.machine = n.machine
		}
		return false, nil
	case m.now.id == "":
		m.now = n
		return false, nil
	}
	for i := range m.before {
		if m.before[i].id != n.id {
			continue
		}
		// What it sent before the other began may still have been on the way.
		if n.at > m.now.at || n.since.Sub(m.now.since) > 2*time.Second {
			return false, &m.before[i]
		}
		return false, nil
	}
	m.before = append(m.before, m.now)
	m.before = m.before[max(0, len(m.before)-maxProcesses):]
	m.now = n
	return true, nil
}

// Contact notes which process of a site sent a message. When a new one appears,
// the connections of the others are closed: if the agent was restarted there are
// none, and if the server was copied, the other comes back at once and is found
// out. at is the process's clock in Unix milliseconds.
func (s *Service) Contact(ctx context.Context, a wire.Address, instance []byte, at int64, machine string) {
	id := s.o.Sites.Enrolment(a).Identity
	if len(instance) != 16 || id == nil {
		return
	}
	s.mu.Lock()
	m := s.machines[a]
	if m == nil {
		m = &machines{}
		s.machines[a] = m
	}
	isNew, other := m.noteProcess(process{string(instance), s.o.Clip(machine[:min(len(machine), wire.MaxMachine)]), s.o.Now(), at})
	now := m.now
	s.mu.Unlock()
	switch {
	case !id.Contested.IsZero():
	case other != nil:
		s.Contested(ctx, a, fmt.Sprintf("two machines use the identity of site %s: %s and %s. Nothing that they report is believed: stop one of them and enroll the site again, or, if the other one is gone for good, nightferry site confirm %s",
			a.Site, machineText(other.machine), machineText(now.machine), a.Site))
	case isNew:
		if err := s.o.Bus.KeepNewest(id.Public); err != nil {
			s.o.Notices.ReportFailure("bus", err)
		}
	}
}

func machineText(s string) string {
	if s == "" {
		return "a client without a name"
	}
	return s
}

// Contested marks a site whose identity two machines use. It lasts until the site
// is enrolled again, revoked or confirmed.
func (s *Service) Contested(ctx context.Context, a wire.Address, text string) {
	id, err := s.o.Identities.Contest(ctx, a.Domain, a.Site, text)
	if err != nil {
		s.o.Notices.LedgerFailed(err)
		return
	}
	s.o.Sites.Update(a, &id)
	s.o.Sites.Doubt(ctx, a)
	s.o.Incidents.Raise(kinds.Cloned, "", a, text)
	if err := s.o.Notices.Audit(ctx, "contested", "site "+a.Site, text); err != nil {
		s.o.Notices.LedgerFailed(err)
	}
}

// Confirm takes an operator's word that only one machine is left that uses
// the site's identity. What the site holds has to be proven anew.
func (s *Service) Confirm(ctx context.Context, name, reason string) error {
	at := s.o.Fleet().Site(name)
	if at == nil {
		return fmt.Errorf("no site %q is configured: %w", name, ledger.ErrNotFound)
	}
	a := wire.Address{Domain: at.Domain, Site: at.Name}
	if id := s.o.Sites.Enrolment(a).Identity; id == nil || id.Contested.IsZero() {
		return fmt.Errorf("site %q: no two machines use its identity: nothing to confirm", name)
	}
	id, err := s.o.Identities.Settle(ctx, a.Domain, a.Site)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.machines, a)
	s.mu.Unlock()
	s.o.Sites.Update(a, &id)
	s.o.Incidents.Resolve(kinds.Cloned, "", a)
	if err := s.o.Notices.Audit(ctx, "confirm", "site "+name, reason); err != nil {
		return err
	}
	s.o.Prove(ctx, a)
	return nil
}
