// Package incident owns the fleet's incidents: which are open, and how each one
// ends. Their kinds are in package kinds.
package incident

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/text"
	"nightferry/internal/wire"
)

// Kind is the type of an incident.
type Kind = kinds.Kind

// Records stores incidents.
type Records interface {
	OpenIncident(ctx context.Context, p ledger.IncidentReport) (opened bool, err error)
	ResolveMember(ctx context.Context, key, domain, site string) (resolved bool, err error)
	List(ctx context.Context, all bool) ([]ledger.Incident, error)
	CloseIncident(ctx context.Context, id int64, d ledger.Deed) (ledger.Incident, error)
	AckIncident(ctx context.Context, id int64, silent time.Time, d ledger.Deed) (ledger.Incident, error)
}

// Options of a Service.
type Options struct {
	Records  Records
	Now      func() time.Time // the calendar's
	OnChange func(Change)     // called when an incident opens or ends; may be called by many goroutines
}

// Change is an incident that opened or ended.
type Change struct {
	Kind Kind
	Key  string
	At   wire.Address
	Text string // empty: it has ended
}

// Service opens and ends incidents. Raising the same incident again costs
// nothing. If the ledger cannot be written because its disk is full, Service
// writes later. It is safe for concurrent use.
type Service struct {
	o Options

	mu      sync.Mutex
	open    map[part]time.Time // when it was last written
	pending []change
	current part // of the change that is being written
	moot    bool // Noted has a newer fact about current
	wake    chan struct{}

	flushing sync.Mutex
}

// part is one member's part in an incident.
type part struct {
	key string
	at  wire.Address
}

type change struct {
	part
	kind Kind
	text string // empty: it has ended
	when time.Time
}

const (
	// again is how often an unresolved incident is written again.
	again      = time.Minute
	maxPending = 10_000
	mergeAbove = 1_000 // pending changes from which on those of one part are merged
	maxText    = 1 << 10
)

// New makes a service without incidents; call Load to read the open ones.
func New(o Options) *Service {
	return &Service{o: o, open: map[part]time.Time{}, wake: make(chan struct{}, 1)}
}

// Raise opens an incident of a kind about the object what (empty: the kind has
// only one incident), or adds the site at to it. The zero address is the Core
// itself. Raise never waits for the ledger.
func (s *Service) Raise(kind Kind, what string, at wire.Address, why string) {
	m := part{kinds.KeyOf(kind, what), at}
	now, bounded := s.o.Now(), strings.ToValidUTF8(text.Bound(why, maxText), "")
	s.mu.Lock()
	defer s.mu.Unlock()
	last, open := s.open[m]
	if open && !clock.Passed(last, now, again) || len(s.pending) >= maxPending {
		return
	}
	s.open[m] = now
	s.queueChange(change{part: m, kind: kind, text: bounded, when: now})
	if kind == kinds.Full && !open { // the ledger cannot be written for a while
		s.o.OnChange(Change{kind, m.key, at, bounded})
	}
}

// Resolve closes the incident of a kind and object at a site.
func (s *Service) Resolve(kind Kind, what string, at wire.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queueEnd(part{kinds.KeyOf(kind, what), at})
}

// queueEnd queues the end of a part that is open. mu is held.
func (s *Service) queueEnd(m part) {
	if _, ok := s.open[m]; !ok {
		return
	}
	delete(s.open, m)
	kind, _ := kinds.CutKey(m.key)
	s.queueChange(change{part: m, kind: kind, when: s.o.Now()})
}

