package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
)

// The part rate: one site with two runs and all of their connections. The limits change during the transfers.
const (
	rateFiles    = 300
	rateBytes    = 600 << 20 // of each channel: enough for the whole measurement
	rateWatch    = 10 * time.Second
	rateSettle   = 10 * time.Second // maximum time for a new limit to take effect
	rateStep     = 500 * time.Millisecond
	rateWithin   = 0.05
	ratePatience = 10 * time.Minute
)

// rateLimits are applied one after the other, in bits per second.
var rateLimits = []int64{20_000_000, 100_000_000, 8_000_000}

// rateSample is the result for one limit.
type rateSample struct {
	Limit  int64         // bits per second
	Settle time.Duration // from the command's return until half a second was within a fifth of the limit
	Got    float64       // bits per second over the watch
}

// rateResult holds the results of the part rate.
type rateResult struct {
	Run     string
	Load    float64
	Samples []rateSample
}

func (b *bench) ratePart(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, ratePatience, errors.New("the part rate took longer than it may"))
	defer cancel()
	res := &rateResult{Run: b.results.run, Load: loadAverage()}
	if err := b.clean(); err != nil {
		return err
	}
	const bucket = "rate"
	if err := os.Mkdir(filepath.Join(b.data, bucket), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the bucket: %w", err)
	}
	defer func() { err = errors.Join(err, b.drop(bucket)) }()
	store, err := startContentRelay(ctx, b.backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()
	c, err := b.startRateCore(ctx, bucket, store.addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.limit(ctx, rateLimits[0]); err != nil {
		return err
	}
	agent, err := c.rateAgent(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.stop()) }()
	if err := c.until(ctx, "both channels to move", 200*time.Millisecond, func() (bool, error) {
		var list []api.Site
		err := c.client.Call(ctx, "GET", "/v1/sites", nil, nil, &list)
		if err != nil || len(list) != 1 {
			return false, err
		}
		for _, ch := range list[0].Channels {
			if ch.Progress == nil || ch.Progress.BytesDone == 0 {
				return false, nil
			}
		}
		return len(list[0].Channels) == 2, nil
	}); err != nil {
		return err
	}
	for _, bits := range rateLimits {
		s := rateSample{Limit: bits}
		if err := c.limit(ctx, bits); err != nil {
			return err
		}
		if s.Settle, err = store.settle(ctx, float64(bits)/8); err != nil {
			return err
		}
		got, err := store.rate(ctx, rateWatch)
		if err != nil {
			return err
		}
		s.Got = got * 8
		b.log.Info("rate", "limit", bits, "got", int64(s.Got), "off_percent", 100*(s.Got/float64(bits)-1), "settled", s.Settle)
		res.Samples = append(res.Samples, s)
	}
	b.results.Rate = res
	return nil
}

// settle waits until the rate to the agent, measured over half a second, stays near the given rate for a second.
func (r *contentRelay) settle(ctx context.Context, bytesPerSecond float64) (time.Duration, error) {
	began, good := time.Now(), time.Now()
	for {
		got, err := r.rate(ctx, rateStep)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		if got < 0.8*bytesPerSecond || got > 1.2*bytesPerSecond {
			good = now
		}
		if now.Sub(good) >= 2*rateStep || now.Sub(began) > rateSettle {
			return good.Sub(began), nil
		}
	}
}

