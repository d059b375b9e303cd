package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/clock"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
)

// memberVerbs admits sites and revokes them.
type memberVerbs struct{ e *env }

func newSite(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "site",
		Short:   "Let sites join the fleet, and cut them off",
		Long:    wrap("A site joins with a one-time token that the Core issues, and uses a key of its own from then on, until it is revoked. The configuration lists the sites.", lineWidth),
		Example: examples("nightferry site token osaka\nnightferry site revoke osaka --reason 'stolen'"),
	}
	var f coreFlags
	var s sitesFlags
	list := e.command(verb{
		use:     "list [flags]",
		short:   "List the sites and what they hold",
		long:    "Lists every site with each of its channels, as nightferry sites does.",
		example: "nightferry site list --region ap",
		run:     func(ctx context.Context, _ []string) error { return fleetViews{e}.sites(ctx, &f, &s) },
	})
	f.add(list)
	s.addTo(list)
	cmd.AddCommand(newSiteToken(e), newSiteConfirm(e), newSiteRevoke(e), list)
	return cmd
}

func newSiteToken(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	var wave int
	var life, out string
	cmd := e.command(verb{
		use:   "token [flags] [NAME]",
		short: "Issue the one-time token with which a site joins",
		long: "Prints a token for the site NAME, good once and for 24 hours. It carries the Core's address, the fingerprint of its certificate authority and the repository's root key; the Core keeps only a hash of it. Anyone with the token can join as that site: protect it like a password. If the site is already enrolled, using the token replaces and disconnects its current agent; the command warns you and shows when that agent enrolled. " +
			"--wave issues tokens for so many of the configured sites that have not joined yet, or whose agent the Core refuses, for a script that builds servers. --out writes the token into a file that only you can read; with --wave it names a folder, which gets a file NAME.token for each.",
		example: "nightferry site token osaka -o osaka.token\nnightferry site token --wave 20 --region ap --out /srv/tokens",
		max:     1,
		run: func(ctx context.Context, args []string) error {
			req := api.TokenRequest{Wave: wave, Scope: api.Scope(s.Scope)}
			switch {
			case len(args) == 1 && wave == 0 && s.Scope == fleet.Scope{}:
				req.Site = args[0]
			case len(args) == 1 || wave <= 0:
				return usage("site token", "want a site's NAME, or --wave N with the sites to choose from")
			}
			d, err := tokenLife(life)
			if err != nil {
				return err
			}
			req.Life = clock.Seconds(d)
			return memberVerbs{e}.siteToken(ctx, &f, req, out)
		},
	})
	f.add(cmd)
	s.add(cmd, false)
	cmd.Flags().IntVar(&wave, "wave", 0, "tokens for `N` sites that have not joined")
	cmd.Flags().StringVar(&life, "life", "24h", "how `LONG` the token is good, at most 30d")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the token into `FILE`, or with --wave each into a file of this folder, readable by you alone")
	return cmd
}

// keepPrivate takes a file that output was redirected to away from others, since
// a shell makes it readable by all.
func keepPrivate(w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	if runtime.GOOS == "windows" {
		return errors.New("use --out FILE, which only you can read")
	}
	return f.Chmod(0o600)
}

func tokenLife(text string) (time.Duration, error) {
	d, err := parseDays(text)
	if err == nil && (d < time.Minute || d > 30*24*time.Hour) {
		err = fmt.Errorf("%s: want 1m to 30d", text)
	}
	if err != nil {
		return 0, usage("site token", "--life: %w", err)
	}
	return d, nil
}

