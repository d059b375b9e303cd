package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

const (
	// followLook is how often a client that follows orders looks at the ledger,
	// so that a lost event delays it and does not stop it.
	followLook = 2 * time.Second
	// followSilence is how long an order may show nothing before the client is
	// told why.
	followSilence = 5 * time.Second
)

// NotStarted is the kind of event that says why an ordered run has not started.
const NotStarted EventKind = "not_started"

// awaited is one order whose run is awaited.
type awaited struct {
	Order
	run string // the run that obeys, once it has started
	why string // last reason sent
}

// follower sends the events of the runs that obey orders, until each has ended.
// It takes events as they come, and looks for what it missed.
type follower struct {
	open   map[[2]string]*awaited // by site and channel
	events <-chan Event
	last   func(context.Context, *awaited) (*ledger.Run, error) // newest run, or nil
	why    func(context.Context, *awaited) string
	halted func(*awaited) *halt.Order // the halt order that stops a run, or nil
	send   func(Event) error
	err    error // why a run is not awaited: *halt.Error or *ContestedError

	contested func(*awaited) string // names the two machines that use the site's identity; empty: one does
}

// ContestedError means that an ordered run proves nothing, because two machines use the identity of its site.
type ContestedError struct {
	Site string
	Text string // names the two machines
}

func (e *ContestedError) Error() string {
	return fmt.Sprintf("the identity of site %s is contested: %s", e.Site, e.Text)
}

// Remedy tells how to settle it.
func (e *ContestedError) Remedy() string {
	return kinds.ForSite(kinds.Remedy(kinds.Cloned, ""), e.Site, "")
}

// Follow calls order, which gives orders to the sites of a scope, passes
// them to ordered, and sends the events of the runs of connected sites that obey
// until each has ended. After some seconds without a start it sends why. A run
// that a halt order stops is not awaited: the result is a *halt.Error then. Nor is a run of a contested site, whose
// reports prove nothing: the result is a *ContestedError then.
func (q *Orders) Follow(ctx context.Context, scope fleet.Scope, order func() ([]Order, error), ordered func([]Order) error, send func(Event) error) error {
	before, err := q.query.LastRuns(ctx, scope)
	if err != nil {
		return err
	}
	events, stop := q.notices.subscribeEvents()
	defer stop()
	orders, err := order()
	if err != nil {
		return err
	}
	for i := range orders {
		o := &orders[i]
		if run := before[query.Row{Address: wire.Address{Domain: o.Domain, Site: o.Site}, Channel: o.Channel}]; run != nil {
			o.before = run.ID.String()
		}
	}
	if err := ordered(append([]Order{}, orders...)); err != nil {
		return err
	}
	f := follower{open: map[[2]string]*awaited{}, events: events, send: send, last: q.newestRun, why: q.whyWaiting, halted: q.haltOf,
		contested: func(x *awaited) string { return q.fleet.contestOf(wire.Address{Domain: x.Domain, Site: x.Site}) }}
	for _, o := range orders {
		if !o.Connected && o.Contested == "" || o.Number == 0 {
			continue
		}
		f.open[[2]string{o.Site, o.Channel}] = &awaited{Order: o}
	}
	look := time.NewTicker(followLook)
	defer look.Stop()
	silent := time.NewTicker(followSilence)
	defer silent.Stop()
	return f.runFollow(ctx, look.C, silent.C)
}

func (f *follower) runFollow(ctx context.Context, look, silent <-chan time.Time) error {
	if err := f.dropVain(); err != nil {
		return err
	}
	for len(f.open) > 0 {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case ev := <-f.events:
			err = f.handleEvent(ev)
		case <-look:
			err = f.readMissed(ctx)
		case <-silent:
			err = f.sendReasons(ctx)
		}
		if err != nil {
			return err
		}
	}
	return f.err
}

// dropVain ends the wait for runs that a halt order keeps from starting, and for those of contested sites.
func (f *follower) dropVain() error {
	for k, x := range f.open {
		if dropped, err := f.dropContested(k, x); err != nil || dropped {
			if err != nil {
				return err
			}
			continue
		}
		o := f.halted(x)
		if o == nil || x.run != "" {
			continue
		}
		delete(f.open, k)
		stopped := &halt.Error{Order: *o}
		f.fail(stopped)
		if err := f.send(Event{Kind: NotStarted, Domain: x.Domain, Site: x.Site, Channel: x.Channel, Text: stopped.Error()}); err != nil {
			return err
		}
	}
	return nil
}