// startRateCore sets up a Core with one site of two channels, and publishes both.
func (b *bench) startRateCore(ctx context.Context, bucket, endpoint string) (_ *fleetCore, err error) {
	c := &fleetCore{dir: filepath.Join(b.scratch(), "core"), bin: filepath.Join(b.dir, "bin")}
	for _, name := range []string{"nightferry", "nightferry-agent"} {
		if err := tool(ctx, "", nil, "go", "build", "-o", filepath.Join(c.bin, name), "nightferry/cmd/"+name); err != nil {
			return nil, fmt.Errorf("build %s: %w", name, err)
		}
	}
	c.env = append(os.Environ(), store{home: filepath.Join(b.scratch(), "home")}.env()...)
	n, bytes := rateFiles, rateBytes
	if b.quick {
		bytes = 400 << 20
	}
	for i, ch := range []string{simChannel, realChannel} {
		if err := writeContent(c.source(ch), n+i, bytes); err != nil {
			return nil, fmt.Errorf("make the content of %s: %w", ch, err)
		}
	}
	control, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	if c.relay, err = startRelay(ctx, control); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	url := fmt.Sprintf("s3://%s/repo?region=%s&endpoint=http://%s", bucket, region, endpoint)
	var text strings.Builder
	fmt.Fprintf(&text, "version: 1\nstore: %q\ndata: %q\npublic: [\"tls://%s\"]\nlisten: {control: %q, websocket: off, metrics: off}\n", url, filepath.Join(c.dir, "data"), c.relay.addr, control)
	fmt.Fprintf(&text, "channels:\n  %s: {source: %q}\n  %s: {source: %q}\n", simChannel, c.source(simChannel), realChannel, c.source(realChannel))
	fmt.Fprintf(&text, "domains: {lab: {}}\nregions:\n  %s: {targets: {%s: %q, %s: %q}}\nsites:\n  %s: {domain: lab, region: %s, zone: Etc/UTC}\n", realRegion,
		simChannel, filepath.Join(c.target("{site}"), simChannel), realChannel, filepath.Join(c.target("{site}"), realChannel), realSite(0), realRegion)
	config := filepath.Join(c.dir, "nightferry.yaml")
	if err := os.WriteFile(config, []byte(text.String()), 0o644); err != nil {
		return nil, fmt.Errorf("write the Core's configuration: %w", err)
	}
	program := filepath.Join(c.bin, "nightferry")
	if err := tool(ctx, c.dir, c.env, program, "core", "init", c.dir, "--store", url, "--create-repository"); err != nil {
		return nil, err
	}
	if c.proc, err = startProcess(ctx, c.env, filepath.Join(c.dir, "core.log"), program, "core", "run", "--config", config); err != nil {
		return nil, err
	}
	c.client = api.NewClient(api.ClientOptions{Dir: filepath.Join(c.dir, "data")})
	if err := c.until(ctx, "the Core to serve", 100*time.Millisecond, func() (bool, error) {
		var h core.Health
		err := c.client.Call(ctx, "GET", "/v1/health", nil, nil, &h)
		return err == nil && h.Ready, nil
	}); err != nil {
		return nil, err
	}
	return c, errors.Join(c.publish(ctx, simChannel), c.publish(ctx, realChannel))
}

// rateAgent enrols the site and starts its agent.
func (c *fleetCore) rateAgent(ctx context.Context) (*process, error) {
	tokens, err := c.tokens(ctx, realRegion, 1)
	if err != nil {
		return nil, err
	}
	t := tokens[0]
	home := filepath.Join(c.dir, "site", t.Site)
	file := filepath.Join(home, "token")
	if err := errors.Join(os.MkdirAll(c.target(t.Site), 0o755), os.WriteFile(file, []byte(t.Text), 0o600)); err != nil {
		return nil, err
	}
	program, state := filepath.Join(c.bin, "nightferry-agent"), filepath.Join(home, "state")
	if err := tool(ctx, home, nil, program, "enroll", "--token-file", file, "--state", state, "--allow", c.target(t.Site)); err != nil {
		return nil, err
	}
	return startProcess(ctx, os.Environ(), filepath.Join(home, "agent.log"), program, "run", "--state", state)
}

// limit does the same as `nightferry limit`.
func (c *fleetCore) limit(ctx context.Context, bits int64) error {
	in := api.LimitRequest{Scope: api.Scope{Region: realRegion}, Rate: fmt.Sprintf("%dkbit", bits/1000)}
	if _, err := c.client.Limit(ctx, in); err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	return nil
}

// rateTargets judges the part rate.
func rateTargets(r *rateResult) []row {
	w := row{work: "rate of a site with 16 connections, over 10 s, after a live change", target: "within ±5 %"}
	if r != nil {
		w.ok = len(r.Samples) > 0
		var all []string
		for _, s := range r.Samples {
			off := s.Got/float64(s.Limit) - 1
			w.ok = w.ok && off >= -rateWithin && off <= rateWithin
			all = append(all, fmt.Sprintf("%+.1f %%", 100*off))
		}
		w.measured = strings.Join(all, ", ")
	}
	return []row{w}
}

// rateReport writes the results and how they were measured.
func rateReport(s *strings.Builder, r *rateResult) {
	if r == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: rate\n\nOne real agent with two channels that move at once, 8 connections each; `nightferry limit` changes the rate while they move. A relay before the store counts what goes to the agent, headers and all, "+
		"for %s from the moment at which the new rate is in force. Run %s, with a load of %.1f from others when it began.\n\n| limit | in force after | measured | off |\n| --- | --- | --- | --- |\n", seconds(rateWatch), r.Run, r.Load)
	for _, x := range r.Samples {
		fmt.Fprintf(s, "| %.0f Mbit/s | %s | %.2f Mbit/s | %+.1f %% |\n", float64(x.Limit)/1e6, seconds(x.Settle), x.Got/1e6, 100*(x.Got/float64(x.Limit)-1))
	}
}
