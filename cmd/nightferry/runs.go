package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/runs"
)

// pastFlags choose what happened: where, and when.
type pastFlags struct {
	siteFlags
	since, until string
	core         bool
	limit        int
}

// runViews shows runs and their files.
type runViews struct{ e *env }

func (f *pastFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Site, "site", "", "only the site `NAME`")
	cmd.Flags().StringVar(&f.Domain, "domain", "", "only sites of domain `NAME`")
	cmd.Flags().StringVar(&f.Channel, "channel", "", "only the channel `NAME`")
	cmd.Flags().StringVar(&f.since, "since", "", "only runs that started after `TIME`: 2d ago, or 2026-01-31")
	cmd.Flags().StringVar(&f.until, "until", "", "only runs that started before `TIME`")
	cmd.Flags().BoolVar(&f.core, "core", false, "only the Core's own: publishes, measurements of sources")
}

func (f *pastFlags) period(now time.Time) (p api.Period, err error) {
	for _, x := range []struct {
		name, text string
		to         *time.Time
	}{{"since", f.since, &p.Since}, {"until", f.until, &p.Until}} {
		if x.text == "" {
			continue
		}
		if *x.to, err = parseWhen(x.text, now); err != nil {
			return p, usage("", "--%s: %w", x.name, err)
		}
	}
	return p, nil
}

func newRuns(e *env) *cobra.Command {
	var f coreFlags
	var p pastFlags
	var state string
	var open bool
	cmd := e.command(verb{
		use:     "runs [flags]",
		short:   "List runs and their results",
		long:    "Lists runs, the newest first: each attempt to bring a channel at a site to a release, each publish of the Core, and each time that it measured its source. nightferry run show lists every file of one.",
		example: "nightferry runs --site osaka --since 2d\nnightferry runs --state incomplete",
		run: func(ctx context.Context, _ []string) error {
			period, err := p.period(e.now())
			if err != nil {
				return err
			}
			if state != "" && !runs.State(state).Valid() {
				return usage("runs", "--state %q: want one of %s; --open lists the runs under way", state, runStates())
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Runs(ctx, api.RunsQuery{Scope: api.Scope(p.Scope), Period: period, Core: p.core, State: runs.State(state), Open: open, Limit: p.limit})
			if err != nil {
				return err
			}
			t := table{head: []string{"RUN", "STARTED", "SITE", "CHANNEL", "REL", "STATE", "MOVED", "TOOK"}, right: map[int]bool{4: true, 6: true, 7: true}, cut: []int{2, 3, 5}}
			for _, r := range list {
				e.event("run", r)
				t.add(r.ID.String()[:runDigits], r.Started.UTC().Format("01-02 15:04Z"), runSite(&r), r.Channel, number(r.Number), runState(&r), size(r.Totals.Fetched), runViews{e}.runTook(&r))
			}
			e.show(&t, "no such run")
			return nil
		},
	})
	f.add(cmd)
	p.add(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only runs that ended in `STATE`: verified, incomplete, failed, …")
	cmd.Flags().BoolVar(&open, "open", false, "only runs under way")
	cmd.Flags().IntVar(&p.limit, "limit", 50, "at most the newest `N`")
	return cmd
}

// runStates lists how runs end: at sites, of publishes, of measurements.
func runStates() string {
	var list []string
	for _, s := range runs.All() {
		list = append(list, string(s))
	}
	return strings.Join(list, ", ")
}

// runDigits is how many digits of a run's id a list shows: more than enough for
// run show, which asks for more where two runs begin so.
const runDigits = 8

func runSite(r *api.Run) string {
	if r.Site == "" {
		return "(Core)"
	}
	return r.Site
}

func runState(r *api.Run) string {
	s := string(r.State)
	if r.Finished.IsZero() {
		s = "running"
	}
	if r.Trigger == "measure" {
		switch s {
		case "same":
			s = "measured: same"
		case "moved-on":
			s = "measured: " + movedOn(&api.Measurement{Changed: r.Totals.Changed, New: r.Totals.Added, Gone: r.Totals.Deleted})
		case "damaged":
			s = fmt.Sprintf("measured: %s damaged", group(r.Totals.Differs+r.Totals.Failed))
		}
	}
	if r.DryRun {
		s += " (dry)"
	}
	return s
}

func (g runViews) runTook(r *api.Run) string {
	end := r.Finished
	if end.IsZero() {
		end = g.e.now()
	}
	return took(max(0, end.Sub(r.Started)))
}

func newRun(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Show one run with its files",
		Long:    wrap("A run is one attempt to bring one channel at one site to one release, one publish of the Core, or one measurement of its source. Every file of it has an outcome.", lineWidth),
		Example: examples("nightferry run show 4f2a91"),
	}
	var f coreFlags
	var all bool
	show := e.command(verb{
		use:     "show [flags] ID",
		short:   "Show a run and the outcome of each file",
		long:    "Shows a run's summary and one line for each file that was acted on or could not be. ID may be its beginning. With --all-files there is one line for every file of the release: those that were unchanged are taken from its manifest.",
		example: "nightferry run show 4f2a91\nnightferry run show 4f2a91 --all-files --json",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			if err := checkRunID("run show", args[0]); err != nil {
				return err
			}
			return runViews{e}.runShow(ctx, &f, args[0], all)
		},
	})
	f.add(show)
	show.Flags().BoolVar(&all, "all-files", false, "also the unchanged files")
	cmd.AddCommand(show)
	return cmd
}