// dropContested ends the wait for a run if its site is contested, and reports whether it is.
func (f *follower) dropContested(k [2]string, x *awaited) (bool, error) {
	text := f.contested(x)
	if text == "" {
		return false, nil
	}
	delete(f.open, k)
	f.fail(&ContestedError{x.Site, text})
	if x.run != "" {
		return true, nil
	}
	return true, f.send(Event{Kind: NotStarted, Domain: x.Domain, Site: x.Site, Channel: x.Channel, Text: "contested: " + text})
}

// fail keeps why a run is not awaited. That a site is contested is more important than a halt order.
func (f *follower) fail(err error) {
	if _, contested := f.err.(*ContestedError); !contested {
		f.err = err
	}
}

// handleEvent sends an event of an awaited channel. A run that was under way before
// the order does not count: it ends without having started here.
func (f *follower) handleEvent(ev Event) error {
	k := [2]string{ev.Site, ev.Channel}
	x, ok := f.open[k]
	if !ok {
		return nil
	}
	switch {
	case ev.Kind == RunStarted && ev.Run != x.run && ev.Run != x.before:
		x.run = ev.Run
	case ev.Kind == RunProgressed: // also of a run that must end first, so that its cause is seen
	case ev.Kind == RunEnded && ev.Run == x.run && x.run != "":
		if dropped, err := f.dropContested(k, x); dropped {
			return err // its end is not shown, as it proves nothing
		}
		delete(f.open, k)
		if o := f.halted(x); o != nil && ev.Ended != nil && ev.Ended.State == runs.Stopped {
			f.fail(&halt.Error{Order: *o})
		}
	default:
		return nil
	}
	return f.send(ev)
}

// readMissed finds in the ledger what events did not bring.
func (f *follower) readMissed(ctx context.Context) error {
	for _, x := range f.open {
		run, err := f.last(ctx, x)
		if err != nil {
			return err
		}
		if run == nil || run.ID.String() == x.before {
			continue
		}
		ev := Event{At: run.Started, Kind: RunStarted, Domain: run.Domain, Site: run.Site, Channel: run.Channel, Run: run.ID.String()}
		if x.run != ev.Run {
			if err := f.handleEvent(ev); err != nil {
				return err
			}
		}
		if !run.Finished.IsZero() {
			ev.Kind, ev.At, ev.Text, ev.Ended = RunEnded, run.Finished, string(run.State), run
			if err := f.handleEvent(ev); err != nil {
				return err
			}
		}
	}
	return f.dropVain()
}

// sendReasons sends why nothing has started, once for each reason.
func (f *follower) sendReasons(ctx context.Context) error {
	for _, x := range f.open {
		if x.run != "" {
			continue
		}
		why := f.why(ctx, x)
		if why == "" || why == x.why {
			continue
		}
		x.why = why
		if err := f.send(Event{Kind: NotStarted, Domain: x.Domain, Site: x.Site, Channel: x.Channel, Text: why}); err != nil {
			return err
		}
	}
	return nil
}

func (q *Orders) newestRun(ctx context.Context, x *awaited) (*ledger.Run, error) {
	list, err := q.ledger.Runs(ctx, ledger.RunFilter{Domain: x.Domain, Site: x.Site, Channel: x.Channel, Limit: 1})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// haltOf returns the halt order that keeps an ordered run from starting, or nil.
func (q *Orders) haltOf(x *awaited) *halt.Order {
	sites, err := q.settings.Load().Fleet.Select(fleet.Scope{Domain: x.Domain, Site: x.Site})
	if err != nil || len(sites) == 0 {
		return nil // taken out of the configuration since
	}
	return q.query.OrderFor(&sites[0], x.Channel)
}

// whyWaiting names in a line why an ordered run has not started.
func (q *Orders) whyWaiting(ctx context.Context, x *awaited) string {
	sites, err := q.query.Sites(ctx, fleet.Scope{Site: x.Site, Channel: x.Channel})
	if err != nil || len(sites) == 0 || len(sites[0].Channels) == 0 {
		return "the configuration does not give the site this channel any more"
	}
	ch := &sites[0].Channels[0]
	for _, r := range ch.Reasons {
		if ch.Waiting != nil && r.Cause == ch.Waiting.String() {
			return r.Cause // it holds the short form, too
		}
		if r.Cause != "" && r.What != "due" {
			return r.What + ": " + r.Cause
		}
	}
	if ch.Waiting != nil {
		return ch.Waiting.String()
	}
	if ch.State == query.Running && ch.Run == x.before {
		return "the run that was under way must end first"
	}
	return "the agent has not reported a start"
}
