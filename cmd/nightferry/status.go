package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/core"
	"nightferry/internal/ledger"
)

func newStatus(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "status [flags]",
		short:   "Show the fleet in numbers",
		long:    "Shows how many sites there are, are connected and hold what they should, what runs, what is wrong, and the newest release of each channel. nightferry sites tells of each site.",
		example: "nightferry status\nnightferry status --config /srv/nightferry/nightferry.yaml --json",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.ask()
			if err != nil {
				return err
			}
			defer a.Close()
			var s core.Status
			if err := a.get(ctx, "/v1/status", nil, &s); err != nil {
				return err
			}
			e.event("status", s)
			e.showStatus(&s)
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func (e *env) showStatus(s *core.Status) {
	if e.json {
		return
	}
	e.print("Core       %s, revision %s, %s", shown(s.Version), group(int64(s.Revision)), stamp(s.At))
	if r := s.Rehearsal; r != nil {
		e.print("rehearsal  it is %s, and time runs %s times as fast", stamp(r.Time), group(r.Speed))
	}
	e.print("store      %s", shown(s.Store))
	e.print("sites      %s of %s current, %s connected, %s enrolled", group(int64(s.Current)), group(int64(s.Sites)), group(int64(s.Connected)), group(int64(s.Enrolled)))
	e.print("runs       %s under way", group(int64(s.Running)))
	e.print("incidents  %s open", group(int64(s.Incidents)))
	if s.Halts > 0 {
		e.print("halts      %s active: nightferry halt status", group(int64(s.Halts)))
	}
	t := table{head: []string{"CHANNEL", "RELEASE", "FILES", "SIZE", "PUBLISHED", "MEASURED"}, right: map[int]bool{1: true, 2: true, 3: true}, cut: []int{0}}
	for _, r := range s.Channels {
		var found *ledger.Measurement
		for i := range s.Measured {
			if s.Measured[i].Channel == r.Channel {
				found = &s.Measured[i]
			}
		}
		t.add(r.Channel, group(int64(r.Number)), group(r.Files), size(r.Bytes), minute(r.Published), measured(found))
	}
	if len(t.rows) > 0 {
		e.print("")
	}
	e.show(&t, "no channel has a release: nightferry publish CHANNEL")
}

func newSites(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	cmd := e.command(verb{
		use:     "sites [flags]",
		short:   "List the sites and what they hold",
		long:    "Lists every site with each of its channels: the release that it holds and the one that it should, whether it is current, and when it was last heard. Also as nightferry site list.",
		example: "nightferry sites\nnightferry sites --region ap --channel package",
		run:     func(ctx context.Context, _ []string) error { return e.sites(ctx, &f, &s) },
	})
	f.add(cmd)
	s.add(cmd, true)
	return cmd
}

func (e *env) sites(ctx context.Context, f *coreFlags, s *siteFlags) error {
	a, err := f.ask()
	if err != nil {
		return err
	}
	defer a.Close()
	var list []core.SiteStatus
	if err := a.get(ctx, "/v1/sites", s.query(), &list); err != nil {
		return err
	}
	t := table{head: []string{"SITE", "DOMAIN", "REGION", "CHANNEL", "HOLDS", "WANTS", "STATE", "HEARD"}, right: map[int]bool{4: true, 5: true}, cut: []int{0, 3, 1, 2}}
	for _, x := range list {
		e.event("site", x)
		heard := e.ago(x.Seen)
		switch {
		case x.Enrolled.IsZero():
			heard = "not enrolled"
		case x.Connected:
			heard = "connected"
		}
		for i, c := range x.Channels {
			state := c.State
			if p := c.Progress; p != nil && p.BytesTotal > 0 {
				state = fmt.Sprintf("%s %d %%", c.State, 100*p.BytesDone/p.BytesTotal)
			}
			if i == 0 {
				t.add(x.Site, x.Domain, x.Region, c.Channel, number(c.Holds), number(c.Wants), state, heard)
			} else {
				t.add("", "", "", c.Channel, number(c.Holds), number(c.Wants), state, "")
			}
		}
		if len(x.Channels) == 0 {
			t.add(x.Site, x.Domain, x.Region, "-", "-", "-", "-", heard)
		}
	}
	e.show(&t, "no such site: the configuration lists them")
	var notes measurements
	for _, x := range list {
		for _, c := range x.Channels {
			if c.Holds > 0 && !c.Verified.IsZero() {
				notes.add(c.Channel, c.Holds, c.Measured)
			}
		}
	}
	e.showMeasured(&notes)
	return nil
}

// measured says what the Core found when it read a release's source for itself.
func measured(m *ledger.Measurement) string {
	switch {
	case m == nil:
		return "not yet"
	case m.Damaged+m.Unreadable > 0:
		return group(m.Damaged+m.Unreadable) + " damaged"
	case m.Moved > 0:
		return movedOn(m)
	}
	return "same"
}

// movedOn says what people have done to a source since it was published.
func movedOn(m *ledger.Measurement) string {
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{m.New, "new"}, {m.Changed, "changed"}, {m.Gone, "gone"}} {
		if p.n > 0 {
			parts = append(parts, group(p.n)+" "+p.what)
		}
	}
	if len(parts) == 0 { // the run's record has been removed
		parts = append(parts, group(m.Moved)+" new, changed or gone")
	}
	return strings.Join(parts, ", ") + " since the publish"
}