// checkRunID refuses what no run's id begins with.
func checkRunID(cmd, id string) error {
	if n := len(id); n == 0 || n > 2*len(runs.ID{}) || strings.Trim(strings.ToLower(id), "0123456789abcdef") != "" {
		return &absentError{fmt.Sprintf("no run has the id %q: ids are 1 to %d hexadecimal digits", id, 2*len(runs.ID{})), "nightferry runs lists the runs"}
	}
	return nil
}

func (g runViews) runShow(ctx context.Context, f *coreFlags, id string, all bool) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	defer g.e.long()()
	return a.RunShow(ctx, api.RunQuery{ID: id, All: all}, func(l *api.RunLine) error {
		switch {
		case l.Run != nil:
			g.e.event("run", l.Run)
			g.showRun(l.Run)
		case l.File != nil:
			g.e.event("file", l.File)
			g.showFile(l.File)
		}
		return nil
	})
}

func (g runViews) showRun(r *api.RunDetail) {
	if g.e.json {
		return
	}
	g.e.print("run      %s: %s", r.ID, shown(runState(&r.Run)))
	if r.Cause != "" {
		g.e.print("%s", hanging("cause    ", oneLine(r.Cause)))
	}
	where := "the Core"
	if r.Site != "" {
		where = r.Site + " (" + r.Domain + ")"
	}
	g.e.print("where    %s, channel %s", shown(where), shown(r.Channel))
	if r.Number > 0 && !r.Release.IsZero() {
		contents := "contents unknown: the Core no longer has the release"
		if r.Files+r.Bytes > 0 || r.Totals.Files > 0 {
			contents = count(max(r.Files, r.Totals.Files), "file") + ", " + size(max(r.Bytes, r.Totals.Bytes))
		}
		g.e.print("release  %d, %s; before it %s", r.Number, contents, number(r.Parent))
		g.e.print("digest   %s", r.Release)
		g.e.print("tree     %s", r.Tree)
	}
	g.e.print("when     %s, took %s, because of: %s", stamp(r.Started), g.runTook(&r.Run), dash(shown(r.Trigger)))
	if r.Finished.IsZero() {
		g.showUnfinished(r)
		return
	}
	t := r.Totals
	g.e.print("files    %s", changes(append(outcomes(&t.Counts), counted{t.Extra, "of the site's own"}, counted{t.Unchanged, "unchanged"})))
	g.e.print("bytes    %s fetched as %s, %s from the site's own disk", size(t.Fetched), size(t.Wire), size(t.Held))
	if !r.Attestation.IsZero() {
		g.e.print("attested %s", r.Attestation)
	}
	if r.Number > 0 && r.Trigger != "measure" {
		g.e.print("source   measured: %s", measured(r.Measured))
	}
	if r.Log != "" {
		g.e.print("log      %s", shown(r.Log))
	}
	g.e.print("")
}

// showUnfinished prints the release and the progress of a run under way, which has no totals yet.
func (g runViews) showUnfinished(r *api.RunDetail) {
	if p := r.Progress; p != nil {
		g.e.print("so far   %s: %s of %s files, %s of %s, %s received", dash(shown(p.Phase)), group(p.FilesDone), group(p.FilesTotal), size(p.BytesDone), size(p.BytesTotal), size(p.BytesWire))
	} else {
		g.e.print("so far   the Core has received no progress of it yet")
	}
	g.e.print("")
}

func (g runViews) showFile(f *api.File) {
	if g.e.json {
		return
	}
	line := shown(f.Path)
	if f.From != "" {
		line += " (from " + shown(f.From) + ")"
	}
	g.e.print("%-9s %8s  %s", shown(string(f.Outcome)), size(f.Size), line)
	if f.Cause != "" {
		g.e.print("%s", hanging(strings.Repeat(" ", 20), oneLine(f.Cause)))
	}
}

func newLogs(e *env) *cobra.Command {
	var f coreFlags
	var p pastFlags
	var run string
	var paths bool
	cmd := e.command(verb{
		use:     "logs [flags]",
		short:   "List the log files of runs",
		long:    "Lists the runs that have a log file. nightferry run show RUN prints one. With --paths it prints the files' paths instead, one a line: each holds one run as lines of JSON, and can be searched with grep. The logs of a domain can be read by the group that the configuration gives them to.",
		example: "nightferry logs --site osaka --since 7d\ngrep -h '\"failed\"' $(nightferry logs --paths --channel package)",
		run: func(ctx context.Context, _ []string) error {
			period, err := p.period(e.now())
			if err != nil {
				return err
			}
			if run != "" {
				if err := checkRunID("logs", run); err != nil {
					return err
				}
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			defer e.long()()
			t := table{head: []string{"DAY", "SITE", "CHANNEL", "RUN", "SIZE"}, right: map[int]bool{4: true}, cut: []int{1, 2}}
			err = a.Logs(ctx, api.LogsQuery{Scope: api.Scope(p.Scope), Period: period, Core: p.core, Run: strings.ToLower(run)}, func(l *api.LogFile) error {
				e.event("log", l)
				if paths && !e.json {
					e.print("%s", shown(l.File))
				}
				t.add(l.Started.Format(time.DateOnly), cmp.Or(l.Site, "(Core)"), l.Channel, l.Run[:min(runDigits, len(l.Run))], size(l.Size))
				return nil
			})
			if err == nil && !paths {
				e.show(&t, "no log file is of such a run")
			}
			return err
		},
	})
	f.add(cmd)
	p.add(cmd)
	cmd.Flags().BoolVar(&paths, "paths", false, "print the paths of the files, for other programs")
	cmd.Flags().StringVar(&run, "run", "", "only the run with this `ID`, or its beginning")
	return cmd
}
