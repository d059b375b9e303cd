package main

import (
	"fmt"
	"strings"
	"time"
)

// fleetTargets judges the fleet part; nil means that it was not measured.
func fleetTargets(f *fleetResult) []row {
	var rows []row
	add := func(work, target string, judge func() (string, bool)) {
		w := row{work: work, target: target}
		if f != nil {
			w.measured, w.ok = judge()
		}
		rows = append(rows, w)
	}
	sims, reals := fmt.Sprintf("Core with %d agents", fleetSims), fmt.Sprintf("%d agents, a process each", fleetReal)
	add(sims, "≥ 20 000 file outcomes committed a second, none lost", func() (string, bool) {
		rate := f.outcomeRate()
		return fmt.Sprintf("%.0f a second, %d lost", rate, f.Lost), rate >= 20_000 && f.Lost == 0
	})
	add(sims, "a change of desired state reaches all in ≤ 1 s (p99)", func() (string, bool) {
		return milliseconds(f.ChangeP99), f.ChangeP99 <= time.Second
	})
	add(sims, "peak RSS ≤ 300 MiB", func() (string, bool) { return mib(f.CorePeak), f.CorePeak <= 300<<20 })
	add(sims, "outcomes ≤ 10 bytes per file on the wire", func() (string, bool) {
		n := perFile(f.OutcomeUp, f.Outcomes)
		return fmt.Sprintf("%.1f bytes", n), n <= 10
	})
	add(reals, "all hold a 200 MB release, byte for byte", func() (string, bool) {
		return fmt.Sprintf("%d of %d, in %s", f.Identical, f.Reals, seconds(f.Converge)), f.Identical == f.Reals
	})
	add("idle agent", "≤ 40 MiB RSS, ≤ 0.1 % CPU", func() (string, bool) {
		return fmt.Sprintf("%s, %.3f %%", mib(f.AgentRSS), 100*f.AgentCPU), f.AgentRSS <= 40<<20 && f.AgentCPU <= 0.001
	})
	add("idle agent", "costs the Core ≤ 200 bytes/s on the wire", func() (string, bool) {
		return fmt.Sprintf("%.1f bytes/s", f.IdleWire), f.IdleWire <= 200
	})
	return rows
}

func (f *fleetResult) outcomeRate() float64 { return float64(f.Outcomes) / f.OutcomeWall.Seconds() }

func perFile(bytes, files int64) float64 { return float64(bytes) / float64(max(1, files)) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// fleetReport writes the results of the fleet part and how they were
// measured.
func fleetReport(s *strings.Builder, f *fleetResult) {
	if f == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: fleet\n\nA real `nightferry core run` over one MinIO, on loopback; run %s, with a load of %.1f from others on the machine when it began. "+
		"A relay before the Core's control port counts the bytes of both ways, TLS and all.\n\n", f.Run, f.Load)
	fmt.Fprintf(s, "%d simulated agents in one process. Each has an identity and a JWT of its own by the real enrollment, a TLS connection, checks every signature of the Core's and signs all that it says; it moves no content.\n\n"+
		"| work | measured |\n| --- | --- |\n", f.Sims)
	line := func(work, format string, a ...any) {
		fmt.Fprintf(s, "| %s | %s |\n", work, fmt.Sprintf(format, a...))
	}
	line("enrollment of all, 32 at a time", "%s", seconds(f.EnrolWall))
	line("Core's RSS when all are connected", "%s", mib(f.ConnectRSS))
	line(fmt.Sprintf("an order reaches them, the worst of %d rounds but p50", changeRounds), "p50 %s, p99 %s, last %s", milliseconds(f.ChangeP50), milliseconds(f.ChangeP99), milliseconds(f.ChangeMax))
	line("all report a run at once, until the last acknowledgement", "%d outcomes in %s: %.0f a second", f.Outcomes, seconds(f.OutcomeWall), f.outcomeRate())
	line("… until the last log file", "%s; Core's CPU %s", seconds(f.RenderWall), seconds(f.CoreCPU))
	line("… on the wire, up and down", "%.2f and %.2f bytes per file", perFile(f.OutcomeUp, f.Outcomes), perFile(f.OutcomeDown, f.Outcomes))
	line("… outcomes that are not exactly once in ledger and log file", "%d", f.Lost)
	line("Core's peak RSS (VmHWM)", "%s", mib(f.CorePeak))
	fmt.Fprintf(s, "\nThen %d real agents, a process each, and the release of %d files, %s that do not compress, published by the Core while they wait. "+
		"Every file of every target is hashed and compared with the source by the benchmark itself.\n\n| work | measured |\n| --- | --- |\n", f.Reals, f.Files, mib(f.Bytes))
	line("from the release until the last attestation is in the ledger", "%s, %.0f MB/s in all", seconds(f.Converge), float64(f.Bytes)*float64(f.Reals)/1e6/f.Converge.Seconds())
	line("CPU per agent for it", "%s", seconds(f.PullCPU/time.Duration(max(1, f.Reals))))
	line("said to the Core and by it, all in all", "%.1f and %.1f bytes per file", perFile(f.PullUp, f.Files*int64(f.Reals)), perFile(f.PullDown, f.Files*int64(f.Reals)))
	line("targets that equal the source", "%d of %d", f.Identical, f.Reals)
	line("an agent's peak RSS, the largest", "%s", mib(f.AgentPeak))
	line(fmt.Sprintf("idle for %s: RSS, the largest; CPU, the mean", f.Idle.Round(time.Second)), "%s, %.3f %%", mib(f.AgentRSS), 100*f.AgentCPU)
	line("idle: bytes between an agent and the Core, both ways", "%.1f bytes/s", f.IdleWire)
	line("Core's peak RSS after all that, its publish included", "%s", mib(f.CoreEnd))
}
