package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/clock"
	"nightferry/internal/halt"
)

const (
	// haltPatience is how long halt waits, from its start on, for sites to confirm
	// and for the store, before it shows which have not.
	haltPatience = time.Second
)

// haltVerbs holds the commands of the kill switch.
type haltVerbs struct{ e *env }

// unheardError is a kill switch that the Core does not carry out: it is not
// running, or it hangs.
type unheardError struct{ error }

func (e unheardError) Error() string {
	return e.error.Error() + ": nothing was ordered, and this Core will not carry it out later"
}

func (e unheardError) Unwrap() error { return e.error }

// Remedy names the two ways that work without the Core.
func (e unheardError) Remedy() string {
	return "nightferry halt --all --release-key FILE STORE orders it in the store, which sites read within 25 s while they move content (FILE is the on-call key: docs/operations.md, \"The Core is gone\"); nightferry-agent halt, on a site, stops that site at once"
}

func haltWays(err error) error {
	if errors.Is(err, api.ErrDown) || errors.Is(err, api.ErrSilent) {
		return unheardError{err}
	}
	return err
}

// orderOf takes an argument that is the beginning of an id as an order's. A
// store is a URL or a path, and a path of hexadecimal digits alone needs a ./
// before it.
func orderOf(id string, args []string) (string, []string, error) {
	named := id != ""
	if len(args) > 0 && halt.IsPrefix(args[0]) {
		if named {
			return "", nil, usage("resume", "name one order")
		}
		id, args = args[0], args[1:]
	}
	if len(args) > 1 {
		return "", nil, usage("resume", "%q and %q: want an order's id and a store", args[0], args[1])
	}
	if len(args) == 1 && !strings.Contains(args[0], "://") {
		if absent, err := confirmAbsent(args[0]); err == nil && absent {
			return "", nil, &absentError{fmt.Sprintf("%q is neither the id of an order nor a store", args[0]), fmt.Sprintf("nightferry halt status lists the orders; %d or more hexadecimal digits of an id name one", halt.MinPrefix)}
		}
	}
	if named && !halt.IsPrefix(id) {
		return "", nil, usage("resume", "--order %q: want the first %d or more hexadecimal digits of an order's id", id, halt.MinPrefix)
	}
	return id, args, nil
}

// haltFleet orders, and waits a little for the proof.
func (g haltVerbs) haltFleet(ctx context.Context, f *coreFlags, scope, value, reason string) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	began := g.e.now()
	done, err := a.Halt(ctx, api.HaltRequest{Scope: scope, Value: value, Reason: reason, Until: began.Add(api.KillSwitchTime)})
	if err != nil {
		return haltWays(err)
	}
	g.changedHalts("halted", &done)
	if len(done.Orders) != 1 {
		return fmt.Errorf("halt: the Core answers with %d orders: is it of another version?", len(done.Orders))
	}
	order := done.Orders[0]
	g.e.summary("order %s is given to %s; lift it with: nightferry resume %s", order.Short(), count(int64(done.Sites), "site"), order.Short())
	end := time.NewTimer(max(0, haltPatience-g.e.now().Sub(began)))
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := a.Halts(ctx, false)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(v api.Halt) bool { return v.Order != order })
		waits := false
		for _, v := range list {
			waits = waits || slices.ContainsFunc(v.Sites, func(s api.HaltSite) bool { return s.Connected && s.Stopped.IsZero() && s.Contested == "" })
		}
		if !waits {
			g.showHaltViews(list)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end.C:
			g.showHaltViews(list)
			return nil
		case <-tick.C:
		}
	}
}

func (g haltVerbs) resumeFleet(ctx context.Context, f *coreFlags, r api.ResumeRequest) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	done, err := a.Resume(ctx, r)
	if err != nil {
		return err
	}
	g.changedHalts("resumed", &done)
	for _, id := range done.Orders {
		g.e.summary("order %s is lifted", id.Short())
	}
	return nil
}

func (g haltVerbs) changedHalts(event string, done *api.HaltChange) {
	g.e.event(event, done)
	if done.Store != "" {
		g.e.summary("the store does not have it yet, which is tried again: %s", oneLine(done.Store))
	}
}

func (g haltVerbs) haltStatus(ctx context.Context, f *coreFlags, all bool) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	list, err := a.Halts(ctx, all)
	if err != nil {
		return err
	}
	if len(list) == 0 && !g.e.json {
		g.e.print("no order to stop is active")
	}
	g.showHaltViews(list)
	s, err := a.Status(ctx)
	if err != nil {
		return err
	}
	if s.Unread != "" {
		g.e.warn("not known: halt orders in the store%s: %s", since(s.StoreRead), oneLine(s.Unread))
	}
	return nil
}