// queueChange queues a change. In a long queue, it replaces the pending changes of the same part, so that one
// incident cannot fill the queue while the ledger fails. mu is held.
func (s *Service) queueChange(c change) {
	if len(s.pending) >= mergeAbove {
		s.pending = slices.DeleteFunc(s.pending, func(p change) bool { return p.part == c.part })
	}
	s.pending = append(s.pending, c)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Noted records a part that a transaction of the ledger has already opened or
// ended. Pending changes of the part are older than that transaction.
func (s *Service) Noted(key string, at wire.Address, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := part{key, at}
	s.pending = slices.DeleteFunc(s.pending, func(c change) bool { return c.part == m })
	s.moot = s.moot || s.current == m
	if open {
		s.open[m] = s.o.Now()
	} else {
		delete(s.open, m)
	}
}

// Has reports whether a part of an incident is open.
func (s *Service) Has(kind Kind, what string, at wire.Address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, open := s.open[part{kinds.KeyOf(kind, what), at}]
	return open
}

// Kinds counts the open incidents by kind.
func (s *Service) Kinds() map[Kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]bool{}
	for m := range s.open {
		keys[m.key] = true
	}
	out := map[Kind]int{}
	for key := range keys {
		kind, _ := kinds.CutKey(key)
		out[kind]++
	}
	return out
}

// Load reads the open incidents from the ledger.
func (s *Service) Load(ctx context.Context) error {
	list, err := s.o.Records.List(ctx, false)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range list {
		for _, m := range i.Members {
			if m.Left.IsZero() {
				s.open[part{i.Key, wire.Address{Domain: m.Domain, Site: m.Site}}] = m.Last
			}
		}
	}
	return nil
}

// ResolveExcept closes the parts for which keep returns false.
func (s *Service) ResolveExcept(keep func(kind Kind, what string, at wire.Address) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range maps.Clone(s.open) {
		if kind, what := kinds.CutKey(m.key); !keep(kind, what, m.at) {
			s.queueEnd(m)
		}
	}
}

// Known answers whether the configuration and the identities know an object.
type Known struct {
	Channel, Domain, Task func(name string) bool
	// Site reports whether a site is configured and enrolled, and has the
	// channel if one is named.
	Site func(at wire.Address, channel string) bool
}

// ResolveUnconfigured ends incidents whose cause is no longer configured: of removed channels
// and domains, of sites that are not configured and enrolled, and of channels
// that a site does not have.
func (s *Service) ResolveUnconfigured(k Known) {
	s.ResolveExcept(func(kind Kind, what string, at wire.Address) bool {
		e := kinds.Of(kind)
		switch {
		case e.Expires > 0:
			return true
		case at.Site != "":
			channel := what
			if e.Object != kinds.Channel {
				channel = ""
			}
			return k.Site(at, channel)
		case what == "" || e.Object == kinds.Other:
			return true
		case e.Object == kinds.Task:
			return k.Task(what)
		case e.Object == kinds.Domain:
			return what == "core" || k.Domain(what)
		}
		return k.Channel(what)
	})
}

// ResolveExpired ends incidents about attempts if no further attempt was made for the
// time that their kind sets.
func (s *Service) ResolveExpired() {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for m, last := range s.open {
		if last.After(now) { // written under a clock that was ahead
			s.open[m] = now
			continue
		}
		if kind, _ := kinds.CutKey(m.key); kinds.Of(kind).Expires > 0 && now.Sub(last) > kinds.Of(kind).Expires {
			s.queueEnd(m)
		}
	}
}

// Close ends an incident on an operator's request. If its cause persists, a new
// one opens.
func (s *Service) Close(ctx context.Context, id int64, who, reason string) (ledger.Incident, error) {
	s.flushing.Lock() // no row opens between the closing and the forgetting
	defer s.flushing.Unlock()
	s.flushChanges(ctx)
	i, err := s.o.Records.CloseIncident(ctx, id, ledger.Deed{Who: who, What: "close incident", Detail: reason})
	if err != nil {
		return i, err
	}
	s.mu.Lock()
	for m := range s.open {
		if m.key == i.Key && !s.waitsToOpen(m) {
			delete(s.open, m)
		}
	}
	s.mu.Unlock()
	s.o.OnChange(Change{Kind: Kind(i.Kind), Key: i.Key})
	return i, nil
}

// MaxSilence bounds how long no alert is sent of an incident.
const MaxSilence = 30 * 24 * time.Hour

// ErrSilence reports a silence that is over already, or longer than MaxSilence.
var ErrSilence = errors.New("a silence ends in the future, within 30 days")

