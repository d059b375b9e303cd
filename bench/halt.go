package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/halt"
)

// The part halt: how much moves, how fast, and how long it is watched.
const (
	haltMoving      = 40             // agents that transfer
	haltIdle        = 30             // agents that hold all they should
	haltLimit       = 10_000_000 / 8 // bytes per second of each site: 10 Mbit/s
	haltBytes       = 280 << 20      // of the release: it lasts almost four minutes
	haltFiles       = 280
	haltWatch       = 10 * time.Second // after the halt
	haltSample      = 5 * time.Second  // before it, for the rate
	haltSpread      = 32 * time.Second // agents' own, after an order was lifted, and a little
	haltBound       = 1300 * time.Millisecond
	haltConfirm     = time.Second // after the last byte
	haltCutBound    = 10500 * time.Millisecond
	haltCutPatience = 25 * time.Second // that docs/operations.md promises
	haltPatience    = 10 * time.Minute
)

// stopResult is the effect of one halt order. Times count from the start of the command.
type stopResult struct {
	Rate      float64       // bytes a second to all agents, just before
	Command   time.Duration // until the command returned
	Last      time.Duration // the last byte to any agent
	After     int64         // bytes after the limit
	Watched   time.Duration // duration of the watch, from the limit on
	Confirmed time.Duration // until the Core shows that all sites have stopped
	Idle      time.Duration // until it shows that those without a transfer have
	Sites     int           // that have confirmed
}

// haltResult holds the results of the part halt.
type haltResult struct {
	Run    string
	Load   float64 // before the part, by other processes: 1 is one busy core
	Moving int
	Idle   int
	Limit  int64 // bytes per second of each site
	Bytes  int64 // of the release
	All    stopResult
	Cut    stopResult    // the second path: the Core's process was stopped just before
	Awake  time.Duration // until all sites were confirmed, after the process continued
	Cores  int
	Done   int // sites that had the whole release before the second order, so had nothing to stop
}

// haltFleet is the fleet of the part halt.
type haltFleet struct {
	*bench
	core   *fleetCore
	store  *contentRelay
	size   fleetSize
	moving []*process
	url    string // of the store
	key    string // file of a release key that is not in the Core's vault
}

// haltPart halts a whole fleet of real agents during a transfer: once through the Core, and once through the store,
// while the Core's process is stopped and its connections stay open.
func (b *bench) haltPart(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, haltPatience, errors.New("the part halt took longer than it may"))
	defer cancel()
	size := fleetSize{reals: haltMoving, idle: haltIdle, realFiles: haltFiles, realBytes: haltBytes, rate: haltLimit}
	if b.quick {
		size.reals, size.idle, size.realFiles, size.realBytes = 2, 2, 100, 100<<20
	}
	res := &haltResult{Run: b.results.run, Moving: size.reals, Idle: size.idle, Limit: size.rate, Bytes: int64(size.realBytes), Load: loadAverage(), Cores: runtime.NumCPU()}
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
	f := &haltFleet{bench: b, core: c, store: store, size: size, url: storeURL(bucket, size.endpoint)}
	if err := f.makeKey(ctx); err != nil {
		return err
	}
	_, stopIdle, err := b.startAgents(ctx, c, simRegion, size.idle)
	defer func() { err = errors.Join(err, stopIdle()) }()
	if err != nil {
		return err
	}
	if err := c.publish(ctx, realChannel); err != nil {
		return err
	}
	var stop func() error
	f.moving, stop, err = b.startAgents(ctx, c, realRegion, size.reals)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	order, err := f.haltByCore(ctx, &res.All)
	if err != nil {
		return err
	}
	if err := tool(ctx, c.dir, c.env, f.program(), "resume", order.String(), "--config", f.config()); err != nil {
		return err
	}
	if err := rest(ctx, haltSpread); err != nil {
		return err
	}
	if err := f.haltByStore(ctx, res); err != nil {
		return err
	}
	b.results.Halt = res
	return nil
}

func (f *haltFleet) program() string { return filepath.Join(f.core.bin, "nightferry") }
func (f *haltFleet) config() string  { return filepath.Join(f.core.dir, "nightferry.yaml") }

// makeKey makes the release key of the operators on call.
func (f *haltFleet) makeKey(ctx context.Context) error {
	dir := filepath.Join(f.core.dir, "on-call")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for the key: %w", err)
	}
	if err := tool(ctx, f.core.dir, f.core.env, f.program(), "trust", "rotate", "--keep-old", "--root-key", filepath.Join(f.core.dir, "nightferry-root.key"), "--keys", dir, f.url); err != nil {
		return err
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 1 {
		return fmt.Errorf("make a release key: %d files, %w", len(keys), err)
	}
	f.key = keys[0]
	return nil
}

