package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/core"
)

func newWhere(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "where [flags] CHANNEL/PATH",
		short:   "Tell which sites have a file, in which version",
		long:    "Tells for each site that should have the channel which release it holds, the file's SHA-256 in that release, since when it is there and when the site last proved it. STATE says whether that is the file of the newest release. Below stands what the Core found when it measured its own source.",
		example: "nightferry where package/foo.msi\nnightferry where driver/net/e1000.sys --json",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			channel, path, ok := strings.Cut(args[0], "/")
			if !ok || channel == "" || path == "" {
				return usage("where", "%q: want the channel, a slash and the path in it, such as package/foo.msi", args[0])
			}
			a, err := f.ask()
			if err != nil {
				return err
			}
			defer a.Close()
			var list []core.Place
			if err := a.get(ctx, "/v1/where", url.Values{"channel": {channel}, "path": {path}}, &list); err != nil {
				return err
			}
			t := table{head: []string{"SITE", "REL", "STATE", "SHA-256", "SINCE", "VERIFIED"}, right: map[int]bool{1: true}, cut: []int{0}}
			var notes measurements
			for _, p := range list {
				e.event("place", p)
				state, sum := "absent", "-"
				switch {
				case p.Release == 0:
					state = "nothing yet"
				case p.Present && p.Current:
					state, sum = "current", short(p.Digest.String())
				case p.Present:
					state, sum = "older", short(p.Digest.String())
				}
				t.add(p.Site, number(p.Release), state, sum, minute(p.Since), minute(p.Verified))
				if p.Release > 0 && !p.Verified.IsZero() {
					notes.add(channel, p.Release, p.Measured)
				}
			}
			e.show(&t, "no site should have this channel")
			e.showMeasured(&notes)
			return nil
		},
	})
	f.add(cmd)
	return cmd
}
