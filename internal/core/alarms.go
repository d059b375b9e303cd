package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// alarms opens and resolves incidents. Saying the same again costs nothing, and
// what the ledger cannot take now, because its disk is full, it gets later.
type alarms struct {
	core *Core

	mu      sync.Mutex
	open    map[alarm]time.Time // when it was last written
	pending []change
	wake    chan struct{}

	flushing sync.Mutex
}

// alarm is one member's part in an incident.
type alarm struct {
	key string
	at  wire.Address
}

type change struct {
	alarm
	kind Kind
	text string // empty: it is over
	when time.Time
}

const (
	// again is how often a problem that goes on is written again.
	again      = time.Minute
	maxPending = 10_000
	maxText    = 1 << 10
)

func keyOf(kind Kind, what string) string {
	if what == "" {
		return string(kind)
	}
	return string(kind) + "/" + what
}

// raise opens an incident of a kind about what (empty: there is one for all),
// or adds the site at to it; the zero address is the Core itself. It never
// waits for the ledger.
func (a *alarms) raise(kind Kind, what string, at wire.Address, text string) {
	m := alarm{keyOf(kind, what), at}
	now := a.core.wall()
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.open[m]; (ok && now.Sub(last) < again) || len(a.pending) >= maxPending {
		return
	}
	_, open := a.open[m]
	a.note(m, now)
	a.queue(change{alarm: m, kind: kind, text: clip(text), when: now})
	if kind == Full && !open { // the ledger will not take it for a while
		a.core.say(Event{Kind: IncidentOpened, Text: string(kind) + ": " + clip(text)})
	}
}

// waiting returns the incidents that the ledger could not take yet and does not
// have open.
func (a *alarms) waiting(known []ledger.Incident) (out []ledger.Incident) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := map[string]bool{}
	for _, i := range known {
		have[i.Key] = have[i.Key] || i.Resolved.IsZero()
	}
	for _, c := range a.pending {
		if _, open := a.open[c.alarm]; !open || c.text == "" || have[c.key] {
			continue
		}
		have[c.key] = true
		out = append(out, ledger.Incident{Key: c.key, Kind: string(c.kind), Scope: scopeOf(c.at), Text: c.text, Opened: c.when, Last: c.when, Count: 1,
			Members: []ledger.Member{{Domain: c.at.Domain, Site: c.at.Site, Text: c.text, First: c.when, Last: c.when, Count: 1}}})
	}
	return out
}

func scopeOf(at wire.Address) string {
	if at.Site != "" {
		return "site " + at.Site
	}
	return "core"
}

func (a *alarms) note(m alarm, now time.Time) {
	if a.open == nil {
		a.open = map[alarm]time.Time{}
	}
	a.open[m] = now
}

// noted says that the ledger has opened it already.
func (a *alarms) noted(kind Kind, what string, at wire.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note(alarm{keyOf(kind, what), at}, a.core.wall())
}

// over ends the member's part.
func (a *alarms) over(kind Kind, what string, at wire.Address) {
	m := alarm{keyOf(kind, what), at}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.open[m]; !ok {
		return
	}
	delete(a.open, m)
	a.queue(change{alarm: m, kind: kind, when: a.core.wall()})
}

func (a *alarms) queue(c change) {
	a.pending = append(a.pending, c)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// load learns what is open since before.
func (a *alarms) load(ctx context.Context) error {
	list, err := a.core.ledger.Incidents(ctx, false)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range list {
		for _, m := range i.Members {
			if m.Left.IsZero() {
				a.note(alarm{i.Key, wire.Address{Domain: m.Domain, Site: m.Site}}, m.Last)
			}
		}
	}
	return nil
}

// has reports whether a member's part of an incident is open.
func (a *alarms) has(kind Kind, what string, at wire.Address) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, open := a.open[alarm{keyOf(kind, what), at}]
	return open
}

