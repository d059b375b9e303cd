package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/query"
)

func newWhere(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "where [flags] CHANNEL/PATH",
		short:   "Show which sites have a file, in which version",
		long:    "Shows for each site that should have the channel which release it holds, the file's SHA-256 in that release, since when it is there and when the site last proved it. STATE shows if that is the file of the newest release. A later finding overrules the release: missing, differs or unproven, with the time of the finding under SINCE. The lines below the table are the measurements that the Core made of its own source.",
		example: "nightferry where package/foo.msi\nnightferry where driver/net/e1000.sys --json",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			channel, path, ok := strings.Cut(args[0], "/")
			if !ok || channel == "" || path == "" {
				return usage("where", "%q: want the channel, a slash and the path in it, such as package/foo.msi", args[0])
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.Where(ctx, channel, path)
			if err != nil {
				return err
			}
			t := table{head: []string{"SITE", "REL", "STATE", "SHA-256", "SINCE", "VERIFIED"}, right: map[int]bool{1: true}, cut: []int{0}}
			var notes measurements
			var doubts []string
			for _, p := range list {
				e.event("place", p)
				sum, since := "-", p.Since
				if p.Present {
					sum = short(p.Digest.String())
				}
				if !p.Found.IsZero() {
					since = p.Found
				}
				t.add(p.Site, number(p.Release), p.State, sum, minute(since), minute(p.Verified))
				if w := p.Waiting; w != nil {
					doubts = append(doubts, fmt.Sprintf("%s: %s", shown(p.Site), oneLine((*query.Waiting)(w).String())))
				}
				if p.Cause != "" {
					doubts = append(doubts, doubt(channel, &p))
				}
				if p.Release > 0 && !p.Verified.IsZero() {
					notes.add(channel, p.Release, p.Measured)
				}
			}
			e.show(&t, "no site should have this channel")
			for _, line := range doubts {
				e.summary("%s", hanging("", line))
			}
			fleetViews{e}.showMeasured(&notes)
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

// doubt says why a site's file is not what its release says, and what to do.
func doubt(channel string, p *api.Place) string {
	line := fmt.Sprintf("%s: %s: %s", shown(p.Site), p.State, oneLine(p.Cause))
	if p.Run == "" {
		return line
	}
	return line + fmt.Sprintf(" (run %s, %s); repair: nightferry verify --site %s --channel %s --repair", p.Run[:8], minute(p.Found), shown(p.Site), shown(channel))
}
