package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// parts are the pieces of the comparison, in the order in which they run.
var parts = []string{"corpus", "million", "wan", "sparse", "index", "fleet", "halt", "scrub", "rate", "plan", "console"}

// options are the command-line options.
type options struct {
	dir    string   // cache of the corpus and scratch space
	only   []string // parts to run
	tools  []string // tools to run
	quick  bool     // a small corpus, to test the harness; its ratios mean nothing
	direct bool     // no counting proxy, to measure its overhead
	report string   // path of the report
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == spawnFlag {
		return spawned(ctx, args[1:], stdout, stderr)
	}
	if len(args) == 3 && (args[0] == buildFlag || args[0] == planFlag) {
		return indexChild(ctx, args, stderr)
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := compare(ctx, o, log); err != nil {
		log.Error("benchmark failed", "err", err)
		return 1
	}
	return 0
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var only, tools string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	f.StringVar(&o.dir, "dir", filepath.Join(cache, "nightferry-bench"), "cache and scratch space, 35 GB; the corpus is kept between runs")
	f.StringVar(&only, "only", strings.Join(parts, ","), "parts to run")
	f.StringVar(&tools, "tools", "nightferry,restic,rclone,aws", "tools to run; none only builds what the parts need")
	f.BoolVar(&o.quick, "quick", false, "a small corpus: shows that the harness works, measures nothing")
	f.BoolVar(&o.direct, "direct", false, "no counting proxy: requests and bytes are not counted")
	f.StringVar(&o.report, "report", "docs/benchmarks.md", "the report; with -quick it goes to the cache instead")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.only, o.tools = strings.Split(only, ","), strings.Split(tools, ",")
	if tools == "none" {
		o.tools = nil
	}
	for _, p := range o.only {
		if !slices.Contains(parts, p) {
			fmt.Fprintf(stderr, "no part %q: the parts are %s\n", p, strings.Join(parts, ", "))
			return o, fmt.Errorf("no part %q", p)
		}
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return o, err
	}
	if o.quick {
		o.dir = filepath.Join(o.dir, "quick")
		o.report = filepath.Join(o.dir, "benchmarks.md")
	}
	return o, nil
}
