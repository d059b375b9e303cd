package main

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
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
	e.summary("order %d is given to %s; lift it with: nightferry resume %d", done.Epoch, count(int64(done.Sites), "site"), done.Epoch)
	end := time.NewTimer(haltPatience)
	defer end.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var list []core.HaltView
		if err := a.get(ctx, "/v1/halts", nil, &list); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(v core.HaltView) bool { return v.Order != done.Epoch })
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
	if len(done.Orders) == 0 {
		e.summary("what only sites knew of is lifted")
	}
	return nil
}

func (e *env) changedHalts(event string, done *core.HaltChange) {
	e.event(event, done)
	if done.Store != "" {
		e.summary("the store does not have it yet, which is tried again: %s", shown(done.Store))
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
			e.print("%s has stopped itself, by %s at %s: %s", what, shown(v.By), stamp(v.At), shown(v.Reason))
		} else {
			e.print("order %d: stop %s, by %s at %s: %s", v.Order, what, shown(v.By), stamp(v.At), shown(v.Reason))
		}
		if !v.Resumed.IsZero() {
			e.print("  lifted by %s at %s", shown(v.ResumedBy), stamp(v.Resumed))
		}
		for _, s := range v.Sites {
			switch {
			case !s.Stopped.IsZero():
				e.print("  %-20s stopped at %s, %s after the order had come", shown(s.Site), s.Stopped.Local().Format("2006-01-02 15:04:05.000 MST"), size(s.BytesAfter))
			case s.Connected:
				e.print("  %-20s HAS NOT CONFIRMED", shown(s.Site))
			default:
				e.print("  %-20s HAS NOT CONFIRMED, and is away: if it moves content it reads the order from the store", shown(s.Site))
			}
		}
	}
}
