package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
)

func newCoreTasks(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "tasks [flags]",
		short:   "List the periodic tasks of the running Core",
		long:    "Lists the Core's tasks: how often each one is due, how late it may be, and when it last succeeded. A task that is overdue is an incident of kind overdue; it delays no other task.",
		example: "nightferry core tasks\nnightferry core tasks --json",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Tasks(ctx)
			if err != nil {
				return err
			}
			t := table{head: []string{"TASK", "EVERY", "BOUND", "LAST SUCCESS", "STATE"}, below: 4}
			for _, x := range list {
				e.event("task", x)
				t.add(x.Name, every(time.Duration(x.Period)), time.Duration(x.Bound).String(), fleetViews{e}.lastOf(x.Success), stateOf(&x))
			}
			e.show(&t, "no task is known")
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func every(period time.Duration) string {
	if period == 0 {
		return "when due"
	}
	return period.String()
}

func (g fleetViews) lastOf(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return g.e.ago(t)
}

func stateOf(x *api.Task) string {
	switch {
	case x.Overdue && !x.Running.IsZero():
		return "OVERDUE, running"
	case x.Overdue:
		return "OVERDUE: " + x.Error
	case !x.Running.IsZero():
		return "running"
	case x.Error != "":
		return "failed: " + x.Error
	case x.Success.IsZero():
		return "has not run yet"
	}
	return "ok"
}