// retain ends what keep does not want any more.
func (a *alarms) retain(keep func(kind Kind, what string, at wire.Address) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for m := range a.open {
		kind := Kind(kindOfKey(m.key))
		if !keep(kind, strings.TrimPrefix(strings.TrimPrefix(m.key, string(kind)), "/"), m.at) {
			delete(a.open, m)
			a.queue(change{alarm: m, kind: kind, when: a.core.wall()})
		}
	}
}

// endOrphans ends the incidents of sites that are not configured and enrolled,
// and of channels that are not theirs: nobody would say that they are over.
func (c *Core) endOrphans() {
	enrolled := map[wire.Address]bool{}
	c.fleet.each(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		enrolled[a] = x.identity != nil
	})
	f := c.settings.Load().Fleet
	c.alarms.retain(func(kind Kind, channel string, at wire.Address) bool {
		if at.Site == "" || expires(kind) {
			return true
		}
		s := f.Site(at.Site)
		return s != nil && s.Domain == at.Domain && enrolled[at] && (channel == "" || s.Placement(channel) != nil)
	})
}

// quiet is how long nothing of the kind may happen until an incident about
// something that somebody tried is over by itself.
const quiet = 24 * time.Hour

// expires reports whether an incident is about something that somebody tried.
func expires(kind Kind) bool {
	switch kind {
	case Forged, Revoked, Malformed, Denied, TokenBad, BadAsk, Protocol, Lost, NotCut, Inside:
		return true
	}
	return false
}

// expire ends those.
func (a *alarms) expire() {
	now := a.core.wall()
	a.mu.Lock()
	defer a.mu.Unlock()
	for m, last := range a.open {
		if kind := Kind(kindOfKey(m.key)); expires(kind) && now.Sub(last) > quiet {
			delete(a.open, m)
			a.queue(change{alarm: m, kind: kind, when: now})
		}
	}
}

// flush writes what is pending, in order; what fails stays.
func (a *alarms) flush(ctx context.Context) {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	a.mu.Lock()
	todo := a.pending
	a.pending = nil
	a.mu.Unlock()
	for i, c := range todo {
		if err := a.write(ctx, c); err != nil {
			a.mu.Lock()
			a.pending = append(todo[i:len(todo):len(todo)], a.pending...)
			a.mu.Unlock()
			return
		}
	}
}

func (a *alarms) write(ctx context.Context, c change) error {
	ev := Event{Domain: c.at.Domain, Site: c.at.Site, Text: string(c.kind) + ": " + c.text}
	if c.text == "" {
		gone, err := a.core.ledger.Leave(ctx, c.key, c.at.Domain, c.at.Site)
		if err == nil && gone {
			ev.Kind, ev.Text = IncidentOver, c.key
			a.core.say(ev)
		}
		return err
	}
	opened, err := a.core.ledger.OpenIncident(ctx, ledger.Problem{Key: c.key, Kind: string(c.kind), Scope: scopeOf(c.at), Text: c.text, Domain: c.at.Domain, Site: c.at.Site})
	if err == nil && opened && c.kind != Full {
		ev.Kind = IncidentOpened
		a.core.say(ev)
	}
	return err
}

// serve writes as soon as there is something to write.
func (a *alarms) serve(ctx context.Context) error {
	for {
		a.flush(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.wake:
		}
	}
}

// clip bounds a text that others wrote.
func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// ledgerFailed makes an incident of it.
func (c *Core) ledgerFailed(err error) {
	if errors.Is(err, ledger.ErrFull) {
		c.count.full.Store(true)
		c.alarms.raise(Full, "", wire.Address{}, err.Error()+"; sites keep what they report until then")
	} else if !errors.Is(err, context.Canceled) {
		c.count.faulty.Store(true)
		c.alarms.raise(Ledger, "", wire.Address{}, fmt.Sprintf("the ledger: %v; sites keep what they report until it works", err))
	}
	c.trouble("ledger", err)
}

func (c *Core) ledgerWorks() {
	if c.count.full.Swap(false) {
		c.alarms.over(Full, "", wire.Address{})
	}
	if c.count.faulty.Swap(false) {
		c.alarms.over(Ledger, "", wire.Address{})
	}
}
