package main

import (
	"context"
	"errors"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
)

var errFound = errors.New("something is not as it should be")

func newCheck(e *env) *cobra.Command {
	return e.newCommand("check", "Prove that this account can do the agent's work, no more",
		"Looks whether this account can write each allowed folder, and not the folder above it; whether the identity can be read by nobody else; whether Core and store can be reached; and whether the clock is right. Run it as the account that the agent runs as.",
		"nightferry-agent check", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			if err := e.checkedAs(); err != nil {
				return err
			}
			bad := false
			for _, f := range agent.Check(ctx, agent.CheckOptions{StateDir: e.stateDir, Env: os.Getenv, Now: e.now}) {
				bad = bad || f.Err != nil
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
	cause := ""
	if f.Err != nil {
		cause = f.Err.Error()
	}
	if e.json {
		return e.writeJSON(map[string]any{"event": "check", "what": f.What, "ok": f.Err == nil, "cause": cause})
	}
	if f.Err == nil {
		return e.print("%s", hangingIndent("ok    ", escapeControl(f.What)))
	}
	return e.print("%s", hangingIndent("wrong ", escapeControl(f.What)+": "+escapeControl(cause)))
}

// hangingIndent wraps a text behind a word, with the other lines below the first.
func hangingIndent(word, text string) string {
	return word + strings.ReplaceAll(wrapTo(text, lineWidth-len(word)), "\n", "\n"+strings.Repeat(" ", len(word)))
}

// checkedAs prints the account that checks. Root may write nearly everywhere, so its
// check proves nothing for the account of a service.
func (e *env) checkedAs() error {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	root := os.Geteuid() == 0
	if e.json {
		return e.writeJSON(map[string]any{"event": "account", "name": name, "root": root})
	}
	err := e.print("%s", hangingIndent("as    ", escapeControl(name)))
	if root {
		err = errors.Join(err, e.print("%s", hangingIndent("note  ", "root may write nearly everywhere. If the agent runs as another account, check as that account: sudo -u ACCOUNT nightferry-agent check")))
	}
	return err
}

func newStatus(e *env) *cobra.Command {
	return e.newCommand("status", "Releases, runs and incidents of this site",
		"Reads the state directory; the agent may be running or not.", "nightferry-agent status", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			s, err := agent.ReadStatus(ctx, e.stateDir, e.now)
			if err != nil {
				return err
			}
			if e.json {
				return errors.Join(e.statusJSON(&s), e.showHalt())
			}
			return errors.Join(e.statusText(&s), e.showHalt())
		})
}

func formatTime(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format("2006-01-02 15:04 MST")
}

func (e *env) statusText(s *agent.Status) error {
	err := e.print("site %s of domain %s, %d events to be reported", s.Identity.Site, s.Identity.Domain, s.Spooled)
	for _, h := range s.Holds {
		err = errors.Join(err, e.print("holds    %s release %d in %s, verified %s", h.Channel, h.Number, escapeControl(h.Target), formatTime(h.Verified)))
	}
	for _, r := range s.Runs {
		err = errors.Join(err, e.print("running  %s release %d since %s", r.Channel, r.Number, formatTime(r.Began)))
	}
	for _, p := range s.Problems {
		err = errors.Join(err, e.print("problem  %s since %s: %s", p.Kind, formatTime(p.Since), escapeControl(p.Text)))
	}
	return err
}

func (e *env) statusJSON(s *agent.Status) error {
	err := e.writeJSON(map[string]any{"event": "site", "domain": s.Identity.Domain, "site": s.Identity.Site, "region": s.Identity.Region, "spooled": s.Spooled})
	for _, h := range s.Holds {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "holds", "channel": h.Channel, "release": h.Number, "release_digest": h.Release, "target": h.Target, "verified": h.Verified}))
	}
	for _, r := range s.Runs {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "running", "channel": r.Channel, "release": r.Number, "began": r.Began}))
	}
	for _, p := range s.Problems {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "problem", "kind": p.Kind, "channel": p.Channel, "text": p.Text, "since": p.Since}))
	}
	return err
}
