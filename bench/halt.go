package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/query"
)

// The part halt: how much moves, how fast, and how long it is watched.
const (
	haltLimit    = 20_000_000 / 8 // bytes per second of each site: 20 Mbit/s
	haltBytes    = 280 << 20      // of the release: it lasts two minutes
	haltFiles    = 280
	haltWatch    = 10 * time.Second // after the halt
	haltSample   = 5 * time.Second  // before it, for the rate
	haltSpread   = 32 * time.Second // agents' own, after an order was lifted, and a little
	haltBound    = time.Second
	haltCutBound = 25 * time.Second
	haltPatience = 10 * time.Minute
)

// stopResult is the effect of one halt order. Times count from the start of the command.
type stopResult struct {
	Rate    float64       // bytes a second to all agents, just before
	Command time.Duration // until the command returned
	Last    time.Duration // the last byte to any agent
	After   int64         // bytes after the limit
	Watched time.Duration // duration of the watch, from the limit on
	Proof   time.Duration // when the last site stopped, by the sites' own reports
	Proven  int           // sites that reported their stop
}

// haltResult holds the results of the part halt.
type haltResult struct {
	Run       string
	Load      float64 // before the part, by other processes: 1 is one busy core
	Agents    int
	Limit     int64 // bytes per second of each site
	Bytes     int64 // of the release
	All       stopResult
	Cut       stopResult // the second path: the control plane was cut just before
	Cores     int
	Remainder int // sites that had the whole release before the second order, so had nothing to stop
}

// haltPart halts a whole fleet of real agents during a transfer: once through the Core, and once, with the Core
// disconnected, through the store.
func (b *bench) haltPart(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, haltPatience, errors.New("the part halt took longer than it may"))
	defer cancel()
	size := fleetSize{reals: fleetReal, realFiles: haltFiles, realBytes: haltBytes, rate: haltLimit}
	if b.quick {
		size.reals, size.realFiles, size.realBytes = 2, 200, 200<<20
	}
	res := &haltResult{Run: b.results.run, Agents: size.reals, Limit: size.rate, Bytes: int64(size.realBytes), Load: loadAverage(), Cores: runtime.NumCPU()}
	if err := b.clean(); err != nil {
		return err
	}
	const bucket = "halt"
	if err := os.Mkdir(filepath.Join(b.data, bucket), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the bucket: %w", err)
	}
	defer func() { err = errors.Join(err, b.drop(bucket)) }()
	store, err := startContentRelay(ctx, b.backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()
	size.endpoint = store.addr
	c, err := b.startFleetCore(ctx, bucket, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.publish(ctx, realChannel); err != nil {
		return err
	}
	agents, stop, err := b.startAgents(ctx, c, size)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err := b.untilAllMove(ctx, c, agents, store, size); err != nil {
		return err
	}
	if res.All.Rate, err = store.rate(ctx, haltSample); err != nil {
		return err
	}
	order, err := b.stopFleet(ctx, c, store, haltBound, &res.All)
	if err != nil {
		return err
	}
	b.log.Info("halted", "last", res.All.Last, "after", res.All.After, "proven", res.All.Proven, "proof", res.All.Proof, "rate", int64(res.All.Rate))
	if err := tool(ctx, c.dir, c.env, filepath.Join(c.bin, "nightferry"), "resume", order.String(), "--config", filepath.Join(c.dir, "nightferry.yaml")); err != nil {
		return err
	}
	if err := rest(ctx, haltSpread); err != nil {
		return err
	}
	if err := b.untilAllMove(ctx, c, agents, store, size); err != nil {
		return err
	}
	if res.Cut.Rate, err = store.rate(ctx, haltSample); err != nil {
		return err
	}
	list, err := c.sites(ctx, agents)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Channels[0].State == "current" {
			res.Remainder++
		}
	}
	if err := c.relay.close(); err != nil { // disconnect the control plane
		return err
	}
	if _, err := b.stopFleet(ctx, c, store, haltCutBound, &res.Cut); err != nil {
		return err
	}
	b.log.Info("halted by the second path", "last", res.Cut.Last, "after", res.Cut.After, "rate", int64(res.Cut.Rate), "done_before", res.Remainder)
	b.results.Halt = res
	return nil
}

// untilAllMove waits until every agent reports that it receives content, and until the rate is near the configured
// limits or no longer grows.
func (b *bench) untilAllMove(ctx context.Context, c *fleetCore, agents []*process, store *contentRelay, size fleetSize) error {
	if err := c.until(ctx, "content to move to all", 500*time.Millisecond, func() (bool, error) {
		list, err := c.sites(ctx, agents)
		return err == nil && !slices.ContainsFunc(list, func(s query.SiteStatus) bool {
			return len(s.Channels) != 1 || s.Channels[0].Progress == nil || s.Channels[0].Progress.BytesDone == 0
		}), err
	}); err != nil {
		return err
	}
	want, best := 0.95*float64(size.rate)*float64(size.reals), 0.0
	for range 8 {
		rate, err := store.rate(ctx, time.Second)
		if err != nil {
			return err
		}
		if rate > want || rate < 1.02*best {
			break
		}
		best = rate
	}
	return nil
}

// rate measures the bytes per second to all agents over d.
func (r *contentRelay) rate(ctx context.Context, d time.Duration) (float64, error) {
	before, began := r.bytes.Load(), time.Now()
	if err := rest(ctx, d); err != nil {
		return 0, err
	}
	return float64(r.bytes.Load()-before) / time.Since(began).Seconds(), nil
}

// stopFleet gives the halt order as an operator would, and measures the traffic after it.
func (b *bench) stopFleet(ctx context.Context, c *fleetCore, store *contentRelay, bound time.Duration, res *stopResult) (order halt.ID, err error) {
	began := time.Now()
	store.bound.Store(began.Add(bound).UnixNano())
	defer store.bound.Store(0)
	done := make(chan error, 1)
	go func() {
		err := tool(ctx, c.dir, c.env, filepath.Join(c.bin, "nightferry"), "halt", "--all", "--reason", "benchmark", "--config", filepath.Join(c.dir, "nightferry.yaml"))
		res.Command = time.Since(began)
		done <- err
	}()
	err = rest(ctx, bound)
	atBound := store.bytes.Load()
	if err = errors.Join(err, <-done); err != nil {
		return order, err
	}
	watch := time.Now()
	if err := rest(ctx, haltWatch); err != nil {
		return order, err
	}
	res.Watched = time.Since(watch)
	res.After = store.bytes.Load() - atBound
	res.Last = time.Unix(0, store.last.Load()).Sub(began)
	if res.After > 0 {
		store.mu.Lock()
		b.log.Warn("content after the bound", "bytes", store.late)
		store.mu.Unlock()
	}
	var list []core.HaltView
	if err := c.client.Call(ctx, "GET", "/v1/halts", url.Values{}, nil, &list); err != nil {
		return order, err
	}
	for _, v := range list {
		order = v.Order // the only one
		for _, s := range v.Sites {
			if !s.Stopped.IsZero() {
				res.Proven++
				res.Proof = max(res.Proof, s.Stopped.Sub(began))
			}
		}
	}
	return order, nil
}

// rest waits for d, or not at all if d is negative.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(0, d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