func (g memberVerbs) siteToken(ctx context.Context, f *coreFlags, req api.TokenRequest, out string) error {
	if out != "" && req.Site != "" { // looked at first: each token that is issued is one more that could be stolen
		if _, err := os.Lstat(out); err == nil {
			return usage("site token", "%s is there already: name a new file, or remove this one; no token was issued", out)
		}
	}
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	if out != "" && req.Site == "" {
		if err := os.MkdirAll(out, 0o700); err != nil {
			return fmt.Errorf("make the folder for tokens: %w", err)
		}
	}
	list, err := a.Tokens(ctx, req)
	if err != nil {
		return err
	}
	var failed error
	for _, t := range list {
		where := ""
		if out != "" {
			where = out
			if req.Site == "" {
				where = filepath.Join(out, t.Site+".token")
			}
			if err := durable.WritePrivate(where, []byte(t.Text+"\n")); err != nil {
				failed = errors.Join(failed, fmt.Errorf("write the token of %s: %w", t.Site, err))
				continue
			}
			t.Text = ""
		}
		g.e.event("token", struct {
			api.IssuedToken
			File string `json:"file,omitempty"`
		}{t, where})
		switch {
		case g.e.json:
		case out != "":
			g.e.print("%s", shown(where))
		case req.Site != "":
			if err := keepPrivate(g.e.stdout); err != nil {
				g.e.warn("the token goes into a file that others may read: %v", err)
			}
			g.e.print("%s", t.Text) // alone, so that it can go into a file
		default:
			g.e.print("%s %s", t.Site, t.Text)
		}
		if !g.e.json && req.Site != "" {
			if !t.Joined.IsZero() {
				heard := "heard last: " + g.e.ago(t.Seen)
				if t.Connected {
					heard = "connected now"
				}
				g.e.warn("site %s has joined already, on %s (agent %s, %s): using this token replaces and disconnects that agent", t.Site, stamp(t.Joined), shown(t.Version), heard)
			}
			g.e.warn("good once, for site %s of domain %s, until %s", t.Site, t.Domain, stamp(t.Expires))
		}
	}
	if len(list) == 0 && !g.e.json {
		g.e.warn("every site that was named has joined already, and none is refused")
	}
	return failed
}

func newSiteRevoke(e *env) *cobra.Command {
	var f coreFlags
	var reason string
	cmd := e.command(verb{
		use:     "revoke [flags] NAME",
		short:   "End a site's identity and cut its connection",
		long:    "Revokes the key of the site NAME, and closes its connection at once. The files on its disk stay. It can join again with a new token.",
		example: "nightferry site revoke osaka --reason 'server was stolen'",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return memberVerbs{e}.endOne(ctx, &f, (*api.Client).RevokeSite, "revoked", args[0], reason, "site")
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the audit")
	return cmd
}

func newSiteConfirm(e *env) *cobra.Command {
	var f coreFlags
	var reason string
	cmd := e.command(verb{
		use:     "confirm [flags] NAME",
		short:   "Confirm that only one machine uses a site's identity",
		long:    "Ends the incident cloned of the site NAME, after you have made sure that the other machine is gone for good. The site then proves its releases anew. If both machines are still running, the incident opens again.",
		example: "nightferry site confirm osaka --reason 'the copy is deleted'",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return memberVerbs{e}.endOne(ctx, &f, (*api.Client).ConfirmSite, "confirmed", args[0], reason, "site")
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the audit")
	return cmd
}

func newDomain(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "domain",
		Short:   "Cut a whole domain off",
		Long:    wrap("A domain is a security realm: one credential for all its servers. Revoking it ends every identity of its sites at once.", lineWidth),
		Example: examples("nightferry domain revoke apac --reason 'directory compromised'"),
	}
	var f coreFlags
	var reason string
	revoke := e.command(verb{
		use:     "revoke [flags] NAME",
		short:   "End the identities of all sites of a domain",
		long:    "Makes the keys of all sites of the domain NAME count for nothing, cuts their connections at once and replaces the domain's signing key. Each site can join again with a new token.",
		example: "nightferry domain revoke apac --reason 'directory compromised'",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			return memberVerbs{e}.endOne(ctx, &f, (*api.Client).RevokeDomain, "revoked", args[0], reason, "domain")
		},
	})
	f.add(revoke)
	revoke.Flags().StringVar(&reason, "reason", "", "`TEXT` for the audit")
	cmd.AddCommand(revoke)
	return cmd
}

// endOne revokes, or confirms, what is named.
func (g memberVerbs) endOne(ctx context.Context, f *coreFlags, change func(*api.Client, context.Context, api.Subject) ([]string, error), event, name, reason, what string) error {
	if reason == "" {
		reason = "no reason given"
	}
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	sites, err := change(a, ctx, api.Subject{Name: name, Reason: reason})
	if err != nil {
		return err
	}
	g.e.event(event, struct {
		Scope string   `json:"scope"`
		Name  string   `json:"name"`
		Sites []string `json:"sites"`
	}{what, name, append([]string{}, sites...)})
	for _, s := range sites {
		if event == "confirmed" {
			g.e.summary("site %s is confirmed, and proves its releases anew", shown(s))
		} else {
			g.e.summary("site %s is revoked and cut off", shown(s))
		}
	}
	if len(sites) == 0 {
		g.e.summary("no site of %s %s was enrolled", what, shown(name))
	}
	return nil
}
