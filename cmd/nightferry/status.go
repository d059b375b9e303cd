package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/query"
	"nightferry/internal/trust"
)

// fleetViews shows the fleet: its status, sites, reasons, incidents and forecasts.
type fleetViews struct{ e *env }

func newStatus(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "status [flags]",
		short:   "Show the fleet in numbers",
		long:    "Shows how many sites are configured, connected and current, how many runs are under way, how many incidents are open, and the newest release of each channel. nightferry sites lists each site.",
		example: "nightferry status\nnightferry status --config /srv/nightferry/nightferry.yaml --json",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			s, err := a.Status(ctx)
			if err != nil {
				return err
			}
			e.event("status", s)
			fleetViews{e}.showStatus(&s)
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func (g fleetViews) showStatus(s *api.Status) {
	if g.e.json {
		return
	}
	g.e.print("Core       %s, revision %s, %s", shown(s.Version), group(int64(s.Revision)), stamp(s.At))
	if r := s.Rehearsal; r != nil {
		g.e.print("rehearsal  it is %s, and time runs %s times as fast", stamp(r.Time), group(r.Speed))
	}
	g.e.print("store      %s", shown(s.Store))
	g.e.print("sites      %s of %s current, %s connected, %s enrolled", group(int64(s.Current)), group(int64(s.Sites)), group(int64(s.Connected)), group(int64(s.Enrolled)))
	g.e.print("runs       %s under way", group(int64(s.Running)))
	g.e.print("incidents  %s open", group(int64(s.Incidents)))
	if s.Unread != "" {
		g.e.print("not known  halt orders and releases in the store%s: %s", since(s.StoreRead), oneLine(s.Unread))
	}
	if s.Halts > 0 {
		g.e.print("halts      %s active: nightferry halt status", group(int64(s.Halts)))
	}
	t := table{head: []string{"CHANNEL", "RELEASE", "FILES", "SIZE", "PUBLISHED", "MEASURED"}, right: map[int]bool{1: true, 2: true, 3: true}, cut: []int{0}}
	for _, r := range s.Channels {
		var found *api.Measurement
		for i := range s.Measured {
			if s.Measured[i].Channel == r.Channel {
				found = &s.Measured[i]
			}
		}
		t.add(r.Channel, group(int64(r.Number)), group(r.Files), size(r.Bytes), minute(r.Published), measured(found))
	}
	if len(t.rows) > 0 {
		g.e.print("")
	}
	g.e.show(&t, "no channel has a release: nightferry publish CHANNEL")
}

// sitesFlags choose what of the sites is listed.
type sitesFlags struct {
	siteFlags
	states   []string
	problems bool
	watch    bool
}

func (f *sitesFlags) addTo(cmd *cobra.Command) {
	f.add(cmd, true)
	fl := cmd.Flags()
	fl.StringSliceVar(&f.states, "state", nil, "only channels in `STATE`: "+strings.Join(query.States(), ", ")+"; may be repeated")
	fl.BoolVar(&f.problems, "problems", false, "only sites that need attention")
	fl.BoolVar(&f.watch, "watch", false, "show it again every 5 seconds until Ctrl-C")
}

// check refuses a state that does not exist.
func (f *sitesFlags) check() error {
	for _, s := range f.states {
		if !slices.Contains(query.States(), s) {
			return usage("sites", "--state %q: want one of %s", s, strings.Join(query.States(), ", "))
		}
	}
	return nil
}

// wants reports whether a channel at a site is to be listed.
func (f *sitesFlags) wants(c *api.SiteChannel) bool {
	return (len(f.states) == 0 || slices.Contains(f.states, c.State)) && (!f.problems || query.Problem(c.State))
}

// since is from when on something is not known; zero: it never was.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + stamp(t)
}

func newSites(e *env) *cobra.Command {
	var f coreFlags
	var s sitesFlags
	cmd := e.command(verb{
		use:   "sites [flags]",
		short: "List the sites and what they hold",
		long: "Lists every site with each of its channels: the release that it holds, the one that it should, the state, why it is not current, and when the Core received its last message. Also as nightferry site list. " +
			"A channel without the newest release is waiting (its window is closed), due (it may start now), failing (its last run did not end well), away (not connected), halted, or never. nightferry why SITE shows the cause.",
		example: "nightferry sites\nnightferry sites --region ap --channel package\nnightferry sites --problems --watch",
		run:     func(ctx context.Context, _ []string) error { return fleetViews{e}.sites(ctx, &f, &s) },
	})
	f.add(cmd)
	s.addTo(cmd)
	return cmd
}

func (g fleetViews) sites(ctx context.Context, f *coreFlags, s *sitesFlags) error {
	if err := s.check(); err != nil {
		return err
	}
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	show := func(ctx context.Context) error {
		list, err := a.Sites(ctx, s.Scope)
		if err != nil {
			return err
		}
		g.showSites(list, s)
		return nil
	}
	if s.watch {
		return g.watch(ctx, show)
	}
	return show(ctx)
}