// haltByCore halts the fleet through the Core.
func (f *haltFleet) haltByCore(ctx context.Context, res *stopResult) (order halt.ID, err error) {
	if err := f.untilAllMove(ctx); err != nil {
		return order, err
	}
	if res.Rate, err = f.store.rate(ctx, haltSample); err != nil {
		return order, err
	}
	began := time.Now()
	confirmed := make(chan error, 1)
	wait, cancel := context.WithTimeout(ctx, haltWatch)
	defer cancel()
	go func() {
		var err error
		order, err = f.untilConfirmed(wait, began, res)
		confirmed <- err
	}()
	err = f.stopFleet(ctx, began, haltBound, res, "--config", f.config())
	if late := <-confirmed; late != nil {
		f.log.Warn("sites have not confirmed", "err", late)
	}
	f.log.Info("halted", "command", res.Command, "last", res.Last, "after", res.After, "sites", res.Sites, "confirmed", res.Confirmed, "idle", res.Idle, "rate", int64(res.Rate))
	return order, err
}

// haltByStore stops the Core's process and halts the fleet through the store.
func (f *haltFleet) haltByStore(ctx context.Context, res *haltResult) (err error) {
	if err := f.untilAllMove(ctx); err != nil {
		return err
	}
	if res.Cut.Rate, err = f.store.rate(ctx, haltSample); err != nil {
		return err
	}
	list, err := f.core.sites(ctx, f.moving)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Channels[0].State == "current" {
			res.Done++
		}
	}
	process := f.core.proc.cmd.Process
	if err := pauseProcess(process); err != nil {
		return fmt.Errorf("stop the Core's process: %w", err)
	}
	err = f.stopFleet(ctx, time.Now(), haltCutPatience, &res.Cut, "--release-key", f.key, f.url)
	awake := time.Now()
	if err := errors.Join(err, continueProcess(process)); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := f.untilConfirmed(wait, awake, &res.Cut); err != nil {
		return err
	}
	res.Awake, res.Cut.Confirmed, res.Cut.Idle = res.Cut.Confirmed, 0, 0
	f.log.Info("halted by the second path", "command", res.Cut.Command, "last", res.Cut.Last, "after", res.Cut.After, "rate", int64(res.Cut.Rate), "done_before", res.Done, "awake", res.Awake)
	return nil
}

// untilAllMove waits until every agent reports that it receives content, and until the rate is near the configured
// limits or no longer grows.
func (f *haltFleet) untilAllMove(ctx context.Context) error {
	if err := f.core.until(ctx, "content to move to all", 500*time.Millisecond, func() (bool, error) {
		list, err := f.core.sites(ctx, f.moving)
		return err == nil && !slices.ContainsFunc(list, func(s api.Site) bool {
			return len(s.Channels) != 1 || s.Channels[0].Progress == nil || s.Channels[0].Progress.BytesDone == 0
		}), err
	}); err != nil {
		return err
	}
	want, best := 0.95*float64(f.size.rate)*float64(f.size.reals), 0.0
	for range 8 {
		rate, err := f.store.rate(ctx, time.Second)
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
func (f *haltFleet) stopFleet(ctx context.Context, began time.Time, bound time.Duration, res *stopResult, where ...string) error {
	f.store.bound.Store(began.Add(bound).UnixNano())
	defer f.store.bound.Store(0)
	done := make(chan error, 1)
	go func() {
		err := tool(ctx, f.core.dir, f.core.env, f.program(), append([]string{"halt", "--all", "--reason", "benchmark"}, where...)...)
		res.Command = time.Since(began)
		done <- err
	}()
	err := rest(ctx, bound)
	atBound := f.store.bytes.Load()
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	watch := time.Now()
	if err := rest(ctx, haltWatch); err != nil {
		return err
	}
	res.Watched = time.Since(watch)
	res.After = f.store.bytes.Load() - atBound
	res.Last = time.Unix(0, f.store.last.Load()).Sub(began)
	if res.After > 0 {
		f.store.mu.Lock()
		f.log.Warn("content after the bound", "bytes", f.store.late)
		f.store.mu.Unlock()
	}
	return nil
}

// untilConfirmed waits until the Core shows that every site has stopped. It returns the order.
func (f *haltFleet) untilConfirmed(ctx context.Context, began time.Time, res *stopResult) (order halt.ID, err error) {
	err = f.core.until(ctx, "all sites to confirm the halt", 50*time.Millisecond, func() (bool, error) {
		list, err := f.core.client.Halts(ctx, false)
		if err != nil {
			return false, err
		}
		stopped, idle := 0, 0
		for _, v := range list {
			order = v.Order // the only one
			for _, s := range v.Sites {
				if s.Stopped.IsZero() {
					continue
				}
				stopped++
				if strings.HasPrefix(s.Site, idlePrefix) {
					idle++
				}
			}
		}
		res.Sites = stopped
		if idle == f.size.idle && res.Idle == 0 {
			res.Idle = time.Since(began)
		}
		res.Confirmed = time.Since(began)
		return stopped == f.size.idle+f.size.reals, nil
	})
	return order, err
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
