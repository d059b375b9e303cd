package main

import (
	"context"
	"errors"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
	"nightferry/internal/durable"
)

// haltPatience bounds the wait for a running agent to obey a halt.
const haltPatience = 5 * time.Second

var errNotStopped = errors.New("the order is kept, but the agent that runs here has not confirmed it: nightferry-agent status shows it; killing the process is always safe, and the next start obeys")

func newHalt(e *env) *cobra.Command {
	var reason string
	cmd := e.newCommand("halt [--reason TEXT]", "Stop this site, independently of the Core",
		"All transfers of this site stop within a second; staged data is kept. It works without the Core, survives restarts of agent and machine, and is lifted only here, by resume. The agent reports it to the Core.",
		"nightferry-agent halt --reason 'the disk is failing'", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			if reason == "" {
				reason = "no reason given"
			}
			by := currentUser()
			if err := durable.BecomeOwner(e.stateDir); err != nil {
				return err
			}
			if err := agent.Halt(e.stateDir, agent.LocalHalt{Reason: reason, By: by, At: e.now()}); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, haltPatience)
			defer cancel()
			for {
				h, err := agent.LookHalt(e.stateDir)
				if err != nil {
					return err
				}
				if h == nil {
					return errors.New("the order was lifted meanwhile")
				}
				if !h.Running || !h.Stopped.IsZero() {
					return e.haltShown(h)
				}
				pause := time.NewTimer(50 * time.Millisecond)
				select {
				case <-ctx.Done():
					pause.Stop()
					return errNotStopped
				case <-pause.C:
				}
			}
		})
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` that everybody sees who asks why")
	return cmd
}

func newResume(e *env) *cobra.Command {
	return e.newCommand("resume", "Lift the order to stop that was given on this site",
		"Stopped runs continue. A halt order of the Core stays in force: nightferry resume lifts it there.", "nightferry-agent resume", cobra.NoArgs,
		func(context.Context, []string) error {
			if err := durable.BecomeOwner(e.stateDir); err != nil {
				return err
			}
			if err := agent.Resume(e.stateDir); err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(map[string]string{"event": "resumed"})
			}
			return e.print("the order that was given here is lifted")
		})
}

func (e *env) haltShown(h *agent.LocalHalt) error {
	if e.json {
		return e.writeJSON(map[string]any{"event": "halted", "reason": h.Reason, "by": h.By, "at": h.At, "running": h.Running, "stopped": h.Stopped, "bytes_after": h.Bytes})
	}
	err := e.print("halted   on this site since %s by %s: %s", h.At.UTC().Format("2006-01-02 15:04:05 MST"), escapeControl(h.By), escapeControl(h.Reason))
	switch {
	case !h.Running:
		err = errors.Join(err, e.print("         no agent runs; the next start obeys"))
	case h.Stopped.IsZero():
		err = errors.Join(err, e.print("         the agent has not confirmed"))
	default:
		err = errors.Join(err, e.print("         stopped at %s, %d bytes came after the order", h.Stopped.UTC().Format("2006-01-02 15:04:05.000 MST"), h.Bytes))
	}
	return err
}

// accountName returns the name of this process's account now: user.Current remembers the first one.
func accountName() string {
	uid := os.Geteuid()
	if uid < 0 { // Windows
		if u, err := user.Current(); err == nil {
			return u.Username
		}
		return "unknown"
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}

func currentUser() string {
	name := accountName()
	if h, err := os.Hostname(); err == nil {
		name += "@" + h
	}
	return name
}
