package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/clock"
	"nightferry/internal/durable"
	"nightferry/internal/rights"
)

// accessVerbs manages API tokens.
type accessVerbs struct{ e *env }

func newAccess(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "access",
		Short:   "Create, list and revoke API tokens",
		Long:    wrap("An API token gives a script the rights of a role, over all sites, a domain or a region, until it expires or is revoked. The Core keeps only its hash.", lineWidth),
		Example: examples("nightferry access create report --role viewer --life 90d -o report.token\nNIGHTFERRY_TOKEN_FILE=report.token nightferry sites"),
	}
	cmd.AddCommand(newAccessCreate(e), newAccessList(e), newAccessRevoke(e))
	return cmd
}

func newAccessCreate(e *env) *cobra.Command {
	var f coreFlags
	var r api.APITokenRequest
	var life, out string
	cmd := e.command(verb{
		use:   "create [flags] NAME",
		short: "Create an API token",
		long: "Creates an API token, and prints it once. The audit records its acts under \"token NAME\". Roles: viewer reads; operator also halts, resumes, syncs, verifies, limits rates and handles incidents; publisher also publishes; admin may do everything. " +
			"--domain and --region limit it to their sites. Commands use the token in the file that NIGHTFERRY_TOKEN_FILE names.",
		example: "nightferry access create report --role viewer --life 90d -o report.token\nnightferry access create night --role operator --region ap -o night.token",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			if _, err := rights.ParseRole(r.Role); err != nil {
				return usage("access create", "%w", err)
			}
			d, err := parseDays(life)
			if err != nil {
				return usage("access create", "--life: %w", err)
			}
			r.Name, r.Life = args[0], clock.Seconds(d)
			return accessVerbs{e}.create(ctx, &f, r, out)
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&r.Role, "role", "", "`ROLE`: logs, viewer, operator, publisher or admin")
	cmd.Flags().StringVar(&r.Domain, "domain", "", "only over the sites of domain `NAME`")
	cmd.Flags().StringVar(&r.Region, "region", "", "only over the sites of region `NAME`")
	cmd.Flags().StringVar(&life, "life", "30d", "`DURATION` until it expires, at most 366d")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the token into `FILE`, readable by you alone")
	return cmd
}

func (g accessVerbs) create(ctx context.Context, f *coreFlags, r api.APITokenRequest, out string) error {
	if out != "" { // looked at first: each token that is issued is one more that could be stolen
		if _, err := os.Lstat(out); err == nil {
			return usage("access create", "%s is there already: name a new file, or remove this one; no token was created", out)
		}
	}
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	t, err := api.Access{Client: a}.Create(ctx, r)
	if err != nil {
		return err
	}
	if out != "" {
		if err := durable.WritePrivate(out, []byte(t.Text+"\n")); err != nil {
			return fmt.Errorf("write API token %s: %w", t.ID, err)
		}
		t.Text = ""
	}
	g.e.event("api_token", t)
	switch {
	case g.e.json:
		return nil
	case out != "":
		g.e.print("%s", shown(out))
	default:
		if err := keepPrivate(g.e.stdout); err != nil {
			g.e.warn("the token goes into a file that others may read: %v", err)
		}
		g.e.print("%s", t.Text) // alone, so that it can go into a file
	}
	g.e.warn("API token %s, role %s over %s, until %s", t.ID, t.Role, rights.Scope{Domain: t.Domain, Region: t.Region}, stamp(t.Expires))
	return nil
}

func newAccessList(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "list [flags]",
		short:   "List API tokens and their last use",
		long:    "Lists the API tokens, the newest first, with those that expired or were revoked. It shows no token's text.",
		example: "nightferry access list",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := api.Access{Client: a}.List(ctx)
			if err != nil {
				return err
			}
			t := table{head: []string{"ID", "NAME", "ROLE", "OVER", "STATE", "USED"}, cut: []int{1, 3}}
			for i := range list {
				x := &list[i]
				e.event("api_token", x)
				state := "until " + minute(x.Expires)
				switch {
				case !x.Revoked.IsZero():
					state = "revoked by " + shown(x.RevokedBy)
				case !e.now().Before(x.Expires):
					state = "expired"
				}
				used := "never"
				if !x.Used.IsZero() {
					used = x.Used.UTC().Format(time.DateOnly)
				}
				t.add(x.ID, x.Name, x.Role, rights.Scope{Domain: x.Domain, Region: x.Region}.String(), state, used)
			}
			e.show(&t, "there are no API tokens")
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func newAccessRevoke(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "revoke [flags] ID",
		short:   "Revoke an API token",
		long:    "Revokes the API token ID. The next call with it is refused.",
		example: "nightferry access revoke 5f0c9a1e",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			t, err := api.Access{Client: a}.Revoke(ctx, args[0])
			if err != nil {
				return err
			}
			e.event("api_token_revoked", t)
			e.summary("API token %s (%s) is revoked", t.ID, shown(t.Name))
			return nil
		},
	})
	f.add(cmd)
	return cmd
}
