//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightferry/internal/testbed"
)

// act is one step of the plan.
type act struct {
	at   time.Duration
	what string
	do   func() error
}

// TestChaos breaks everything around a fleet at once, and then checks that no damage remains.
func TestChaos(t *testing.T) {
	sites, lasts := 6, 20*time.Second
	if testbed.Soak() {
		sites, lasts = 20, 2*time.Minute
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NIGHTFERRY_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("NIGHTFERRY_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("NIGHTFERRY_SEED=%d", seed)
	w := newWorld(t, sites)
	work := rand.New(rand.NewPCG(seed, 1))
	for _, c := range w.channels {
		c.fill(t, work)
	}
	w.serves()
	w.join()

	acts := w.plan(rand.New(rand.NewPCG(seed, 2)), lasts)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	over := make(chan struct{})
	go func() { defer close(over); w.play(acts) }()
	w.work(ctx, work)
	<-over
	w.calm()
	w.settle(work)
	w.check()
}

// play runs each act at its time.
func (w *world) play(acts []act) {
	began := time.Now()
	for _, a := range acts {
		time.Sleep(a.at - time.Since(began)) // not a wait for a condition: this is the plan's clock
		w.t.Logf("%6.2fs %s", time.Since(began).Seconds(), a.what)
		if err := a.do(); err != nil {
			w.t.Errorf("%s: %v", a.what, err)
		}
	}
}

// plan returns the faults with their times and durations. All of them end within lasts.
func (w *world) plan(r *rand.Rand, lasts time.Duration) (all []act) {
	for at := 300 * time.Millisecond; at < lasts; at += time.Duration(200+r.IntN(1000)) * time.Millisecond {
		s := w.sites[r.IntN(len(w.sites))]
		until := min(at+time.Duration(100+r.IntN(3000))*time.Millisecond, lasts)
		begin := func(what string, do func() error) { all = append(all, act{at, what, do}) }
		end := func(what string, do func() error) { all = append(all, act{until, what, do}) }
		set := func(x *line, m mode) func() error { return func() error { x.set(m); return nil } }
		f := flip{after: r.IntN(4 << 10), bit: uint(r.IntN(8))}
		switch n := r.IntN(100); {
		case n < 25:
			begin("kill "+s.site, func() error { return s.signal(os.Kill) })
			end("start "+s.site, s.start)
		case n < 35:
			begin("kill the Core", func() error { return w.core.signal(os.Kill) })
			end("start the Core", w.core.start)
		case n < 45:
			begin("cut "+s.site+" from the Core", set(s.control, cut))
			end("mend "+s.site, set(s.control, carries))
		case n < 55:
			begin("stall "+s.site, set(s.control, stalled))
			end("mend "+s.site, set(s.control, carries))
		case n < 62:
			begin("cut all from the store", set(w.content, cut))
			end("mend the store", set(w.content, carries))
		case n < 67:
			begin("stall the store", set(w.content, stalled))
			end("mend the store", set(w.content, carries))
		case n < 74:
			share, seed := r.Float64(), r.Uint64()
			begin("drop connections to the store", func() error { w.content.drop(rand.New(rand.NewPCG(seed, 0)), share); return nil })
		case n < 77:
			begin("kill everything", func() error {
				var errs []error
				for _, d := range w.all() {
					errs = append(errs, d.signal(os.Kill))
				}
				return errors.Join(errs...)
			})
			end("start everything", func() error {
				var errs []error
				for _, d := range w.all() {
					errs = append(errs, d.start())
				}
				return errors.Join(errs...)
			})
		case n < 88:
			f.after = r.IntN(128 << 10)
			begin("flip a bit of what the store answers", func() error { w.content.flip(down, f); return nil })
		case n < 92:
			f.after = r.IntN(32 << 10)
			begin("flip a bit of what the store is asked", func() error { w.content.flip(up, f); return nil })
		default:
			dir := r.IntN(2)
			f.after /= 8 // little traffic flows in this direction
			begin(fmt.Sprintf("flip a bit between %s and the Core", s.site), func() error { s.control.flip(dir, f); return nil })
		}
	}
	slices.SortStableFunc(all, func(a, b act) int { return int(a.at - b.at) })
	return all
}

// work runs an operator's commands meanwhile. Most of them may fail.
func (w *world) work(ctx context.Context, r *rand.Rand) {
	tried, done := 0, 0
	try := func(args ...string) {
		tried++
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		if _, err := ask(ctx, w.env, append([]string{"nightferry"}, args...)...); err == nil {
			done++
		}
	}
	for ctx.Err() == nil {
		for _, c := range w.channels {
			if len(c.releases) > 0 {
				c.mutate(w.t, r)
			}
			for range 3 {
				tried++
				ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
				err := w.publish(ctx, c)
				cancel()
				if err == nil {
					done++
					break
				}
				w.t.Logf("publish %s: %v", c.name, err)
			}
			s := w.sites[r.IntN(len(w.sites))]
			switch r.IntN(5) {
			case 0:
				try("sync", "--site", s.site)
			case 1:
				try("sync", "--region", s.region, "--channel", c.name)
			case 2:
				try("sync", "--domain", s.domain, "--dry-run")
			case 3:
				try("sync", "--all", "--rehash")
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(r.IntN(1500)) * time.Millisecond):
			}
		}
	}
	w.t.Logf("meanwhile, %d of %d publishes and syncs were answered", done, tried)
}

// publish publishes a channel, and records the source as that release.
func (w *world) publish(ctx context.Context, c *content) error {
	out, err := ask(ctx, w.env, "nightferry", "publish", c.name, "--json")
	if err != nil {
		return err
	}
	for l := range strings.Lines(out) {
		var v struct {
			Event   string
			Release uint64
		}
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			return err
		}
		if v.Event == "published" {
			c.releases[v.Release] = look(w.t, c.dir)
			return nil
		}
	}
	return fmt.Errorf("it says nothing of a release: %s", out)
}

