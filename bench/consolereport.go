package main

import (
	"fmt"
	"strings"
	"time"
)

// consoleTargets judges the console part; nil means that it was not measured.
func consoleTargets(c *consoleResult) []row {
	first := row{work: "first page of the console, 1 000 sites × 4 channels, 10 000 runs", target: "≤ 200 ms at the server, ≤ 300 KB sent"}
	table := row{work: "table of 10 000 sites", target: "≤ 300 ms at the server"}
	if c == nil {
		return []row{first, table}
	}
	for _, p := range c.Pages {
		switch {
		case p.Fleet.Sites == 1000 && p.Path == "/":
			first.measured, first.ok = fmt.Sprintf("%s, %d KB", milliseconds(p.Median), p.Bytes/1000), p.Median <= 200*time.Millisecond && p.Bytes <= 300_000
		case p.Fleet.Sites == 10_000 && p.Path == "/sites":
			table.measured, table.ok = milliseconds(p.Median), p.Median <= 300*time.Millisecond
		}
	}
	return []row{first, table}
}

func consoleReport(s *strings.Builder, c *consoleResult) {
	if c == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: console\n\nA real `nightferry core run` with a console over TLS on loopback; run %s, with a load of %.1f from others on the machine when it began. "+
		"The sites, their runs and what they hold were written into the ledger; no agent is connected. "+
		"Times are from the request to the last byte at the client: the first request after the start, and the median of %d later ones.\n\n"+
		"| sites | channels | runs | page | first | median | sent | read | Core's memory |\n| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n", c.Run, c.Load, pageRepeats-1)
	for _, p := range c.Pages {
		fmt.Fprintf(s, "| %d | %d | %d | `%s` | %s | %s | %d KB | %d KB | %s |\n", p.Fleet.Sites, p.Fleet.Channels, p.Fleet.Runs, p.Path, milliseconds(p.First), milliseconds(p.Median), p.Bytes/1000, p.Plain/1000, mib(p.CoreMemory))
	}
}
