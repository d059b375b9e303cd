package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
)

func newWhy(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	cmd := e.command(verb{
		use:   "why [flags] [SITE [CHANNEL]]",
		short: "Show problems, since when, their causes and remedies",
		long: "Shows for a site, or one channel at a site, everything that keeps it from holding the newest release, proven: halt orders, closed windows, failed runs, findings and open incidents, the most urgent first. " +
			"Without SITE it shows the whole fleet; --channel narrows it to one channel. Releases that wait for their window are shown only for a named site. Nothing to show ends with 0, too.",
		example: "nightferry why osaka\nnightferry why osaka package\nnightferry why --channel driver",
		max:     2,
		run: func(ctx context.Context, args []string) error {
			if err := s.take("why", args); err != nil {
				return err
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Why(ctx, s.Scope)
			if err != nil {
				return err
			}
			for i := range list {
				e.event("reason", &list[i])
				fleetViews{e}.showReason(&list[i])
			}
			if len(list) == 0 {
				e.summary("nothing is wrong")
			}
			return nil
		},
	})
	f.add(cmd)
	s.add(cmd, true)
	return cmd
}

// showReason prints one reason: where and what on a line, then why and what to
// do, for which no column is wide enough.
func (g fleetViews) showReason(r *api.Reason) {
	if g.e.json {
		return
	}
	where := "Core"
	if r.Site != "" {
		where = r.Site
	}
	if r.Channel != "" {
		where += "/" + r.Channel
	}
	since := ""
	if !r.Since.IsZero() {
		since = ", since " + minute(r.Since)
	}
	g.e.print("%s: %s%s", shown(where), shown(r.What), since)
	if r.Cause != "" {
		g.e.print("%s", indent(wrap("why: "+oneLine(r.Cause), lineWidth-2)))
	}
	if r.Remedy != "" {
		g.e.print("%s", indent(wrap("do:  "+oneLine(r.Remedy), lineWidth-2)))
	}
}

// watchEvery is how often a list that is watched is asked for again.
const watchEvery = 5 * time.Second

// watch shows a view again and again until ctx ends. On a terminal it replaces
// what it showed before.
func (g fleetViews) watch(ctx context.Context, show func(context.Context) error) error {
	for {
		if g.e.terminal() {
			g.e.write("\x1b[H\x1b[2J")
		}
		g.e.summary("%s, every %s; Ctrl-C ends it", stamp(g.e.now()), took(watchEvery))
		if err := show(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// stateText is a channel's state with how far its run is.
func stateText(c *api.SiteChannel) string {
	if p := c.Progress; p != nil && p.BytesTotal > 0 {
		return fmt.Sprintf("%s %d %%", c.State, 100*p.BytesDone/p.BytesTotal)
	}
	return c.State
}
