package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
)

// fleetVerify is verify of sites, by way of their Core.
type fleetVerify struct {
	coreFlags
	channel   string
	all, full bool
	detach    bool
}

// given reports whether sites are meant, not a folder.
func (v *fleetVerify) given(f *verifyFlags) bool {
	return v.all || f.subject.Site != "" || f.subject.Region != "" || f.subject.Domain != ""
}

// differing is a path that a site found not to be as its release says.
type differing struct {
	Site    string `json:"site"`
	Channel string `json:"channel"`
	Run     string `json:"run"`
	Path    string `json:"path"`
	Outcome string `json:"outcome"` // differs, repaired, locked or failed
	Why     string `json:"why"`     // the problem, one word, and its detail
}

// verifyLine is what the Core tells while sites check.
type verifyLine struct {
	syncLine
	Differs *differing `json:"differs,omitempty"`
}

func (d *daemon) verify(ctx context.Context, c *api.Call) (any, error) {
	var r core.VerifyRequest
	if err := c.Read(&r); err != nil {
		return nil, err
	}
	order := func() ([]core.Order, error) { return d.core.Orders.Verify(ctx, r) }
	if !c.Flag("follow") {
		orders, err := order()
		if err != nil {
			return nil, err
		}
		return nil, c.Send(verifyLine{syncLine: syncLine{Orders: append([]core.Order{}, orders...)}})
	}
	return nil, d.core.Orders.Follow(ctx, r.Scope, order,
		func(orders []core.Order) error { return c.Send(verifyLine{syncLine: syncLine{Orders: orders}}) },
		func(ev core.Event) error {
			if err := c.Send(verifyLine{syncLine: syncLine{Event: &ev}}); err != nil || ev.Ended == nil {
				return err
			}
			return d.core.Query.RunShow(ctx, ev.Run, false, func(query.RunDetail) error { return nil }, func(f record.File) error {
				switch f.Outcome {
				case "differs", "repaired", "locked", "failed":
					return c.Send(verifyLine{Differs: &differing{ev.Site, ev.Channel, ev.Run, f.Path, f.Outcome, f.Cause}})
				}
				return nil
			})
		})
}

// verifyFleet orders, and stays until those that are connected have answered.
func (e *env) verifyFleet(ctx context.Context, f *verifyFlags, v *fleetVerify) error {
	switch {
	case v.all && (f.subject.Site != "" || f.subject.Region != "" || f.subject.Domain != ""):
		return usage("verify", "--all goes with none of --site, --region and --domain")
	case f.sums != "" || f.strict || f.release != 0 || f.quick && v.full:
		return usage("verify", "of sites: --full, --repair, --channel and --no-follow, and no other")
	}
	a, err := v.ask()
	if err != nil {
		return err
	}
	defer a.Close()
	r := core.VerifyRequest{Scope: fleet.Scope{Site: f.subject.Site, Region: f.subject.Region, Domain: f.subject.Domain, Channel: v.channel}, Full: v.full, Repair: f.repair}
	q := url.Values{}
	if !v.detach {
		q.Set("follow", "true")
	}
	e.onInterrupt = sitesGoOn
	began := e.now()
	var away, bad []string
	var ended, different int
	err = a.stream(ctx, http.MethodPost, "/v1/verify", q, r, func(raw json.RawMessage) error {
		var l verifyLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		for _, o := range l.Orders {
			e.event("order", o)
			if !o.Connected {
				away = append(away, o.Site+"/"+o.Channel)
			}
		}
		if l.Orders != nil {
			e.summary("%s ordered to check", count(int64(len(l.Orders)), "channel"))
		}
		if ev := l.Event; ev != nil {
			e.event("site_"+string(ev.Kind), ev)
			if run := ev.Ended; run != nil {
				ended++
				e.showVerified(run)
				if run.State == "different" {
					different++
				} else if !endedWell(run) {
					bad = append(bad, run.Site+"/"+run.Channel)
				}
			} else {
				e.showEvent(ev)
			}
		}
		if x := l.Differs; x != nil {
			e.event("finding", x)
			if !e.json {
				e.print("  %-10s %s: %s", shown(x.Outcome), shown(x.Path), said(x.Why))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(away) > 0 {
		e.summary("away, and will check when they come back: %s", strings.Join(away, ", "))
	}
	if v.detach {
		return nil
	}
	e.event("result", struct {
		Ended     int      `json:"ended"`
		Different int      `json:"different"`
		Failed    []string `json:"failed"`
		Away      []string `json:"away"`
		Seconds   float64  `json:"seconds"`
	}{ended, different, append([]string{}, bad...), append([]string{}, away...), e.now().Sub(began).Seconds()})
	var errs []error
	if different > 0 {
		errs = append(errs, &foundError{count(int64(different), "channel") + " not as the release says; --repair fetches what differs"})
	}
	if len(bad) > 0 {
		errs = append(errs, &incompleteError{strings.Join(bad, ", ") + " did not end well", "nightferry run show tells why"})
	} else if len(away) > 0 && different == 0 {
		errs = append(errs, &incompleteError{count(int64(len(away)), "channel") + " could not be checked: the site is away", "nightferry sites tells which are connected; they check when they come back"})
	}
	return errors.Join(errs...)
}

// unlike says of how many paths it is that they are not as they should be.
func unlike(paths int64) string {
	if paths == 1 {
		return "1 path differs"
	}
	return count(paths, "path") + " differ"
}

func (e *env) showVerified(run *ledger.Run) {
	if e.json {
		return
	}
	t := run.Totals
	what := fmt.Sprintf("%s unchanged", group(t.Unchanged))
	switch {
	case run.State == "different":
		what = fmt.Sprintf("%s, %s", unlike(t.Differs), what)
	case t.Repaired+t.Added+t.Changed > 0:
		what = fmt.Sprintf("%s repaired, %s fetched, %s", group(t.Repaired+t.Added+t.Changed), size(t.Fetched), what)
	}
	e.summary("%-16s %-10s release %s: %s: %s, %s", shown(run.Site), shown(run.Channel), group(int64(run.Number)), shown(string(run.State)), what, took(run.Finished.Sub(run.Started).Round(time.Millisecond)))
	if run.Cause != "" {
		e.summary("  %s", said(run.Cause))
	}
}
