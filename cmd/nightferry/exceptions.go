package main

import (
	"context"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
)

func newExceptions(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	var limit int
	cmd := e.command(verb{
		use:   "exceptions [flags] [SITE] [CHANNEL]",
		short: "List the files that failed, were locked or were repaired",
		long: "Lists each file once that a site reported as failed, locked, different or repaired: since when, how often, and why. The newest report comes first. A file stays in the list until retention.logs has passed since its last report; " +
			"nightferry why shows whether something is still wrong.",
		example: "nightferry exceptions\nnightferry exceptions osaka package",
		max:     2,
		run: func(ctx context.Context, args []string) error {
			if err := s.take("exceptions", args); err != nil {
				return err
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Exceptions(ctx, api.ExceptionsQuery{Scope: api.Scope(s.Scope), Limit: limit})
			if err != nil {
				return err
			}
			t := table{head: []string{"SITE", "CHANNEL", "OUTCOME", "SINCE", "TIMES", "PATH AND CAUSE"}, right: map[int]bool{4: true}, cut: []int{0, 1}, below: 5}
			for _, x := range list {
				e.event("exception", x)
				text := x.Path
				if x.Cause != "" {
					text += ": " + oneLine(x.Cause)
				}
				t.add(x.Site, x.Channel, string(x.Outcome), minute(x.First), group(x.Count), text)
			}
			e.show(&t, "no file failed")
			return nil
		},
	})
	f.add(cmd)
	s.add(cmd, true)
	cmd.Flags().IntVar(&limit, "limit", 100, "at most the newest `N`")
	return cmd
}

// take reads the arguments SITE and CHANNEL, which stand for the flags.
func (f *siteFlags) take(cmd string, args []string) error {
	for i, to := range []*string{&f.Site, &f.Channel} {
		if i >= len(args) {
			return nil
		}
		if *to != "" {
			return usage(cmd, "%q: name the site and the channel once", args[i])
		}
		*to = args[i]
	}
	return nil
}
