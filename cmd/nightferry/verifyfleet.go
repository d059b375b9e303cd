package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/api"
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

// verifyFleet orders, and stays until those that are connected have answered.
func (g follower) verifyFleet(ctx context.Context, f *verifyFlags, v *fleetVerify) error {
	switch {
	case v.all && (f.subject.Site != "" || f.subject.Region != "" || f.subject.Domain != ""):
		return usage("verify", "--all goes with none of --site, --region and --domain")
	case f.sums != "" || f.strict || f.release != 0 || f.quick && v.full:
		return usage("verify", "of sites: --full, --repair, --channel and --no-follow, and no other")
	}
	a, err := v.client()
	if err != nil {
		return err
	}
	defer a.Close()
	r := api.VerifyRequest{Scope: api.Scope{Site: f.subject.Site, Region: f.subject.Region, Domain: f.subject.Domain, Channel: v.channel}, All: v.all, Full: v.full, Repair: f.repair}
	g.e.onInterrupt = sitesGoOn
	began := g.e.now()
	var away, bad []string
	var ended, different, contested int
	err = api.JobCalls{Client: a}.Verify(ctx, r, !v.detach, func(l *api.JobLine) error {
		g.noteJob(l)
		for _, o := range l.Orders {
			g.e.event("order", o)
			if o.Contested != "" {
				contested++
			}
			if !o.Connected {
				away = append(away, o.Site+"/"+o.Channel)
			}
		}
		if l.Orders != nil {
			g.e.summary("%s ordered to check", count(int64(len(l.Orders)), "channel"))
			if contested > 0 {
				g.e.summary("  %s contested: two machines use the identity of a site, so no result counts; nightferry why", count(int64(contested), "channel"))
			}
		}
		if ev := l.Event; ev != nil {
			g.e.event("site_"+string(ev.Kind), ev)
			if run := ev.Ended; run != nil {
				ended++
				g.showVerified(run)
				if run.State == "different" {
					different++
				} else if !endedWell(run) {
					bad = append(bad, run.Site+"/"+run.Channel)
				}
			} else {
				g.showEvent(ev)
			}
		}
		if x := l.Differs; x != nil {
			g.e.event("finding", x)
			if !g.e.json {
				g.e.print("  %-10s %s: %s", shown(string(x.Outcome)), shown(x.Path), oneLine(x.Why))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(away) > 0 {
		g.e.summary("away, and will check when they come back: %s", strings.Join(away, ", "))
	}
	if v.detach {
		return nil
	}
	g.e.event("result", struct {
		Ended     int      `json:"ended"`
		Different int      `json:"different"`
		Failed    []string `json:"failed"`
		Away      []string `json:"away"`
		Seconds   float64  `json:"seconds"`
	}{ended, different, append([]string{}, bad...), append([]string{}, away...), g.e.now().Sub(began).Seconds()})
	var errs []error
	if different > 0 {
		errs = append(errs, &foundError{count(int64(different), "channel") + " not as the release says; --repair fetches what differs"})
	}
	if len(bad) > 0 {
		errs = append(errs, &incompleteError{strings.Join(bad, ", ") + " did not end well", "nightferry why SITE CHANNEL shows the cause, and what to do"})
	} else if len(away) > 0 && different == 0 {
		errs = append(errs, &incompleteError{count(int64(len(away)), "channel") + " could not be checked: the site is away", "nightferry sites shows which are connected; the others check when they come back"})
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

func (g follower) showVerified(run *api.Run) {
	if g.e.json {
		return
	}
	t := run.Totals
	what := fmt.Sprintf("%s unchanged", group(t.Unchanged))
	switch {
	case run.State == "different" && t.Differs+t.Unchanged == 0:
		what = "nothing could be compared"
	case run.State == "different":
		what = fmt.Sprintf("%s, %s", unlike(t.Differs), what)
	case t.Repaired+t.Added+t.Changed > 0:
		what = fmt.Sprintf("%s repaired, %s fetched, %s", group(t.Repaired+t.Added+t.Changed), size(t.Fetched), what)
	}
	g.e.summary("%-16s %-10s release %s: %s: %s, %s", shown(run.Site), shown(run.Channel), group(int64(run.Number)), shown(string(run.State)), what, took(run.Finished.Sub(run.Started).Round(time.Millisecond)))
	if run.Cause != "" {
		g.e.summary("  %s", oneLine(run.Cause))
	}
}
