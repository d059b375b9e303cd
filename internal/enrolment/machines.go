package enrolment

import (
	"bytes"
	"context"
	"encoding/hex"
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

// Sender is the process that sent a message.
type Sender struct {
	Instance []byte
	At       int64  // Unix milliseconds, its own clock
	Machine  string // for people; empty: unknown
	Leaving  bool   // its last message: it stops

	// The record of starts in its state, as in wire.Hello. Starts is 0 if the message has none.
	Lineage []byte
	Starts  uint64
	Started []byte
}

// Contact notes which process of a site sent a message. When a new one appears,
// the connections of the others are closed: if the agent was restarted there are
// none, and if the server was copied, the other comes back at once and is found
// out. A copy that runs while the other is off is found out by its record of starts. Contact returns the process that
// appeared last.
func (s *Service) Contact(ctx context.Context, a wire.Address, v Sender) ledger.Process {
	id := s.o.Sites.Enrolment(a).Identity
	if len(v.Instance) != 16 || id == nil {
		return ledger.Process{}
	}
	s.mu.Lock()
	m := s.machines[a]
	if m == nil {
		m = &machines{}
		s.machines[a] = m
	}
	if v.Leaving && string(v.Instance) != m.now.id { // a process that ends is no second one from here on, also if it is heard after Confirm
		s.mu.Unlock()
		return id.Process
	}
	isNew, other := m.noteProcess(process{string(v.Instance), s.o.Clip(v.Machine[:min(len(v.Machine), wire.MaxMachine)]), s.o.Now(), v.At})
	now := m.now
	s.mu.Unlock()
	switch {
	case !id.Contested.IsZero():
	case other != nil:
		s.Contested(ctx, a, fmt.Sprintf("two machines use the identity of site %s: %s and %s. Nothing that they report is believed: stop one of them and enroll the site again, or, if the other one is gone for good, nightferry site confirm %s",
			a.Site, machineText(other.machine), machineText(now.machine), a.Site))
	case string(v.Instance) == now.id && hasForked(&id.Process, &v):
		s.Contested(ctx, a, fmt.Sprintf("the agent of site %s on %s does not continue the state of the agent that was heard on %s: it is a clone, or its state was restored from a backup. Nothing that it reports is believed: if another machine uses this identity, stop one of the two and enroll the site again; if not, nightferry site confirm %s",
			a.Site, machineText(now.machine), id.Process.Since.UTC().Format("2006-01-02 15:04 UTC"), a.Site))
	case isNew:
		if err := s.o.Bus.KeepNewest(id.Public); err != nil {
			s.o.Notices.ReportFailure("bus", err)
		}
	}
	return s.noteProcess(ctx, a, &now, &v)
}

// noteProcess records the process that appeared last, and its place in the record of starts.
func (s *Service) noteProcess(ctx context.Context, a wire.Address, now *process, v *Sender) ledger.Process {
	id := s.o.Sites.Enrolment(a).Identity // Contested has changed it
	if id == nil {
		return ledger.Process{}
	}
	p := id.Process
	if last := hex.EncodeToString([]byte(now.id)); p.ID != last {
		p.ID, p.Since = last, now.since.UTC().Truncate(time.Microsecond)
	}
	if id.Contested.IsZero() && string(v.Instance) == now.id && v.hasStart() {
		p.Lineage, p.Starts, p.Started = hex.EncodeToString(v.Lineage), v.Starts, hex.EncodeToString(v.Started[:wire.StartID])
	}
	if p == id.Process {
		return p
	}
	next := *id
	next.Process = p
	s.o.Sites.Update(a, &next)
	if err := s.o.Processes.NoteProcess(ctx, id.Public, p); err != nil {
		s.o.Notices.LedgerFailed(err)
	}
	return p
}

// hasStart reports whether the sender shows its own start in the record.
func (v *Sender) hasStart() bool {
	return v.Starts > 0 && len(v.Started) >= wire.StartID && bytes.HasPrefix(v.Instance, v.Started[:wire.StartID])
}

// hasForked reports whether a sender's record of starts proves that it does not continue the state of the process known: it
// lacks the known start, although it reaches back to it. After more starts than a record holds, nothing is proven. A state
// that was made anew has another lineage.
func hasForked(known *ledger.Process, v *Sender) bool {
	if !v.hasStart() || known.Starts == 0 || known.Lineage != hex.EncodeToString(v.Lineage) {
		return false
	}
	if v.Starts < known.Starts {
		return true
	}
	since := v.Starts - known.Starts
	if since >= uint64(len(v.Started)/wire.StartID) {
		return false
	}
	return hex.EncodeToString(v.Started[since*wire.StartID:(since+1)*wire.StartID]) != known.Started
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