func (g fleetViews) showSites(list []api.Site, s *sitesFlags) {
	// A narrow terminal has no room for what the configuration says anyway.
	places := 3
	if w := g.e.width(); w > 0 && w < 100 {
		places = 1
	}
	head := []string{"SITE", "DOMAIN", "REGION"}[:places]
	t := table{head: append(head, "CHANNEL", "HOLDS", "WANTS", "STATE", "WHY", "HEARD"), right: map[int]bool{places + 1: true, places + 2: true}, cut: []int{0, places, places + 4}}
	var notes measurements
	for _, x := range list {
		x.Channels = slices.DeleteFunc(x.Channels, func(c api.SiteChannel) bool { return !s.wants(&c) })
		if len(x.Channels) == 0 && (s.problems || len(s.states) > 0) {
			continue
		}
		g.e.event("site", x)
		heard := g.e.ago(x.Seen)
		switch {
		case x.Enrolled.IsZero():
			heard = "-"
		case x.Connected:
			heard = "connected"
		}
		first := []string{x.Site, x.Domain, x.Region}[:places:places]
		for _, c := range x.Channels {
			t.add(append(first, c.Channel, number(c.Holds), number(c.Wants), stateText(&c), dash(c.Why), heard)...)
			first, heard = make([]string, places), ""
			if c.Holds > 0 && !c.Verified.IsZero() {
				notes.add(c.Channel, c.Holds, c.Measured)
			}
		}
		if len(x.Channels) == 0 {
			t.add(append(first, "-", "-", "-", "-", "-", heard)...)
		}
	}
	nothing := "no such site: the configuration lists them"
	if s.problems || len(s.states) > 0 {
		nothing = "no site is so"
	}
	g.e.show(&t, nothing)
	if len(t.rows) > 0 {
		g.showMeasured(&notes)
	}
}

// measured says what the Core found when it read a release's source for itself.
func measured(m *api.Measurement) string {
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
func movedOn(m *api.Measurement) string {
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

func (n *measurements) add(channel string, release trust.ReleaseNumber, m *api.Measurement) {
	line := fmt.Sprintf("%s release %d, measured in the source: %s", shown(channel), release, measured(m))
	if !slices.Contains(*n, line) {
		*n = append(*n, line)
	}
}

func (g fleetViews) showMeasured(n *measurements) {
	if g.e.json || g.e.quiet {
		return
	}
	for _, line := range *n {
		g.e.print("%s", line)
	}
}

// number writes a release's number, or a dash for none.
func number[N ~uint64](n N) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func newIncidents(e *env) *cobra.Command {
	var f coreFlags
	var all bool
	cmd := e.command(verb{
		use:     "incidents [flags]",
		short:   "List the incidents of the fleet",
		long:    "Lists the open incidents, the newest first: each problem once, however many sites share it. docs/operations.md lists each kind with its cause and remedy.",
		example: "nightferry incidents\nnightferry incidents --all --json",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Incidents(ctx, all)
			if err != nil {
				return err
			}
			for _, x := range list {
				e.event("incident", x)
				fleetViews{e}.showIncident(&x)
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
	var reads bool
	cmd := e.command(verb{
		use:     "audit [flags]",
		short:   "List who did what",
		long:    "Lists the audit, the newest first: every halt, publish, refusal, reload and change of the vault, with the account that asked. --reads adds the reads of the vault, of which there are many a day. Entries never change, and none is removed before it is 90 days old.",
		example: "nightferry audit --since 1d\nnightferry audit --what 'vault get' --json",
		run: func(ctx context.Context, _ []string) error {
			period, err := p.period(e.now())
			if err != nil {
				return err
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Audit(ctx, api.AuditQuery{Period: period, Who: who, What: what, Reads: reads, Limit: p.limit})
			if err != nil {
				return err
			}
			t := table{head: []string{"WHEN", "WHO", "WHAT", "OBJECT", "DETAIL"}, cut: []int{3, 1}, below: 4}
			for _, d := range list {
				e.event("deed", d)
				t.add(minute(d.At), d.Who, d.What, d.Object, d.Detail)
			}
			e.show(&t, "no such entry")
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&p.since, "since", "", "only entries after `TIME`: 2d ago, or 2026-01-31")
	cmd.Flags().StringVar(&p.until, "until", "", "only entries before `TIME`")
	cmd.Flags().IntVar(&p.limit, "limit", 100, "at most the newest `N`")
	cmd.Flags().StringVar(&who, "who", "", "only by this `ACCOUNT`")
	cmd.Flags().StringVar(&what, "what", "", "only this `DEED`")
	cmd.Flags().BoolVar(&reads, "reads", false, "also reads of the vault")
	return cmd
}
