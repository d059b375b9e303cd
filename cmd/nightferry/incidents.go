package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
)

// newIncidentWord makes a command that says something of one open incident.
func newIncidentWord(e *env, name, flag, usage string, change func(*api.Client, context.Context, api.IncidentNote) (api.Incident, error), v verb) *cobra.Command {
	var f coreFlags
	var text, silent string
	v.use, v.min, v.max = name+" ID [flags]", 1, 1
	v.run = func(ctx context.Context, args []string) error {
		id, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || id <= 0 {
			return &usageError{err: fmt.Errorf("incident %q: want the number that nightferry incidents shows", args[0])}
		}
		if strings.TrimSpace(text) == "" {
			return &usageError{err: errors.New("--" + flag + " is required: the audit keeps it")}
		}
		note := api.IncidentNote{ID: id, Text: text}
		if silent != "" {
			d, err := parseDays(silent)
			if err != nil {
				return &usageError{err: fmt.Errorf("--silent: %w", err)}
			}
			note.Silent = e.now().Add(d)
		}
		a, err := f.client()
		if err != nil {
			return err
		}
		defer a.Close()
		i, err := change(a, ctx, note)
		if err != nil {
			return err
		}
		e.event("incident", i)
		e.summary("incident %d (%s): done", id, shown(i.Key))
		return nil
	}
	cmd := e.command(v)
	f.add(cmd)
	cmd.Flags().StringVar(&text, flag, "", usage)
	if name == "ack" {
		cmd.Flags().StringVar(&silent, "silent", "", "send no alert of it for `DURATION`, such as 8h or 3d, at most 30d; also if it ends and opens again")
	}
	return cmd
}

func newIncidentsClose(e *env) *cobra.Command {
	return newIncidentWord(e, "close", "reason", "reason for closing it, as `TEXT` for the audit", (*api.Client).CloseIncident, verb{
		short:   "Close an open incident",
		long:    "Closes an open incident for all its sites. Use it where nothing can show the Core that the cause has gone. If the cause lasts, a new incident opens. The audit keeps the reason.",
		example: "nightferry incidents close 12 --reason 'the server was scrapped'",
	})
}

func newIncidentsAck(e *env) *cobra.Command {
	return newIncidentWord(e, "ack", "note", "who does what about it, as `TEXT` for the audit", (*api.Client).AckIncident, verb{
		short:   "Acknowledge an open incident",
		long:    "Acknowledges an open incident: no daily reminder is sent for it. It stays open until its cause has gone. With --silent, no alert at all is sent of it for that time, also if it ends and opens again; if it is open then, it is told anew. Another ack without --silent ends the silence. The audit keeps the note.",
		example: "nightferry incidents ack 12 --note 'disk is ordered' --silent 3d",
	})
}

// sitesTold is how many sites of an incident a line names.
const sitesTold = 8

// where names the sites that an incident is open at, or was.
func where(x *api.Incident) string {
	var names []string
	for _, m := range x.Members {
		if m.Site != "" && (m.Left.IsZero() || !x.Resolved.IsZero()) {
			names = append(names, shown(m.Site))
		}
	}
	switch {
	case len(names) == 0:
		return "core"
	case len(names) == 1:
		return "site " + names[0]
	case len(names) > sitesTold:
		return "sites " + strings.Join(names[:sitesTold], ", ") + " and " + group(int64(len(names)-sitesTold)) + " more"
	}
	return "sites " + strings.Join(names, ", ")
}

// showIncident prints what is wrong, and where: the text is a sentence or two,
// for which no column is wide enough.
func (g fleetViews) showIncident(x *api.Incident) {
	if g.e.json {
		return
	}
	times := "reported once"
	if x.Count > 1 {
		times = "reported " + group(x.Count) + " times, last " + g.e.ago(x.Last)
	}
	g.e.print("%-4d %s  %s, %s, %s", x.ID, minute(x.Opened), shown(x.Kind), where(x), times)
	line := func(text string) { g.e.print("%s", indent(wrap(oneLine(text), lineWidth-2))) }
	line(x.Text)
	if x.Resolved.IsZero() {
		line("Remedy: " + x.Remedy)
	}
	if x.Acked != "" {
		line("Acknowledged by " + x.Acked)
	}
	if x.Silent.After(g.e.now()) {
		line("No alert is sent of it until " + minute(x.Silent))
	}
	switch {
	case x.Closed != "":
		line("Closed " + minute(x.Resolved) + " by " + x.Closed)
	case !x.Resolved.IsZero():
		line("Over since " + minute(x.Resolved))
	}
}
