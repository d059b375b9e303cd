package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
)

// noteJob remembers the job that a command waits for, so that Ctrl-C can name it.
func (g follower) noteJob(l *api.JobLine) {
	if l.Job != nil {
		g.e.event("job", l.Job)
		g.e.onInterrupt = fmt.Sprintf("the job continues at the Core: nightferry job show %s shows it, nightferry job stop %s stops it", l.Job.ID, l.Job.ID)
	}
	if l.Missed > 0 {
		g.e.warn("%s of the job were too many to keep", count(int64(l.Missed), "line"))
	}
}

func newJob(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "job",
		Short:   "Show and stop the Core's jobs: publish, sync, verify",
		Long:    wrap("A job is long work that a command or a script has asked the Core for: a publish, a sync or a verify of sites. It continues if its command ends. It stays listed as long as runs do.", lineWidth),
		Example: examples("nightferry job list\nnightferry job stop 4f2a91c07d3be815"),
	}
	cmd.AddCommand(newJobList(e), newJobShow(e), newJobStop(e))
	return cmd
}

func newJobList(e *env) *cobra.Command {
	var f coreFlags
	var q api.JobsQuery
	cmd := e.command(verb{
		use:     "list [flags]",
		short:   "List jobs, the newest first",
		long:    "Lists the jobs of the Core, the newest first: those that run, and those that have ended.",
		example: "nightferry job list --limit 20",
		run: func(ctx context.Context, _ []string) error {
			if q.Limit < 1 || q.Limit > 1000 {
				return usage("job list", "--limit %d: want 1 to 1000", q.Limit)
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := api.JobCalls{Client: a}.List(ctx, q)
			if err != nil {
				return err
			}
			t := table{head: []string{"JOB", "KIND", "OF", "STARTED", "TOOK", "STATE", "WHO"}}
			for _, j := range list {
				e.event("job", j)
				end := j.Ended
				if end.IsZero() {
					end = e.now()
				}
				t.add(j.ID, j.Kind, shown(jobScope(&j)), minute(j.Started), took(max(0, end.Sub(j.Started))), j.State, shown(j.Who))
			}
			e.show(&t, "there is no job")
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "at most `N` jobs")
	return cmd
}

// jobScope returns the scope of a job as text.
func jobScope(j *api.Job) string {
	var parts []string
	for _, p := range [][2]string{{"domain", j.Scope.Domain}, {"region", j.Scope.Region}, {"site", j.Scope.Site}, {"channel", j.Scope.Channel}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ", ")
}

func newJobShow(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "show [flags] ID",
		short:   "Show a job: state, progress, result or error",
		long:    "Shows a job: its state, its progress while it runs, and its result, or its error with a remedy.",
		example: "nightferry job show 4f2a91c07d3be815",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return follower{e}.oneJob(&f, func(c api.JobCalls) (api.Job, error) { return c.Show(ctx, args[0]) })
		},
	})
	f.add(cmd)
	return cmd
}

// oneJob calls the Core about one job and shows the job.
func (g follower) oneJob(f *coreFlags, call func(api.JobCalls) (api.Job, error)) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	j, err := call(api.JobCalls{Client: a})
	if err != nil {
		return err
	}
	g.e.event("job", j)
	g.showJob(&j)
	return nil
}

func (g follower) showJob(j *api.Job) {
	if g.e.json {
		return // its event has it all
	}
	g.e.summary("%s of %s: %s; %s asked for it at %s", j.Kind, shown(jobScope(j)), j.State, shown(j.Who), minute(j.Started))
	if !j.Ended.IsZero() {
		g.e.summary("  it ended after %s", took(j.Ended.Sub(j.Started)))
	}
	if j.Progress != nil {
		p := j.Progress.Progress
		if j.Progress.Event != nil {
			p = j.Progress.Event.Progress
		}
		if p != nil {
			g.e.summary("  %s: %s, %s", p.Phase, count(p.FilesDone, "file"), size(p.BytesDone))
		}
	}
	for i := range j.Result {
		l := &j.Result[i]
		switch {
		case l.Done != nil:
			g.publishSummary(l.Done, j.Ended.Sub(j.Started))
		case l.Orders != nil:
			g.showOrders(l.Orders)
		case l.Event != nil:
			g.showEvent(l.Event)
		case l.Withdrawn != nil || l.Left != nil:
			g.showWithdrawn(l)
		}
	}
	if j.Error != nil {
		g.e.summary("  error: %s", shown(j.Error.Message))
		if j.Error.Fix != "" {
			g.e.summary("  %s", shown(j.Error.Fix))
		}
	}
}

func (g follower) showWithdrawn(l *api.JobLine) {
	g.e.summary("  %s withdrawn before a run started", count(int64(len(l.Withdrawn)), "request"))
	if len(l.Left) > 0 {
		g.e.summary("  %s could not be withdrawn: a run has started, or another\n  request for the channel waits. nightferry halt stops such runs", count(int64(len(l.Left)), "request"))
	}
}

func newJobStop(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:   "stop [flags] ID",
		short: "Stop a job",
		long: "Stops a job that runs. A publish ends without a release; the next one reuses what it has stored. A sync or verify that follows its runs withdraws the requests that no run has obeyed yet; a run that has started continues, and nightferry halt stops it. " +
			"To stop a job that has ended changes nothing.",
		example: "nightferry job stop 4f2a91c07d3be815",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return follower{e}.oneJob(&f, func(c api.JobCalls) (api.Job, error) { return c.Stop(ctx, args[0]) })
		},
	})
	f.add(cmd)
	return cmd
}
