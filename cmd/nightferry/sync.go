package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/runs"
)

// follower starts runs and shows how they end.
type follower struct{ e *env }

func newPublish(e *env) *cobra.Command {
	var f coreFlags
	var r api.PublishRequest
	cmd := e.command(verb{
		use:   "publish [flags] [CHANNEL...]",
		short: "Let the Core publish a channel's source to its sites",
		long: "Publishes the source folder of each CHANNEL, or of all that are configured, as its next release, with the guards of the configuration, and sends it to every site that should have it. Each publish has a run and a log file of its own. " +
			"Where the source has not changed there is no new release. The publish is a job of the Core: Ctrl-C ends this command alone, and nightferry job shows the job or stops it.",
		example:   "nightferry publish package\nnightferry publish package driver --dry-run",
		max:       100,
		interrupt: publishUnknown,
		run: func(ctx context.Context, args []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			if len(args) == 0 {
				return follower{e}.publish(ctx, a, r) // all, as the Core that runs has them
			}
			for _, channel := range args {
				r.Channel = channel
				err := follower{e}.publish(ctx, a, r)
				if err != nil && len(args) == 1 {
					return err // the act names it
				}
				if err != nil {
					return fmt.Errorf("channel %s: %w", shown(channel), err)
				}
			}
			return nil
		},
	})
	f.add(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&r.AllowDeletes, "allow-deletes", false, "remove as many files as it takes")
	fl.BoolVar(&r.AllowUnmounted, "allow-unmounted", false, "publish a source that lacks volumes which were mounted at the last release")
	fl.BoolVar(&r.AllowEmpty, "allow-empty", false, "publish a source without any file")
	fl.BoolVar(&r.Rehash, "rehash", false, "read every file, whatever its size and times say")
	fl.TextVar(&r.Reviewed, "reviewed", digest.Digest{}, "publish only if the source still holds `TREE`, which a dry run has shown (--json: tree)")
	fl.Lookup("reviewed").DefValue = "" // else help shows 64 zeros
	fl.BoolVar(&r.DryRun, "dry-run", false, "show the changes that a publish would contain, and store nothing")
	return cmd
}

func (g follower) publish(ctx context.Context, a *api.Client, r api.PublishRequest) error {
	began := g.e.now()
	g.e.startProgress()
	defer g.e.endProgress()
	return api.JobCalls{Client: a}.Publish(ctx, r, func(l *api.JobLine) error {
		g.noteJob(l)
		if p := l.Progress; p != nil {
			g.e.tell(meterOf(p))
			g.e.event("progress", struct {
				Channel string `json:"channel"`
				*runs.Progress
			}{l.Channel, p})
		}
		if d := l.Done; d != nil {
			g.e.endProgress()
			g.e.event("published", d)
			g.publishSummary(d, g.e.now().Sub(began))
		}
		return nil
	})
}

func meterOf(p *runs.Progress) meter {
	return meter{Phase: p.Phase, Files: p.FilesDone, TotalFiles: p.FilesTotal, Bytes: p.BytesDone, TotalBytes: p.BytesTotal, Moved: p.BytesWire}
}

func (g follower) publishSummary(d *api.Published, spent time.Duration) {
	what := "published"
	switch {
	case d.Unchanged:
		what = "is unchanged"
	case d.DryRun:
		what = "would be published"
	}
	g.e.summary("%s: release %s %s: %s", shown(d.Channel), group(int64(d.Number)), what, holding(d.Files, d.Dirs, d.Bytes))
	if d.Unchanged {
		return
	}
	g.e.summary("  %s", changes([]counted{{d.Added, "added"}, {d.Changed, "changed"}, {d.Touched, "touched"}, {d.Removed, "removed"}, {d.Skipped, "skipped"}}))
	sent := "sent"
	if d.DryRun {
		sent = "would send"
	}
	sites := "for " + count(int64(d.Sites), "site")
	if d.Sites == 0 {
		sites = "no site is configured to hold it"
	}
	g.e.summary("  read %s, %s %s, %s, %s; run %s", size(d.Read), sent, size(d.Sent), took(spent), sites, short(d.Run))
}