// showHaltViews tells of each order what it says, and who obeys it; those who
// do not, first.
func (g haltVerbs) showHaltViews(list []api.Halt) {
	for _, v := range list {
		g.e.event("halt", v)
		if g.e.json {
			continue
		}
		what := v.Scope
		if v.Scope != halt.All {
			what += " " + shown(v.Value)
		}
		if v.Order.IsZero() {
			g.e.print("%s has stopped itself; it is resumed there", what)
		} else {
			g.e.print("order %s: stop %s", v.Order.Short(), what)
		}
		g.e.print("  given %s by %s", stamp(v.At), shown(v.By))
		for l := range strings.Lines(wrap(shown(v.Reason), 76)) {
			g.e.print("  %s", strings.TrimSuffix(l, "\n"))
		}
		if !v.Resumed.IsZero() {
			g.e.print("  lifted %s by %s", stamp(v.Resumed), shown(v.ResumedBy))
		}
		if v.Unstored {
			g.e.print("  NOT IN THE STORE YET, which is tried again: a site that cannot reach the")
			g.e.print("  Core does not know of it")
		}
		if len(v.Sites) == 0 {
			g.e.print("  it is for no site that is configured")
			continue
		}
		t := table{head: []string{"  SITE", "STOPPED AT", "ERROR, TIME AND BYTES AFTER THE ORDER"}, cut: []int{0}}
		stopped, notes := 0, []string(nil)
		slices.SortStableFunc(v.Sites, func(a, b api.HaltSite) int { return cmp.Compare(proofOf(a), proofOf(b)) })
		for _, s := range v.Sites {
			switch proofOf(s) {
			case hasStopped:
				stopped++
				after := "± not known, " + size(s.BytesAfter)
				if s.Error != nil && s.Within != nil {
					after = fmt.Sprintf("± %.1f s, at most %.1f s, %s", roundUp(*s.Error), roundUp(*s.Within), size(s.BytesAfter))
				}
				t.add("  "+s.Site, s.Stopped.UTC().Format("2006-01-02 15:04:05.000Z"), after)
			case noAgent:
				t.add("  "+s.Site, "NOT ENROLLED", "no agent of this site can move anything")
			case mayMove:
				t.add("  "+s.Site, "NOT PROVEN", fmt.Sprintf("its agent of domain %s may move until %s", shown(s.FormerDomain), minute(s.MovesUntil)))
			case contested:
				t.add("  "+s.Site, "NOT PROVEN", "two machines use its identity: nightferry why "+shown(s.Site))
			case away:
				t.add("  "+s.Site, "HAS NOT CONFIRMED", "away: reads the store if it moves")
			default:
				t.add("  "+s.Site, "HAS NOT CONFIRMED", "")
			}
			if !s.NewSince.IsZero() {
				notes = append(notes, fmt.Sprintf("%s: confirmed by the process of %s; another process of this identity has connected since, on %s, and has not confirmed", shown(s.Site), stamp(s.Confirmed), stamp(s.NewSince)))
			}
		}
		g.e.print("  %d of %s confirmed", stopped, count(int64(len(v.Sites)), "site"))
		for _, l := range t.lines(g.e.width()) {
			g.e.print("%s", l)
		}
		for _, n := range notes {
			g.e.print("%s", indent(wrap(n, lineWidth-2)))
		}
	}
}

// roundUp returns tenths of a second that are not less than d.
func roundUp(d clock.Seconds) float64 {
	return math.Ceil(time.Duration(d).Seconds()*10) / 10
}

// proof is the known state of a site under an order. Sites with the least proof come first.
type proof int

const (
	unconfirmed proof = iota // connected, and has not confirmed
	away                     // not connected, and has not confirmed
	contested                // two machines use its identity, and either may move content
	mayMove                  // an agent without a valid identity may still move content
	hasStopped               // has confirmed
	noAgent                  // no agent has, or had lately, an identity
)

func proofOf(s api.HaltSite) proof {
	switch {
	case !s.Enrolled && !s.MovesUntil.IsZero():
		return mayMove
	case !s.Enrolled:
		return noAgent
	case s.Contested != "":
		return contested
	case !s.Stopped.IsZero():
		return hasStopped
	case s.Connected:
		return unconfirmed
	}
	return away
}
