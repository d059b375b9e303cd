package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/api"
	"nightferry/internal/fleet"
)

// realAgents enrols and starts the real agents and publishes a release for them. It waits until each has attested the
// release, and then measures them while idle.
func (b *bench) realAgents(ctx context.Context, c *fleetCore, size fleetSize, res *fleetResult) (err error) {
	agents, stop, err := b.startAgents(ctx, c, realRegion, size.reals)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err := c.until(ctx, "the agents to connect", 500*time.Millisecond, func() (bool, error) {
		list, err := c.sites(ctx, agents)
		return err == nil && !slices.ContainsFunc(list, func(s api.Site) bool { return !s.Connected }), err
	}); err != nil {
		return err
	}
	b.log.Info("connected", "real_agents", size.reals)
	if err := b.converge(ctx, c, agents, res); err != nil {
		return err
	}
	return b.idle(ctx, c, agents, res)
}

// startAgents enrols n real agents of a region and starts a process for each. stop ends the started processes; call it even after
// an error.
func (b *bench) startAgents(ctx context.Context, c *fleetCore, region string, n int) (agents []*process, stop func() error, err error) {
	agents = make([]*process, n)
	stop = func() error {
		var stops errgroup.Group
		for _, p := range agents {
			if p != nil {
				stops.Go(p.stop)
			}
		}
		return stops.Wait()
	}
	tokens, err := c.tokens(ctx, region, n)
	if err != nil {
		return agents, stop, err
	}
	program := filepath.Join(c.bin, "nightferry-agent")
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, t := range tokens {
		g.Go(func() error {
			home := filepath.Join(c.dir, "site", t.Site)
			if err := os.MkdirAll(c.target(t.Site), 0o755); err != nil {
				return err
			}
			file := filepath.Join(home, "token")
			if err := os.WriteFile(file, []byte(t.Text), 0o600); err != nil {
				return err
			}
			return tool(gctx, home, nil, program, "enroll", "--token-file", file, "--state", filepath.Join(home, "state"), "--allow", c.target(t.Site))
		})
	}
	if err := g.Wait(); err != nil {
		return agents, stop, err
	}
	for i, t := range tokens {
		home := filepath.Join(c.dir, "site", t.Site)
		if agents[i], err = startProcess(ctx, os.Environ(), filepath.Join(home, "agent.log"), program, "run", "--state", filepath.Join(home, "state")); err != nil {
			return agents, stop, err
		}
	}
	return agents, stop, nil
}

// sites requests the status of the real sites. It fails if an agent has ended.
func (c *fleetCore) sites(ctx context.Context, agents []*process) (out []api.Site, err error) {
	for _, p := range agents {
		select {
		case <-p.ended:
			return nil, fmt.Errorf("an agent has ended: %w\n%s", p.err, p.log())
		default:
		}
	}
	out, err = c.client.Sites(ctx, fleet.Scope{Region: realRegion})
	if err == nil && len(out) != len(agents) {
		err = fmt.Errorf("the Core knows %d sites of %d", len(out), len(agents))
	}
	return out, err
}

// converge publishes and measures the time until the last agent's attestation is in the ledger.
func (b *bench) converge(ctx context.Context, c *fleetCore, agents []*process, res *fleetResult) error {
	before, err := cpuOf(agents)
	if err != nil {
		return err
	}
	c.relay.reset()
	if err := c.publish(ctx, realChannel); err != nil {
		return err
	}
	began := time.Now()
	if err := c.until(ctx, "the agents to hold the release", 500*time.Millisecond, func() (bool, error) {
		list, err := c.sites(ctx, agents)
		return err == nil && !slices.ContainsFunc(list, func(s api.Site) bool {
			return len(s.Channels) != 1 || s.Channels[0].Holds != 1 || s.Channels[0].State != "current" || s.Spooled > 0
		}), err
	}); err != nil {
		return err
	}
	res.Converge = time.Since(began)
	res.PullUp, res.PullDown = c.relay.up.Load(), c.relay.down.Load()
	after, err := cpuOf(agents)
	if err != nil {
		return err
	}
	for i := range after {
		res.PullCPU += after[i] - before[i]
	}
	for _, p := range agents {
		n, err := statusBytes(p.cmd.Process.Pid, "VmHWM")
		if err != nil {
			return err
		}
		res.AgentPeak = max(res.AgentPeak, n)
	}
	b.log.Info("converged", "agents", len(agents), "wall", res.Converge.Round(time.Millisecond), "cpu", res.PullCPU)
	want, err := sumTree(ctx, c.source(realChannel))
	if err != nil {
		return err
	}
	shape, err := shapeOf(c.source(realChannel))
	if err != nil {
		return err
	}
	res.Files, res.Bytes = int64(shape.Files), shape.Bytes
	for i := range agents {
		got, err := sumTree(ctx, c.target(realSite(i)))
		if err != nil {
			return err
		}
		for name := range got {
			if strings.HasPrefix(name, ".nightferry/") {
				delete(got, name)
			}
		}
		if v := compareSums(want, got); v.identical() {
			res.Identical++
		} else {
			b.log.Warn("a site's folder differs from the source", "site", realSite(i), "verdict", v, "example", v.Example)
		}
	}
	return nil
}

// idle measures the idle agents.
func (b *bench) idle(ctx context.Context, c *fleetCore, agents []*process, res *fleetResult) error {
	before, err := cpuOf(agents)
	if err != nil {
		return err
	}
	c.relay.reset()
	began := time.Now()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(idlePeriod):
	}
	res.IdleWire = float64(c.relay.up.Load()+c.relay.down.Load()) / time.Since(began).Seconds() / float64(len(agents))
	after, err := cpuOf(agents)
	if err != nil {
		return err
	}
	res.Idle = time.Since(began)
	for i, p := range agents {
		res.AgentCPU += (after[i] - before[i]).Seconds() / res.Idle.Seconds() / float64(len(agents))
		n, err := statusBytes(p.cmd.Process.Pid, "VmRSS")
		if err != nil {
			return err
		}
		res.AgentRSS = max(res.AgentRSS, n)
	}
	b.log.Info("idle", "agents", len(agents), "rss_mib", res.AgentRSS>>20, "cpu", res.AgentCPU, "bytes_per_second", res.IdleWire)
	return nil
}

func cpuOf(all []*process) ([]time.Duration, error) {
	out := make([]time.Duration, len(all))
	for i, p := range all {
		var err error
		if out[i], err = cpuTime(p.cmd.Process.Pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}
