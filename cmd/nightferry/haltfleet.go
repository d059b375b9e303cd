package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/halt"
)

// haltPatience is how long halt waits for sites to confirm, before it tells
// which have not.
const haltPatience = 3 * time.Second

// resumeRequest lifts one order, or those of a scope.
type resumeRequest struct {
	Order uint64 `json:"order,omitempty"`
	Scope string `json:"scope,omitempty"`
	Value string `json:"value,omitempty"`
}

func (d *daemon) halt(ctx context.Context, c *api.Call) (any, error) {
	var r core.HaltRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	return d.core.Halt(ctx, r)
}

func (d *daemon) resume(ctx context.Context, c *api.Call) (any, error) {
	var r resumeRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	done, err := d.core.Resume(ctx, r.Order, r.Scope, r.Value)
	if errors.Is(err, core.ErrNoOrder) {
		return nil, &absentError{"no such order is active", "nightferry halt status lists those that are; one that was given on a site is lifted there: nightferry-agent resume"}
	}
	return done, err
}

// orderOf takes an argument that is a number as an order's.
func orderOf(id uint64, args []string) (uint64, []string, error) {
	if len(args) == 0 {
		return id, args, nil
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return id, args, nil
	}
	if id != 0 || n == 0 {
		return 0, nil, usage("resume", "name one order, numbered from 1")
	}
	return n, nil, nil
}

// haltFleet orders, and waits a little for the proof.
func (e *env) haltFleet(ctx context.Context, f *coreFlags, scope, value, reason string) error {
	a, err := f.ask()
	if err != nil {
		return err
	}
	defer a.Close()
	var done core.HaltChange
	if err := a.post(ctx, "/v1/halt", core.HaltRequest{Scope: scope, Value: value, Reason: reason}, &done); err != nil {
		return err
	}
	e.changedHalts("halted", &done)
	if len(done.Orders) != 1 {
		return fmt.Errorf("halt: the Core answers with %d orders: is it of another version?", len(done.Orders))
	}
	order := done.Orders[0]
	e.summary("order %d is given to %s; lift it with: nightferry resume %d", order, count(int64(done.Sites), "site"), order)
	end := time.NewTimer(haltPatience)
	defer end.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var list []core.HaltView
		if err := a.get(ctx, "/v1/halts", nil, &list); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(v core.HaltView) bool { return v.Order != order })
		waits := false
		for _, v := range list {
			waits = waits || slices.ContainsFunc(v.Sites, func(s core.HaltSite) bool { return s.Connected && s.Stopped.IsZero() })
		}
		if !waits {
			e.showHaltViews(list)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end.C:
			e.showHaltViews(list)
			return nil
		case <-tick.C:
		}
	}
}

func (e *env) resumeFleet(ctx context.Context, f *coreFlags, r resumeRequest) error {
	a, err := f.ask()
	if err != nil {
		return err
	}
	defer a.Close()
	var done core.HaltChange
	if err := a.post(ctx, "/v1/resume", r, &done); err != nil {
		return err
	}
	e.changedHalts("resumed", &done)
	for _, id := range done.Orders {
		e.summary("order %d is lifted", id)
	}
	return nil
}

func (e *env) changedHalts(event string, done *core.HaltChange) {
	e.event(event, done)
	if done.Store != "" {
		e.summary("the store does not have it yet, which is tried again: %s", said(done.Store))
	}
}

func (e *env) haltStatus(ctx context.Context, f *coreFlags, all bool) error {
	a, err := f.ask()
	if err != nil {
		return err
	}
	defer a.Close()
	q := url.Values{}
	if all {
		q.Set("all", "true")
	}
	var list []core.HaltView
	if err := a.get(ctx, "/v1/halts", q, &list); err != nil {
		return err
	}
	if len(list) == 0 && !e.json {
		e.print("no order to stop is active")
	}
	e.showHaltViews(list)
	return nil
}

// showHaltViews tells of each order what it says, and who obeys it; those who
// do not, first.
func (e *env) showHaltViews(list []core.HaltView) {
	for _, v := range list {
		e.event("halt", v)
		if e.json {
			continue
		}
		what := v.Scope
		if v.Scope != halt.All {
			what += " " + shown(v.Value)
		}
		if v.Order == 0 {
			e.print("%s has stopped itself; it is resumed there", what)
		} else {
			e.print("order %d: stop %s", v.Order, what)
		}
		e.print("  given %s by %s", stamp(v.At), shown(v.By))
		for l := range strings.Lines(wrap(shown(v.Reason), 76)) {
			e.print("  %s", strings.TrimSuffix(l, "\n"))
		}
		if !v.Resumed.IsZero() {
			e.print("  lifted %s by %s", stamp(v.Resumed), shown(v.ResumedBy))
		}
		if v.Unstored {
			e.print("  NOT IN THE STORE YET, which is tried again: a site that cannot hear the")
			e.print("  Core does not know of it")
		}
		if len(v.Sites) == 0 {
			e.print("  it is for no site that is configured")
			continue
		}
		t := table{head: []string{"  SITE", "STOPPED AT", "AFTER THE ORDER CAME"}, cut: []int{0}}
		stopped := 0
		slices.SortStableFunc(v.Sites, func(a, b core.HaltSite) int { return cmp.Compare(confirms(a), confirms(b)) })
		for _, s := range v.Sites {
			switch confirms(s) {
			case 2:
				stopped++
				t.add("  "+s.Site, s.Stopped.UTC().Format("2006-01-02 15:04:05.000Z"), size(s.BytesAfter))
			case 1:
				t.add("  "+s.Site, "HAS NOT CONFIRMED", "away: reads the store if it moves")
			default:
				t.add("  "+s.Site, "HAS NOT CONFIRMED", "")
			}
		}
		e.print("  %d of %s confirmed", stopped, count(int64(len(v.Sites)), "site"))
		for _, l := range t.lines(e.width()) {
			e.print("%s", l)
		}
	}
}

// confirms is 0 for a site that is connected and has not confirmed, 1 for one
// that is away, 2 for one that has.
func confirms(s core.HaltSite) int {
	switch {
	case !s.Stopped.IsZero():
		return 2
	case s.Connected:
		return 0
	}
	return 1
}