func newSync(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	var r api.SyncRequest
	var all, follow bool
	cmd := e.command(verb{
		use:   "sync [flags]",
		short: "Order sites to start now",
		long: "Orders sites to bring their channels to the newest release now. Without it they do so by themselves. A site that is away starts when it comes back, and one whose window is closed when that opens, unless --now says not to wait (a rate of 0 still holds it: nightferry limit). " +
			"--dry-run reports what would move and changes nothing; --follow stays and shows each site's run until all that are connected have ended; if a run has not started within 5 seconds, it shows why. It does not wait for a run that a halt order stops: it ends with code 8 then.",
		example:   "nightferry sync --site osaka --follow\nnightferry sync --region ap --channel package --dry-run --follow\nnightferry sync --all",
		interrupt: sitesGoOn,
		run: func(ctx context.Context, _ []string) error {
			if all == (s.Site != "" || s.Region != "" || s.Domain != "") {
				return usage("sync", "name --site, --region or --domain, or --all")
			}
			r.Scope, r.All = api.Scope(s.Scope), all
			return follower{e}.sync(ctx, &f, r, follow)
		},
	})
	f.add(cmd)
	s.add(cmd, true)
	cmd.Flags().BoolVar(&all, "all", false, "every site")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "report what would move, and change nothing")
	cmd.Flags().BoolVar(&r.Rehash, "rehash", false, "read every file at the site, whatever its size and times say")
	cmd.Flags().BoolVar(&r.Adopt, "adopt", false, "fill a target that held a release and holds nothing of it any more")
	cmd.Flags().BoolVar(&r.Now, "now", false, "do not wait for a window to open")
	cmd.Flags().BoolVar(&follow, "follow", false, "stay until the runs have ended, and show them")
	return cmd
}

func (g follower) sync(ctx context.Context, f *coreFlags, r api.SyncRequest, follow bool) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	var bad []string
	err = api.JobCalls{Client: a}.Sync(ctx, r, follow, func(l *api.JobLine) error {
		g.noteJob(l)
		if l.Orders != nil {
			g.showOrders(l.Orders)
		}
		if l.Event != nil {
			g.e.event("site_"+string(l.Event.Kind), l.Event)
			g.showEvent(l.Event)
			if run := l.Event.Ended; run != nil && !endedWell(run) {
				bad = append(bad, run.Site+"/"+run.Channel)
			}
		}
		return nil
	})
	if err == nil && len(bad) > 0 {
		return &incompleteError{strings.Join(bad, ", ") + " did not end well", "nightferry why SITE CHANNEL shows the cause, and what to do"}
	}
	return err
}

func endedWell(r *api.Run) bool {
	switch r.State {
	case "verified", "planned", "nothing":
		return true
	}
	return false
}

func (g follower) showOrders(orders []api.Order) {
	away, closed, halted, contested := 0, 0, 0, 0
	for _, o := range orders {
		g.e.event("order", o)
		if o.Halted != "" {
			halted++
		}
		if o.Contested != "" {
			contested++
		}
		if !o.Opens.IsZero() {
			closed++
		}
		if !o.Connected {
			away++
		}
	}
	g.e.summary("%s ordered", count(int64(len(orders)), "run"))
	if away > 0 {
		g.e.summary("  %s away: they start when they come back", count(int64(away), "site"))
	}
	if contested > 0 {
		g.e.summary("  %s contested: two machines use the identity of a site, so no result counts; nightferry why", count(int64(contested), "run"))
	}
	if halted > 0 {
		g.e.summary("  %s halted: they start when the order is lifted; nightferry halt status", count(int64(halted), "run"))
	}
	if closed > 0 {
		g.e.summary("  %s for a window to open; --now does not", count(int64(closed), "run")+" waiting")
	}
}

// followEvery is how often a person is told how far one site's channel is.
const followEvery = 10 * time.Second

func (g follower) showEvent(ev *api.Event) {
	if g.e.json {
		return
	}
	where := fmt.Sprintf("%-16s %-10s", shown(ev.Site), shown(ev.Channel))
	switch {
	case ev.Ended != nil:
		t := ev.Ended.Totals
		g.e.summary("%s %-10s %s, %s fetched, run %s", where, runState(ev.Ended), changes(outcomes(&t.Counts)), size(t.Fetched), short(ev.Ended.ID.String()))
		if ev.Ended.Cause != "" {
			g.e.summary("%s", hanging("  ", oneLine(ev.Ended.Cause)))
		}
	case ev.Progress != nil:
		if g.e.now().Sub(g.e.followed[where]) < followEvery {
			return
		}
		if g.e.followed == nil {
			g.e.followed = map[string]time.Time{}
		}
		g.e.followed[where] = g.e.now()
		if ev.Progress.BytesTotal == 0 {
			g.e.summary("%s %s", where, shown(ev.Progress.Phase))
			return
		}
		g.e.summary("%s %-10s %d %% of %s", where, shown(ev.Progress.Phase), 100*ev.Progress.BytesDone/ev.Progress.BytesTotal, size(ev.Progress.BytesTotal))
	case ev.Kind == string(core.NotStarted):
		line := fmt.Sprintf("%s not started: %s", where, oneLine(ev.Text))
		if len(line) > lineWidth {
			line = where + " not started:\n" + indent(wrap(oneLine(ev.Text), lineWidth-2))
		}
		g.e.summary("%s", line)
	case ev.Kind == string(core.RunStarted):
		g.e.summary("%s started", where)
	}
}