// Ack records that a person knows of an open incident, which stops the reminders. Until silent, no alert is sent of it, nor of
// another incident with its key; the zero time ends such a silence. Errors: ErrSilence, ledger.ErrNotFound.
func (s *Service) Ack(ctx context.Context, id int64, who, note string, silent time.Time) (ledger.Incident, error) {
	if !silent.IsZero() {
		if d := silent.Sub(s.o.Now()); d <= 0 || d > MaxSilence {
			return ledger.Incident{}, fmt.Errorf("incident %d: no alert until %s: %w", id, silent.UTC().Format(time.RFC3339), ErrSilence)
		}
	}
	s.Flush(ctx)
	return s.o.Records.AckIncident(ctx, id, silent.UTC().Truncate(time.Microsecond), ledger.Deed{Who: who, What: "acknowledge incident", Detail: note})
}

// List returns the open incidents, or all, the newest first. It includes those
// that a full ledger could not store.
func (s *Service) List(ctx context.Context, all bool) ([]ledger.Incident, error) {
	s.Flush(ctx)
	list, err := s.o.Records.List(ctx, all)
	return append(list, s.waitingIncidents(list)...), err
}

// waitingIncidents returns the incidents that the ledger could not store yet and does
// not have open.
func (s *Service) waitingIncidents(known []ledger.Incident) (out []ledger.Incident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := map[string]bool{}
	for _, i := range known {
		have[i.Key] = have[i.Key] || i.Resolved.IsZero()
	}
	for _, c := range s.pending {
		if _, open := s.open[c.part]; !open || c.text == "" || have[c.key] {
			continue
		}
		have[c.key] = true
		out = append(out, ledger.Incident{Key: c.key, Kind: string(c.kind), Scope: ledger.ScopeOf(c.at.Site), Text: c.text, Opened: c.when, Last: c.when, Count: 1,
			Members: []ledger.Member{{Domain: c.at.Domain, Site: c.at.Site, Text: c.text, First: c.when, Last: c.when, Count: 1}}})
	}
	return out
}

// Flush writes the pending changes, in order. Failed changes stay in the queue.
func (s *Service) Flush(ctx context.Context) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.flushChanges(ctx)
}

// flushChanges is called with s.flushing held. It takes one change at a time, so that
// Noted and Close see all others in s.pending.
func (s *Service) flushChanges(ctx context.Context) {
	for {
		s.mu.Lock()
		if len(s.pending) == 0 {
			s.mu.Unlock()
			return
		}
		c := s.pending[0]
		s.pending, s.moot = s.pending[1:], false
		s.current = c.part
		s.mu.Unlock()
		err := s.writeChange(ctx, c)
		s.mu.Lock()
		if err != nil && !s.moot {
			s.pending = append([]change{c}, s.pending...)
		}
		s.current = part{}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *Service) writeChange(ctx context.Context, c change) error {
	if c.text == "" {
		gone, err := s.o.Records.ResolveMember(ctx, c.key, c.at.Domain, c.at.Site)
		if err == nil && gone {
			s.o.OnChange(Change{c.kind, c.key, c.at, ""})
		}
		return err
	}
	opened, err := s.o.Records.OpenIncident(ctx, ledger.IncidentReport{Key: c.key, Kind: string(c.kind), Text: c.text, Domain: c.at.Domain, Site: c.at.Site})
	if err == nil && opened && c.kind != kinds.Full {
		s.o.OnChange(Change{c.kind, c.key, c.at, c.text})
	}
	if err == nil {
		s.endStray(c)
	}
	return err
}

// endStray queues the end of a part that was opened in the ledger after Noted
// had recorded its end. Without it, the row would stay open until a restart.
func (s *Service) endStray(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.open[c.part]; !open {
		s.queueChange(change{part: c.part, kind: c.kind, when: s.o.Now()})
	}
}

// waitsToOpen reports whether an opening of the part waits to be written. s.mu is
// held.
func (s *Service) waitsToOpen(m part) bool {
	return slices.ContainsFunc(s.pending, func(c change) bool { return c.part == m && c.text != "" })
}

// Serve writes pending changes as soon as there are any.
func (s *Service) Serve(ctx context.Context) error {
	for {
		s.Flush(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}
