package main

import (
	"fmt"
	"strings"
	"time"
)

// haltTargets judges the part halt; nil means that it was not measured.
func haltTargets(h *haltResult) []row {
	judge := func(target string, s func(*haltResult) *stopResult, bound time.Duration) row {
		w := row{work: fmt.Sprintf("halt of %d transferring agents", fleetReal), target: target}
		if h != nil {
			r := s(h)
			w.measured, w.ok = fmt.Sprintf("%s, %d bytes after", seconds(r.Last), r.After), r.Last <= bound && r.After == 0
		}
		return w
	}
	return []row{
		judge("last byte ≤ 1 s after the command (p100), 0 bytes after", func(h *haltResult) *stopResult { return &h.All }, haltBound),
		judge("with the control plane cut: ≤ 25 s, by the store", func(h *haltResult) *stopResult { return &h.Cut }, haltCutBound),
	}
}

// haltReport writes the results of the part halt and how they were measured.
func haltReport(s *strings.Builder, h *haltResult) {
	if h == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: halt\n\n%d real agents, a process each, pull a release of %s that does not compress, at most %.0f Mbit/s each; run %s on %d cores, with a load of %.1f from others when it began. "+
		"A relay before the store counts the bytes that go from it to agents, headers and all, but for the orders to stop themselves; the command is `nightferry halt --all`, a process too, and times count from its start. "+
		"In the second row the control plane is cut just before: agents read the store's orders, every 10 s, as they do anywhere.\n\n", h.Agents, mib(h.Bytes), float64(h.Limit)*8/1e6, h.Run, h.Cores, h.Load)
	s.WriteString("| | moving before | command returns | last byte | bytes after the bound | watched | sites that said so, the last of them |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	fmt.Fprintf(s, "| halt | %.0f Mbit/s | %s | %s | %d after 1 s | %s | %d, %s |\n", h.All.Rate*8/1e6, seconds(h.All.Command), seconds(h.All.Last), h.All.After, seconds(h.All.Watched), h.All.Proven, seconds(h.All.Proof))
	fmt.Fprintf(s, "| control plane cut | %.0f Mbit/s | %s | %s | %d after 25 s | %s | none can; %d had the release before |\n", h.Cut.Rate*8/1e6, seconds(h.Cut.Command), seconds(h.Cut.Last), h.Cut.After, seconds(h.Cut.Watched), h.Remainder)
}
