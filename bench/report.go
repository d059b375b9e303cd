package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// notesMark divides the report: the text below it is written by hand and kept when the report is regenerated.
const notesMark = "<!-- notes: written by hand, kept by go run ./bench -->"

// writeReport writes the report to path and keeps the notes of the existing one.
func writeReport(path string, r *results, quick, direct bool) error {
	notes := "\n## What the profiles say\n\nNot written yet.\n"
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the old report: %w", err)
	}
	if _, below, ok := strings.Cut(string(old), notesMark); ok {
		notes = below
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	text := render(r, quick, direct) + "\n" + notesMark + notes
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func render(r *results, quick, direct bool) string {
	var s strings.Builder
	s.WriteString("# Benchmarks\n\nWritten by `go run ./bench`.\n")
	if quick {
		s.WriteString("\n**A `-quick` run: it shows that the harness works. Its numbers mean nothing.**\n")
	}
	if direct {
		s.WriteString("\n**A `-direct` run: requests and bytes were not counted.**\n")
	}
	s.WriteString("\n## Targets\n\n| work | target | measured | |\n| --- | --- | --- | --- |\n")
	for _, w := range targets(r) {
		verdict := "**missed**"
		switch {
		case w.measured == "":
			w.measured, verdict = "–", "not measured"
		case w.ok:
			verdict = "met"
		}
		fmt.Fprintf(&s, "| %s | %s | %s | %s |\n", w.work, w.target, w.measured, verdict)
	}
	method(&s, r)
	for _, part := range parts {
		table(&s, r, part)
	}
	fleetReport(&s, r.Fleet)
	haltReport(&s, r.Halt)
	rateReport(&s, r.Rate)
	planReport(&s, r.Plan)
	consoleReport(&s, r.Console)
	return s.String()
}

// method describes the corpus, the machine and the method, without which readers cannot judge the numbers.
func method(s *strings.Builder, r *results) {
	c := r.Corpus
	fmt.Fprintf(s, "\n## How it was measured\n\n- %d cores, Linux, %s. Tools, server and proxy share them.\n", runtime.NumCPU(), runtime.Version())
	if c.V1.Files > 0 {
		fmt.Fprintf(s, "- Corpus: %d Debian packages, %d of them in two versions, and what they unpack to; a tar, a zip, an ext4 image and a WIM of it. "+
			"v1: %d files, %s; v2: %d files, %s.\n", c.Packages, c.Updated, c.V1.Files, mib(c.V1.Bytes), c.V2.Files, mib(c.V2.Bytes))
	}
	if len(c.Edits) > 0 {
		var e []string
		for k, n := range c.Edits {
			e = append(e, fmt.Sprintf("%d %s", n, k))
		}
		slices.Sort(e)
		fmt.Fprintf(s, "- Files edited besides the package updates: %s. Every edit moves the file's time; all times are older than the upload.\n", strings.Join(e, ", "))
	}
	s.WriteString("- One MinIO process, one reverse proxy before it that counts; the same for every tool. The source is in memory beforehand.\n" +
		"- Wall time runs from start to exit plus a `syncfs` of the target's disk (after a push: the server's disk). CPU and peak memory are the tool's own, " +
		"without the server's and the proxy's; a peak below about 12 MiB cannot be told.\n" +
		"- Bytes are those of bodies. After every pull each file is hashed and compared with the source by the benchmark itself.\n")
	for _, name := range slices.Sorted(maps.Keys(r.Tools)) {
		t := r.Tools[name]
		fmt.Fprintf(s, "- %s: `%s`.", name, t.Version)
		if t.Note != "" {
			fmt.Fprintf(s, " It %s.", t.Note)
		}
		s.WriteString("\n")
	}
}

func table(s *strings.Builder, r *results, part string) {
	head := false
	for _, x := range r.All {
		if x.Part != part {
			continue
		}
		if !head {
			head = true
			fmt.Fprintf(s, "\n## Part: %s\n\n| work | tool | wall | of it sync | CPU | peak RSS | requests | up | down | result | run |\n"+
				"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", part)
		}
		verdict := ""
		if x.Verdict != nil {
			verdict = x.Verdict.String()
		}
		u := x.Usage
		fmt.Fprintf(s, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", x.Work, x.Tool, seconds(u.Wall), seconds(u.Sync),
			seconds(u.CPU), mib(u.RSS), kinds(u.Net), mib(u.Net.Up), mib(u.Net.Down), verdict, x.Run)
	}
}

func kinds(t traffic) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(t.Requests)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, t.Requests[k]))
	}
	if t.Failed > 0 {
		parts = append(parts, fmt.Sprintf("(%d failed)", t.Failed))
	}
	return strings.Join(parts, ", ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// number returns "" for values that could not be computed.
func number(x float64) string {
	if math.IsNaN(x) {
		return ""
	}
	return fmt.Sprintf("%.2f", x)
}

// join omits values that could not be computed.
func join(a, b string, x, y float64) string {
	switch {
	case math.IsNaN(x) && math.IsNaN(y):
		return ""
	case math.IsNaN(x):
		return b
	case math.IsNaN(y):
		return a
	}
	return a + ", " + b
}
