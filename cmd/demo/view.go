package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/window"
)

// view prints the night: one row per hour, and one for each change.
type view struct {
	last  string // states of the last row
	hour  time.Time
	moved int64
	at    time.Time
}

func (v *view) head(d *demo, regions []*nightRegion) {
	var names, sites strings.Builder
	for _, r := range regions {
		fmt.Fprintf(&names, "|%-21s", r.name+" "+r.zone)
		fmt.Fprintf(&sites, "|clock      %-4.4s %-4.4s ", r.sites[0], r.sites[1])
	}
	d.say("\n  UTC %s| MB/s\n      %s|", names.String(), sites.String())
}

// look polls the Core and prints a row if an hour has passed or a state changed.
func (n *night) look(ctx context.Context) error {
	all, err := n.f.sites(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		n.seen[s.Site] = stateOf(s)
	}
	now := n.now()
	var row, states strings.Builder
	for _, r := range n.regions {
		open := "day "
		if _, ok := window.Open(now, r.place, r.rule); ok {
			open = "OPEN"
		}
		fmt.Fprintf(&row, "|%s %s ", now.In(r.place.Zone).Format("15:04"), open)
		states.WriteString(open)
		for _, s := range r.sites {
			fmt.Fprintf(&row, "%4s ", n.seen[s])
			states.WriteString(kindOf(n.seen[s]))
		}
	}
	v := &n.view
	if hour := now.Truncate(time.Hour); states.String() == v.last && !hour.After(v.hour) {
		return nil
	} else {
		v.last, v.hour = states.String(), hour
	}
	down, real := n.wire.Counts().Down, time.Now()
	speed := 0.0
	if took := real.Sub(v.at).Seconds(); !v.at.IsZero() && took > 0 {
		speed = float64(down-v.moved) / took / 1e6
	}
	v.moved, v.at = down, real
	n.f.d.say("%s %s|%5.1f", now.Format("15:04"), row.String(), speed)
	return nil
}

// stateOf returns the state of a site in at most four characters.
func stateOf(s siteLine) string {
	for _, c := range s.Channels {
		switch {
		case c.Progress != nil && c.Progress.BytesTotal > 0 && c.State == "running":
			return fmt.Sprintf("%d%%", min(99, 100*c.Progress.BytesDone/c.Progress.BytesTotal))
		case c.State == "running":
			return "0%"
		case c.State == "current":
			return "ok"
		case slices.Contains([]string{"stopped", "failed"}, c.LastEnd):
			return "part"
		}
	}
	return "-"
}

// kindOf reduces a state to the part whose change prints a new row: every percentage is the same.
func kindOf(state string) string {
	if strings.HasSuffix(state, "%") {
		return "%"
	}
	return state
}

// say prints a message between the rows.
func (n *night) say(format string, args ...any) {
	n.f.d.say("%s >> %s", n.now().Format("15:04"), fmt.Sprintf(format, args...))
}