// calm ends all active faults.
func (w *world) calm() {
	w.content.set(carries)
	hits := w.content.calm()
	for _, s := range w.sites {
		s.control.set(carries)
		hits += s.control.calm()
	}
	w.t.Logf("%d bits were flipped", hits)
	for _, d := range w.all() {
		for _, how := range d.deaths() {
			w.t.Errorf("%s ended by itself: %s", d.name, how)
		}
		if err := d.start(); err != nil {
			w.t.Error(err)
		}
	}
}

// siteLine is one site in the output of `nightferry sites`.
type siteLine struct {
	Site     string
	Channels []struct {
		Channel string
		Holds   uint64
		State   string
	}
}

// settle publishes once more, and waits until every site holds that release and has reported everything.
func (w *world) settle(r *rand.Rand) {
	w.t.Helper()
	w.serves()
	newest := map[string]uint64{}
	for _, c := range w.channels {
		if len(c.releases) > 0 {
			c.mutate(w.t, r)
		}
		within(w.t, time.Minute, "the last publish of "+c.name, func() (bool, error) {
			err := w.publish(w.t.Context(), c)
			return err == nil, err
		})
		for n := range c.releases {
			newest[c.name] = max(newest[c.name], n)
		}
	}
	within(w.t, 3*time.Minute, "every site holds the newest releases", func() (bool, error) {
		all := lines[siteLine](w, "site", "sites")
		if len(all) != len(w.sites) {
			return false, fmt.Errorf("%d sites, want %d", len(all), len(w.sites))
		}
		for _, s := range all {
			if len(s.Channels) != len(w.channels) {
				return false, fmt.Errorf("%s has %d channels", s.Site, len(s.Channels))
			}
			for _, c := range s.Channels {
				if c.Holds != newest[c.Channel] || c.State != "current" {
					return false, fmt.Errorf("%s holds %s %d and is %s, want %d", s.Site, c.Channel, c.Holds, c.State, newest[c.Channel])
				}
			}
		}
		return true, nil
	})
	within(w.t, time.Minute, "every run has ended and has its log", func() (bool, error) {
		for _, r := range w.runs() {
			if r.Finished.IsZero() || r.Rendered.IsZero() {
				return false, fmt.Errorf("run %s of %s at %q: finished %v, log %v", r.ID, r.Channel, r.Site, r.Finished, r.Rendered)
			}
		}
		return true, nil
	})
	for _, d := range w.all() {
		for _, how := range d.deaths() {
			w.t.Errorf("%s ended by itself in peace: %s", d.name, how)
		}
	}
	for _, s := range w.sites {
		if err := s.signal(syscall.SIGTERM); err != nil {
			w.t.Error(err)
		}
	}
}