// measurements are notes below a table: what sites' word on the releases that
// they hold was compared with, beside the releases themselves.
type measurements []string

func (n *measurements) add(channel string, release uint64, m *ledger.Measurement) {
	line := fmt.Sprintf("%s release %d, measured in the source: %s", shown(channel), release, measured(m))
	if !slices.Contains(*n, line) {
		*n = append(*n, line)
	}
}

func (e *env) showMeasured(n *measurements) {
	if e.json || e.quiet {
		return
	}
	for _, line := range *n {
		e.print("%s", line)
	}
}

// number writes a release's number, or a dash for none.
func number(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func newIncidents(e *env) *cobra.Command {
	var f coreFlags
	var all bool
	cmd := e.command(verb{
		use:     "incidents [flags]",
		short:   "List what is wrong in the fleet",
		long:    "Lists the open incidents, the newest first: each problem once, however many sites share it. docs/operations.md tells what each kind means and what to do.",
		example: "nightferry incidents\nnightferry incidents --all --json",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.ask()
			if err != nil {
				return err
			}
			defer a.Close()
			var list []core.Incident
			q := (&siteFlags{}).query()
			q.Set("all", strconv.FormatBool(all))
			if err := a.get(ctx, "/v1/incidents", q, &list); err != nil {
				return err
			}
			for _, x := range list {
				e.event("incident", x)
				e.showIncident(&x)
			}
			if len(list) == 0 {
				e.summary("no incident is open")
			}
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	cmd.AddCommand(newIncidentsClose(e), newIncidentsAck(e))
	return cmd
}

func newAudit(e *env) *cobra.Command {
	var f coreFlags
	var p pastFlags
	var who, what string
	cmd := e.command(verb{
		use:     "audit [flags]",
		short:   "List who did what",
		long:    "Lists the audit, the newest first: every order, refusal, reload and access to the vault, with the account that asked. Nothing changes it, and nothing removes what is younger than 90 days.",
		example: "nightferry audit --since 1d\nnightferry audit --what 'vault get' --json",
		run: func(ctx context.Context, _ []string) error {
			q, err := p.query(e.now())
			if err != nil {
				return err
			}
			q.Set("who", who)
			q.Set("what", what)
			a, err := f.ask()
			if err != nil {
				return err
			}
			defer a.Close()
			var list []ledger.Deed
			if err := a.get(ctx, "/v1/audit", q, &list); err != nil {
				return err
			}
			t := table{head: []string{"WHEN", "WHO", "WHAT", "OBJECT", "DETAIL"}, cut: []int{4, 3, 1}}
			for _, d := range list {
				e.event("deed", d)
				t.add(minute(d.At), d.Who, d.What, d.Object, d.Detail)
			}
			e.show(&t, "nothing was done")
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&p.since, "since", "", "only what was done after `TIME`: 2d ago, or 2026-01-31")
	cmd.Flags().StringVar(&p.until, "until", "", "only what was done before `TIME`")
	cmd.Flags().IntVar(&p.limit, "limit", 100, "at most the newest `N`")
	cmd.Flags().StringVar(&who, "who", "", "only by this `ACCOUNT`")
	cmd.Flags().StringVar(&what, "what", "", "only this `DEED`")
	return cmd
}
