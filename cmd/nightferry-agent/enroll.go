package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
	"nightferry/internal/durable"
	"nightferry/internal/text"
)

// joinFlags are the flags of enroll and install.
type joinFlags struct {
	tokenFile string
	allow     []string
	replace   bool
}

func (f *joinFlags) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "read the token from `FILE`, or from standard input if that is -")
	cmd.Flags().StringArrayVar(&f.allow, "allow", nil, "required: let the Core name targets in or below `DIR`; may be given several times; the Core cannot widen it")
	cmd.Flags().BoolVar(&f.replace, "replace", false, "set an identity that is there already aside")
}

// joinSite enrolls the site with a token.
func (e *env) joinSite(ctx context.Context, f *joinFlags, args []string) (*agent.Identity, error) {
	if len(f.allow) == 0 {
		e.started = false // report a usage error; the token stays valid
		return nil, errors.New("name with --allow DIR where the Core may put files: without it, the site could hold nothing")
	}
	token, err := e.readToken(f, args)
	if err != nil {
		return nil, err
	}
	return agent.Enrol(ctx, token, agent.EnrolOptions{StateDir: e.stateDir, Allow: f.allow, Replace: f.replace, Version: version(), Env: os.Getenv, Now: e.now})
}

func (e *env) readToken(f *joinFlags, args []string) (string, error) {
	switch {
	case len(args) > 0 && f.tokenFile == "":
		return args[0], nil
	case len(args) > 0 || f.tokenFile == "":
		e.started = false // report a usage error
		return "", errors.New("give the token or --token-file FILE")
	}
	const most = 64 << 10
	var b []byte
	var err error
	if f.tokenFile == "-" {
		b, err = io.ReadAll(io.LimitReader(e.stdin, most))
	} else {
		b, err = durable.ReadTrusted(f.tokenFile, most)
	}
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if b, err = text.Decode(b); err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func newEnroll(e *env) *cobra.Command {
	var f joinFlags
	cmd := e.newCommand("enroll [TOKEN | --token-file FILE] --allow DIR [flags]", "Join this server to a Core",
		"Redeems the one-time token that nightferry site token NAME has printed at the Core: makes this site's key, which never leaves it, checks that the server is the Core, and stores the credential and the keys that the Core sends. The token is worthless afterwards. A token on the command line can be seen by others on this machine until it is used: --token-file hides it.",
		"nightferry-agent enroll --token-file token.txt --allow /srv/packages", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			id, err := e.joinSite(ctx, &f, args)
			if err != nil {
				return err
			}
			return e.printJoined(id)
		})
	f.addFlags(cmd)
	return cmd
}

func (e *env) printJoined(id *agent.Identity) error {
	if e.json {
		return e.writeJSON(map[string]any{"event": "enrolled", "domain": id.Domain, "site": id.Site, "region": id.Region, "core": id.Core, "store": id.Store, "allow": id.Allow})
	}
	return e.print("this server is site %s of domain %s; content comes from %s", id.Site, id.Domain, id.Store)
}
