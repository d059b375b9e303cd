package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/api"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
)

// simulate enrols and connects the simulated agents, changes their desired state, and lets each report a run.
func (b *bench) simulate(ctx context.Context, c *fleetCore, size fleetSize, res *fleetResult) (err error) {
	if err := c.publish(ctx, simChannel); err != nil {
		return err
	}
	tokens, err := c.tokens(ctx, simRegion, size.sims)
	if err != nil {
		return err
	}
	news := make(chan simNews, size.sims*(changeRounds+4)*4)
	sims := make([]*simAgent, size.sims)
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i, t := range tokens {
		g.Go(func() (err error) {
			sims[i], err = enrolSim(gctx, filepath.Join(b.scratch(), "sim", t.Site), t.Text, news)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	res.EnrolWall = time.Since(began)
	b.log.Info("enrolled", "agents", size.sims, "wall", res.EnrolWall.Round(time.Millisecond))
	live, leave := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer func() {
		leave()
		all.Wait()
		for _, a := range sims {
			if a.bus != nil {
				a.bus.Close()
			}
		}
	}()
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(32)
	for _, a := range sims {
		g.Go(func() error { return a.connect(gctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, a := range sims {
		all.Go(func() { a.live(live) })
	}
	if err := hearAll(ctx, news, size.sims, 0, nil); err != nil {
		return err
	}
	if res.ConnectRSS, err = statusBytes(c.pid(), "VmRSS"); err != nil {
		return err
	}
	b.log.Info("connected", "agents", size.sims, "core_rss_mib", res.ConnectRSS>>20)
	if err := b.changes(ctx, c, size, news, res); err != nil {
		return err
	}
	if err := b.reports(ctx, c, sims, size, res); err != nil {
		return err
	}
	for _, a := range sims {
		a.mu.Lock()
		err, lost := a.bad, a.lost
		a.mu.Unlock()
		if err != nil {
			return err
		}
		if lost > 0 {
			return fmt.Errorf("%s lost its connection %d times", a.id.Site, lost)
		}
	}
	res.CorePeak, err = statusBytes(c.pid(), "VmHWM")
	return err
}

// hearAll waits until n sites have applied a state with at least that start, and calls at for each.
func hearAll(ctx context.Context, news <-chan simNews, n int, start uint64, at func(simNews)) error {
	seen := make(map[string]bool, n)
	for len(seen) < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for all agents to hear of a change, %d of %d have: %w", len(seen), n, context.Cause(ctx))
		case x := <-news:
			if x.start >= start && !seen[x.site] {
				seen[x.site] = true
				if at != nil {
					at(x)
				}
			}
		}
	}
	return nil
}

// changes repeatedly gives all simulated sites a new start and times how the change reaches them. The time counts from
// before the request to the Core, so it includes the ledger's transaction and its sync to disk.
func (b *bench) changes(ctx context.Context, c *fleetCore, size fleetSize, news chan simNews, res *fleetResult) error {
	var middle []time.Duration
	var last uint64
	for range changeRounds {
		var took []time.Duration
		began := time.Now()
		var ordered errgroup.Group
		ordered.Go(func() error {
			in := api.SyncRequest{Scope: api.Scope{Region: simRegion}}
			return c.client.Stream(ctx, "POST", "/v1/sync", nil, in, func(json.RawMessage) error { return nil })
		})
		err := hearAll(ctx, news, size.sims, last+1, func(x simNews) {
			took = append(took, x.at.Sub(began))
			last = max(last, x.start)
		})
		if err := errors.Join(ordered.Wait(), err); err != nil {
			return err
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		middle = append(middle, took[len(took)/2])
		res.ChangeP99, res.ChangeMax = max(res.ChangeP99, p99), max(res.ChangeMax, took[len(took)-1])
		b.log.Info("a change has reached all", "agents", len(took), "p50", took[len(took)/2].Round(time.Millisecond), "p99", p99.Round(time.Millisecond), "max", took[len(took)-1].Round(time.Millisecond))
	}
	slices.Sort(middle)
	res.ChangeP50 = middle[len(middle)/2]
	return nil
}

// reports lets every simulated agent report a run of the whole release at once. Then it checks each outcome in the
// ledger and in the log files.
func (b *bench) reports(ctx context.Context, c *fleetCore, sims []*simAgent, size fleetSize, res *fleetResult) error {
	var st query.Status
	if err := c.client.Call(ctx, "GET", "/v1/status", nil, nil, &st); err != nil {
		return err
	}
	i := slices.IndexFunc(st.Channels, func(r ledger.Release) bool { return r.Channel == simChannel })
	if i < 0 {
		return errors.New("the Core knows no release")
	}
	files, err := os.ReadDir(c.source(simChannel))
	if err != nil {
		return err
	}
	sizes := make([]int64, len(files))
	for i, f := range files { // by name, which is their order in the release
		info, err := f.Info()
		if err != nil {
			return err
		}
		sizes[i] = info.Size()
	}
	cpu, err := cpuTime(c.pid())
	if err != nil {
		return err
	}
	c.relay.reset()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for _, a := range sims {
		g.Go(func() error { return a.report(gctx, st.Channels[i].Tree, sizes) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	res.OutcomeWall = time.Since(began)
	res.Outcomes = int64(len(sims)) * int64(len(sizes))
	res.OutcomeUp, res.OutcomeDown = c.relay.up.Load(), c.relay.down.Load()
	b.log.Info("outcomes committed", "outcomes", res.Outcomes, "wall", res.OutcomeWall.Round(time.Millisecond), "per_second", int64(float64(res.Outcomes)/res.OutcomeWall.Seconds()), "bytes_up", res.OutcomeUp)
	lines := map[string]int64{}
	err = c.until(ctx, "the log files", time.Second, func() (bool, error) {
		runs, err := c.runs(ctx, simChannel, "", size.sims+100)
		n := 0
		for _, r := range runs {
			if !r.Rendered.IsZero() && r.State == "verified" {
				n++
			}
			lines[r.Site] = r.Totals.Added
		}
		return n >= len(sims), err
	})
	if err != nil {
		return err
	}
	res.RenderWall = time.Since(began)
	after, err := cpuTime(c.pid())
	if err != nil {
		return err
	}
	res.CoreCPU = after - cpu
	b.log.Info("log files written", "wall", res.RenderWall.Round(time.Millisecond), "core_cpu", res.CoreCPU)
	logged, err := countLogs(filepath.Join(c.dir, "data", "logs"), simChannel, sizes)
	if err != nil {
		return err
	}
	for _, a := range sims {
		res.Lost += max(int64(len(sizes))-lines[a.id.Site], int64(len(sizes))-logged[a.id.Site])
	}
	return nil
}

// runs requests the runs of a channel.
func (c *fleetCore) runs(ctx context.Context, channel, site string, limit int) (out []ledger.Run, err error) {
	q := url.Values{"channel": {channel}, "limit": {strconv.Itoa(limit)}}
	if site != "" {
		q.Set("site", site)
	}
	return out, c.client.Call(ctx, "GET", "/v1/runs", q, nil, &out)
}

// countLogs counts, for each site, the files that occur exactly once in its logs of the channel, with the reported
// outcome and size. A log without its closing line is ignored.
func countLogs(dir, channel string, sizes []int64) (map[string]int64, error) {
	out := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		at := strings.Split(filepath.ToSlash(rel), "/") // domain, site, channel, date, run.jsonl
		if err != nil || d.IsDir() || len(at) != 5 || at[2] != channel || !strings.HasSuffix(path, ".jsonl") {
			return err
		}
		n, err := countLog(path, sizes)
		out[at[1]] += n
		return err
	})
	return out, err
}

func countLog(path string, sizes []int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	told := make([]int64, len(sizes))
	ended := false
	s := bufio.NewScanner(f)
	for s.Scan() {
		var l struct {
			Path    string `json:"path"`
			Outcome string `json:"outcome"`
			Fetched int64  `json:"fetched"`
			End     string `json:"end"`
		}
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
		ended = ended || l.End == "verified"
		var i int
		if _, err := fmt.Sscanf(l.Path, "file-%d.cab", &i); err == nil && l.Outcome == "added" && i >= 0 && i < len(told) && l.Fetched == sizes[i] {
			told[i]++
		}
	}
	var n int64
	for _, x := range told {
		if x == 1 {
			n++
		}
	}
	if !ended {
		n = 0
	}
	return n, s.Err()
}
