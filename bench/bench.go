package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench is one run of the comparison.
type bench struct {
	options
	counter *counter
	server  string // host:port for the tools: the proxy, or the server itself with -direct
	backend string // host:port of the S3 server
	data    string // the server's folder
	log     *slog.Logger
	results *results
}

// compare runs the selected parts. It writes the report after each, so that an interrupted run keeps its results.
func compare(ctx context.Context, o options, log *slog.Logger) (err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	b := &bench{options: o, log: log, counter: &counter{requests: map[string]int64{}}, data: filepath.Join(o.dir, "minio")}
	if b.results, err = openResults(filepath.Join(o.dir, "results.json"), time.Now()); err != nil {
		return err
	}
	addr, stop, err := startMinIO(ctx, o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(), b.clean()) }()
	proxied, wait, err := b.counter.serve(ctx, "http://"+addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wait()) }()
	b.server, b.backend = proxied, addr
	if o.direct {
		b.server = addr
	}
	for _, part := range parts {
		if !slices.Contains(o.only, part) {
			continue
		}
		log.Info("part begins", "part", part)
		if err := b.part(ctx, part); err != nil {
			return fmt.Errorf("part %s: %w", part, err)
		}
		if err := b.results.save(); err != nil {
			return err
		}
		if err := writeReport(o.report, b.results, o.quick, o.direct); err != nil {
			return err
		}
	}
	log.Info("report written", "file", o.report)
	return nil
}

func (b *bench) part(ctx context.Context, part string) error {
	switch part {
	case "corpus":
		return b.mixedCorpus(ctx)
	case "million":
		return b.million(ctx)
	case "wan":
		return b.wan(ctx)
	case "sparse":
		return b.sparse(ctx)
	case "index":
		return b.syntheticIndex(ctx)
	case "fleet":
		return b.fleetPart(ctx)
	case "halt":
		return b.haltPart(ctx)
	case "scrub":
		return b.scrubPart(ctx)
	case "rate":
		return b.ratePart(ctx)
	case "plan":
		return b.planPart(ctx)
	case "console":
		return b.consolePart(ctx)
	}
	return fmt.Errorf("no part %q", part)
}

// scratch is the folder for targets and the tools' caches. It is removed at the end and before each tool.
func (b *bench) scratch() string { return filepath.Join(b.dir, "scratch") }

func (b *bench) clean() error { return os.RemoveAll(b.scratch()) }

// open gives a tool an empty bucket, an empty home and an initialised repository.
func (b *bench) open(ctx context.Context, name, bucket, src string) (*peer, error) {
	if err := b.clean(); err != nil {
		return nil, fmt.Errorf("clear the scratch folder: %w", err)
	}
	home := filepath.Join(b.scratch(), "home")
	if err := errors.Join(os.MkdirAll(home, 0o700), os.MkdirAll(b.target(), 0o755)); err != nil {
		return nil, err
	}
	// MinIO on one drive treats a folder at the top of its data as a bucket.
	if err := os.Mkdir(filepath.Join(b.data, bucket), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the bucket: %w", err)
	}
	p, err := b.newPeer(ctx, name, store{addr: b.server, bucket: bucket, home: home, src: src})
	if err != nil {
		return nil, err
	}
	if p.init != nil {
		if _, err := spawn(ctx, command{home, p.init, p.env}); err != nil {
			return nil, err
		}
	}
	b.results.tool(p)
	return p, nil
}

// drop frees the disk space of a tool's bucket and target.
func (b *bench) drop(bucket string) error {
	return errors.Join(os.RemoveAll(filepath.Join(b.data, bucket)), b.clean())
}

func (b *bench) target() string { return filepath.Join(b.scratch(), "target") }

// timed measures one piece of work and keeps the result.
func (b *bench) timed(ctx context.Context, part, work string, p *peer, c command, target string) (usage, error) {
	u, err := b.measure(ctx, c, target)
	if err != nil {
		return u, err
	}
	b.results.add(result{Part: part, Work: work, Tool: p.name, Usage: u})
	b.log.Info("measured", "work", work, "tool", p.name, "wall", u.Wall.Round(time.Millisecond), "sync", u.Sync.Round(time.Millisecond),
		"cpu", u.CPU.Round(time.Millisecond), "rss_mib", u.RSS>>20, "requests", u.Net.total(), "up", u.Net.Up, "down", u.Net.Down)
	return u, nil
}

// check compares a tool's result in dst with the source, and keeps the verdict with the measured work.
func (b *bench) check(ctx context.Context, part, work string, p *peer, dst string, want sums) error {
	got, err := sumTree(ctx, p.result(dst))
	if err != nil {
		return err
	}
	maps.DeleteFunc(got, func(name, _ string) bool { return p.own != "" && strings.HasPrefix(name, p.own) })
	v := compareSums(want, got)
	b.results.judge(part, work, p.name, v)
	if !v.identical() {
		b.log.Warn("result differs from the source", "work", work, "tool", p.name, "verdict", v, "example", v.Example)
	}
	return nil
}
