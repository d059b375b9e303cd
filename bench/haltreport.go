package main

import (
	"fmt"
	"strings"
)

// haltTargets judges the part halt; nil means that it was not measured.
func haltTargets(h *haltResult) []row {
	judge := func(target string, s func(*haltResult) (measured string, ok bool)) row {
		w := row{work: fmt.Sprintf("halt of %d transferring and %d idle agents", haltMoving, haltIdle), target: target}
		if h != nil {
			w.measured, w.ok = s(h)
		}
		return w
	}
	return []row{
		judge("last byte ≤ 1.3 s after the command starts (p100), 0 bytes after", func(h *haltResult) (string, bool) {
			return fmt.Sprintf("%s, %d bytes after", seconds(h.All.Last), h.All.After), h.All.Last <= haltBound && h.All.After == 0
		}),
		judge("all sites confirmed ≤ 1 s after the last byte", func(h *haltResult) (string, bool) {
			return fmt.Sprintf("%d sites, %s", h.All.Sites, seconds(max(0, h.All.Confirmed-h.All.Last))), h.All.Sites == h.Moving+h.Idle && h.All.Confirmed-h.All.Last <= haltConfirm
		}),
		judge("with the Core's process stopped: ≤ 10.5 s, by the store", func(h *haltResult) (string, bool) {
			return fmt.Sprintf("%s, %d bytes after 25 s", seconds(h.Cut.Last), h.Cut.After), h.Cut.Last <= haltCutBound && h.Cut.After == 0
		}),
	}
}

// haltReport writes the results of the part halt and how they were measured.
func haltReport(s *strings.Builder, h *haltResult) {
	if h == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: halt\n\n%d real agents, a process each, pull a release of %s that does not compress, at most %.0f Mbit/s each. %d more are connected and have nothing to do. Run %s on %d cores (a virtual machine), with a load of %.1f from others when it began. "+
		"A relay before the store counts the bytes that it sends to agents, headers included and halt orders excluded. The command is a process too, and times count from its start. "+
		"In the second row the Core's process is stopped (SIGSTOP) just before, so its connections stay open, and the order is given to the store with a release key. Agents then read the store's orders every 10 s.\n\n",
		h.Moving, mib(h.Bytes), float64(h.Limit)*8/1e6, h.Idle, h.Run, h.Cores, h.Load)
	s.WriteString("| | moving before | command returns | last byte | bytes after the bound | watched | idle sites confirmed | all sites confirmed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	fmt.Fprintf(s, "| `halt --all` | %.0f Mbit/s | %s | %s | %d after 1.3 s | %s | %s | %d in %s |\n", h.All.Rate*8/1e6, seconds(h.All.Command), seconds(h.All.Last), h.All.After, seconds(h.All.Watched), seconds(h.All.Idle), h.All.Sites, seconds(h.All.Confirmed))
	fmt.Fprintf(s, "| `halt --all STORE`, Core stopped | %.0f Mbit/s | %s | %s | %d after 25 s | %s | | %d in %s after the Core continued; %d had the release before |\n", h.Cut.Rate*8/1e6, seconds(h.Cut.Command), seconds(h.Cut.Last), h.Cut.After, seconds(h.Cut.Watched),
		h.Cut.Sites, seconds(h.Awake), h.Done)
}
