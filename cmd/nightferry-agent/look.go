package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
	"nightferry/internal/durable"
)

var errFound = errors.New("something is not as it should be")

func newCheck(e *env) *cobra.Command {
	return e.newCommand("check", "Prove that this account can do the agent's work, no more",
		"Looks whether this account can write each allowed folder, and not the folder above it; whether the identity can be read by nobody else; whether Core and store can be reached; and whether the clock is right. Run it as the account that the agent runs as, or as root, which then checks as the owner of the state directory.",
		"nightferry-agent check", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			if err := durable.BecomeOwner(e.stateDir); err != nil {
				return err
			}
			if err := e.checkedAs(); err != nil {
				return err
			}
			bad := false
			for _, f := range agent.Check(ctx, agent.CheckOptions{StateDir: e.stateDir, Env: os.Getenv, Now: e.now}) {
				bad = bad || f.Err != nil && !errors.Is(f.Err, agent.ErrUnproven)
				if err := e.printFinding(f); err != nil {
					return err
				}
			}
			if bad {
				return errFound
			}
			return nil
		})
}

func (e *env) printFinding(f agent.Finding) error {
	cause, remedy := "", ""
	if f.Err != nil {
		cause, remedy = f.Err.Error(), remedyOf(f.Err)
	}
	if e.json {
		return e.writeJSON(map[string]any{"event": "check", "what": f.What, "ok": f.Err == nil, "unproven": errors.Is(f.Err, agent.ErrUnproven), "cause": cause, "remedy": remedy})
	}
	if f.Err == nil {
		return e.print("%s", hangingIndent("ok    ", escapeControl(f.What)))
	}
	mark, text := "wrong ", escapeControl(f.What)+": "+escapeControl(cause)
	if errors.Is(f.Err, agent.ErrUnproven) {
		mark = "?     "
	}
	if remedy != "" {
		text += " (" + escapeControl(remedy) + ")"
	}
	return e.print("%s", hangingIndent(mark, text))
}

// hangingIndent wraps a text behind a word, with the other lines below the first.
func hangingIndent(word, text string) string {
	return word + strings.ReplaceAll(wrapTo(text, lineWidth-len(word)), "\n", "\n"+strings.Repeat(" ", len(word)))
}

// checkedAs prints the account that checks. Root may write nearly everywhere, so its
// check proves nothing for the account of a service.
func (e *env) checkedAs() error {
	name, root := accountName(), os.Geteuid() == 0
	if e.json {
		return e.writeJSON(map[string]any{"event": "account", "name": name, "root": root})
	}
	err := e.print("%s", hangingIndent("as    ", escapeControl(name)))
	if root {
		err = errors.Join(err, e.print("%s", hangingIndent("note  ", "root may write nearly everywhere. If the agent runs as another account, check as that account: sudo -u ACCOUNT nightferry-agent check")))
	}
	return err
}
