package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
	"nightferry/internal/durable"
	"nightferry/internal/kinds"
	"nightferry/internal/spool"
)

func newStatus(e *env) *cobra.Command {
	return e.newCommand("status", "Core, halt orders, releases, runs and incidents of this site",
		"Reads the state directory; the agent may be running or not. It shows the site's own records and the date of each: whether it is connected to the Core, the halt orders that stop it, and for each channel the release that it holds and the one that the Core wants.", "nightferry-agent status", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			if err := durable.BecomeOwner(e.stateDir); err != nil {
				return err
			}
			s, err := agent.ReadStatus(ctx, e.stateDir, e.now)
			if s.Identity == nil {
				return err
			}
			show := e.statusText
			if e.json {
				show = e.statusJSON
			}
			return errors.Join(err, show(&s))
		})
}

func formatTime(t time.Time) string {
	if t.Unix() <= 0 {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

func formatUnix(unix int64) string { return formatTime(time.Unix(unix, 0)) }

func (e *env) statusText(s *agent.Status) error {
	agents := "no agent runs"
	if s.Running {
		agents = "the agent runs"
	}
	err := errors.Join(e.line("", "site %s of domain %s, %s, %d events to be reported", s.Identity.Site, s.Identity.Domain, agents, s.Spooled), e.coreText(s))
	if s.Local != nil {
		err = errors.Join(err, e.haltShown(s.Local))
	}
	for i := range s.Halts {
		o := &s.Halts[i]
		err = errors.Join(err, e.line("halted   ", "by order %s (%s) of the Core or the store since %s by %s: %s", o.ID.Short(), escapeControl(o.Target()), formatUnix(o.At), escapeControl(o.By), escapeControl(o.Reason)))
	}
	for _, c := range s.Channels {
		err = errors.Join(err, e.line("channel  ", "%s", escapeControl(channelText(&c, s.Stated))))
	}
	for _, r := range s.Runs {
		err = errors.Join(err, e.line("running  ", "%s release %d since %s", r.Channel, r.Number, formatUnix(r.Began)))
	}
	for _, p := range s.Problems {
		err = errors.Join(err, e.line("problem  ", "%s since %s: %s", p.Kind, formatUnix(p.Since), escapeControl(p.Text)))
	}
	for _, f := range s.Failures {
		err = errors.Join(err, e.line("failed   ", "%s", escapeControl(failureText(&f))))
	}
	return err
}

// failureText describes the last run of a channel that did not end well.
func failureText(f *spool.Failure) string {
	text := fmt.Sprintf("%s release %d ended %s at %s: %s", f.Channel, f.Number, f.State, formatUnix(f.At), f.Cause)
	if remedy := kinds.RunRemedy(f.Cause); remedy != "" {
		text += " (" + remedy + ")"
	}
	return text
}

// line prints a label and a text, wrapped beside it.
func (e *env) line(label, format string, args ...any) error {
	return e.print("%s", hangingIndent(label, fmt.Sprintf(format, args...)))
}

// coreText prints the state of the connection to the Core.
func (e *env) coreText(s *agent.Status) error {
	l, heard := &s.Core, "last message "+formatTime(s.Core.Heard)
	switch {
	case s.Refusal != nil:
		return errors.Join(e.line("core     ", "%s; refused since %s, %s", escapeControl(s.Refusal.Error()), formatTime(l.Since), heard), e.line("remedy   ", "%s", escapeControl(s.Refusal.Remedy())))
	case l.Connected:
		return e.line("core     ", "connected since %s to %s, %s", formatTime(l.Since), escapeControl(l.URL), heard)
	case l.Since.IsZero():
		return e.line("core     ", "not connected yet")
	case l.Cause != "":
		heard += ": " + l.Cause
	}
	return e.line("core     ", "not connected since %s, %s", formatTime(l.Since), escapeControl(heard))
}

func channelText(c *agent.ChannelStatus, stated time.Time) string {
	text := c.Channel + ": holds no release"
	if h := c.Held; h != nil {
		text = fmt.Sprintf("%s: holds release %d in %s, verified %s", c.Channel, h.Number, h.Target, formatUnix(h.Verified))
	}
	switch w := c.Wanted; {
	case stated.IsZero():
		return text + "; the Core's wish is not known"
	case w == nil:
		return text + "; the Core wants none here, as of " + formatTime(stated)
	case w.Number == 0:
		return text + "; none is published, as of " + formatTime(stated)
	case c.Held != nil && c.Held.Number == w.Number && c.Held.Target == w.Target:
		return text + "; the Core wants it, as of " + formatTime(stated)
	default:
		return fmt.Sprintf("%s; the Core wants release %d in %s, as of %s", text, w.Number, w.Target, formatTime(stated))
	}
}

func (e *env) statusJSON(s *agent.Status) error {
	l := &s.Core
	core := map[string]any{"event": "core", "connected": l.Connected, "since": l.Since, "url": l.URL, "heard": l.Heard, "refused": l.Refused, "cause": l.Cause}
	if s.Refusal != nil {
		core["cause"], core["remedy"] = s.Refusal.Error(), s.Refusal.Remedy()
	}
	err := errors.Join(e.writeJSON(map[string]any{"event": "site", "domain": s.Identity.Domain, "site": s.Identity.Site, "region": s.Identity.Region, "running": s.Running, "spooled": s.Spooled}), e.writeJSON(core))
	if s.Local != nil {
		err = errors.Join(err, e.haltShown(s.Local))
	}
	for _, o := range s.Halts {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "halt", "order": o.ID, "scope": o.Scope, "value": o.Value, "by": o.By, "reason": o.Reason, "at": o.At}))
	}
	for _, c := range s.Channels {
		if h := c.Held; h != nil {
			err = errors.Join(err, e.writeJSON(map[string]any{"event": "holds", "channel": h.Channel, "release": h.Number, "release_digest": h.Release, "target": h.Target, "verified": h.Verified}))
		}
		if w := c.Wanted; w != nil {
			err = errors.Join(err, e.writeJSON(map[string]any{"event": "wants", "channel": w.Channel, "release": w.Number, "release_digest": w.Release, "target": w.Target, "stated": s.Stated}))
		}
	}
	for _, r := range s.Runs {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "running", "channel": r.Channel, "release": r.Number, "began": r.Began}))
	}
	for _, p := range s.Problems {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "problem", "kind": p.Kind, "channel": p.Channel, "text": p.Text, "since": p.Since}))
	}
	for _, f := range s.Failures {
		err = errors.Join(err, e.writeJSON(map[string]any{"event": "failed", "channel": f.Channel, "release": f.Number, "state": f.State, "cause": f.Cause, "remedy": kinds.RunRemedy(f.Cause), "at": f.At}))
	}
	return err
}
