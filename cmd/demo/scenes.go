package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/trust"
	"nightferry/internal/window"
)

const (
	nightFile = 256 << 10 // size of each content file
	slack     = 2 * time.Second
)

// makeContent fills a folder with incompressible files.
func makeContent(dir string, size int64) error {
	var seed [32]byte
	random := rand.NewChaCha8(seed)
	for i := range max(size/nightFile, 8) {
		name := filepath.Join(dir, fmt.Sprintf("app-%02d", i%7), fmt.Sprintf("setup-%03d.bin", i))
		b := make([]byte, nightFile)
		_, _ = random.Read(b) // never fails
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// nightRun is a run in the output of nightferry runs --json.
type nightRun struct {
	Event, ID, Site, Channel, State, Cause, Trigger string
	Release                                         trust.ReleaseNumber
	Started, Finished                               time.Time
	Totals                                          struct{ Files, Bytes, Fetched, Held, Repaired int64 }
}

// runs returns the runs of a site, oldest first, without scrubs.
func (n *night) runs(ctx context.Context, site string) (out []nightRun, err error) {
	err = n.f.lines(ctx, func(b []byte) error {
		var r nightRun
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		if r.Event == "run" && r.Site == site && r.Trigger != "scrub" {
			out = append([]nightRun{r}, out...)
		}
		return nil
	}, "runs", "--json", "--site", site)
	return out, err
}

// wait updates the view until ready returns true. It fails 20 s after the simulated time last.
func (n *night) wait(ctx context.Context, last time.Time, what string, ready func() (bool, error)) error {
	limit := max(0, time.Until(n.motion.When(last))) + 20*time.Second
	return until(ctx, limit, 300*time.Millisecond, what, func() (bool, error) {
		if err := n.look(ctx); err != nil {
			return false, err
		}
		if n.f.core.ended() {
			return false, errors.New("the Core has ended")
		}
		return ready()
	})
}

// publish waits for the scheduled publish, which must precede the first window.
func (n *night) publish(ctx context.Context) error {
	opens := n.regions[0].first.Start
	var at time.Time
	err := n.wait(ctx, opens, "the publish", func() (bool, error) {
		err := n.f.lines(ctx, func(b []byte) error {
			var s struct {
				Channels []struct{ Published time.Time }
			}
			if err := json.Unmarshal(b, &s); err != nil {
				return err
			}
			for _, c := range s.Channels {
				at = c.Published
			}
			return nil
		}, "status", "--json")
		return !at.IsZero(), err
	})
	if err != nil {
		return err
	}
	n.say("the Core has published release 1, %s: nobody moves yet", size(n.bytes))
	n.holds(!at.Before(opens.Add(-time.Hour-n.shown(slack))) && at.Before(opens), "published before the first window", "%s, the window opens %s", clock(at), clock(opens))
	return nil
}

// shown converts real time to time in the rehearsal.
func (n *night) shown(d time.Duration) time.Duration { return d * time.Duration(n.speed) }

func clock(t time.Time) string { return t.UTC().Format("15:04Z") }

// current waits until the sites of a region hold release 1.
func (n *night) current(ctx context.Context, r *nightRegion, end time.Time) error {
	return n.wait(ctx, end, "the sync of "+r.name, func() (bool, error) {
		for _, s := range r.sites {
			if n.seen[s] != "ok" {
				return false, nil
			}
		}
		return true, nil
	})
}

// asia checks that the sites start when their window opens, stop when it closes, and continue in the next window.
func (n *night) asia(ctx context.Context) error {
	r := n.regions[0]
	if err := n.wait(ctx, r.first.End, "the start of "+r.name, func() (bool, error) { return n.any(r, "%"), nil }); err != nil {
		return err
	}
	n.say("night falls in Asia: its sites start, and nobody else does")
	if err := n.wait(ctx, r.first.End, "the end of the first window", func() (bool, error) { return n.now().After(r.first.End.Add(n.shown(time.Second))), nil }); err != nil {
		return err
	}
	before := n.wire.Counts().Down
	n.say("the window closes in the middle: they stop, and keep what they have")
	next, _ := window.Next(r.first.End, r.place, r.rule)
	var paused int64
	err := n.wait(ctx, next.Start, "the pause", func() (bool, error) {
		now := n.now()
		if now.Before(next.Start) { // data of the next window does not count
			paused = n.wire.Counts().Down - before
		}
		return now.After(next.Start.Add(-n.shown(300 * time.Millisecond))), nil
	})
	if err != nil {
		return err
	}
	if err := n.current(ctx, r, next.End); err != nil {
		return err
	}
	n.say("the next window: they go on, and do not begin anew")
	cut, twice := 0, int64(0)
	for _, s := range r.sites {
		runs, err := n.runs(ctx, s)
		if err != nil {
			return err
		}
		if len(runs) > 1 && runs[0].State == "stopped" && runs[1].State == "verified" && !runs[1].Started.Before(next.Start.Add(-time.Minute)) {
			cut++
		}
		var fetched int64
		for _, x := range runs {
			fetched += x.Totals.Fetched
		}
		twice = max(twice, fetched-n.content())
	}
	// On a slow machine, a site may start late and have nothing to stop.
	n.holds(cut > 0 && paused < 64<<10, "stopped at the window's end", "%d of %d sites, %s moved in the pause", cut, len(r.sites), size(paused))
	n.holds(twice < 17<<20, "goes on, not anew", "at most %s fetched twice", size(max(0, twice)))
	return n.inWindows(ctx, r)
}

// content returns the number of bytes that each site fetches.
func (n *night) content() int64 { return max(n.bytes/nightFile, 8) * nightFile }

// any reports whether the state of some site in the region contains mark.
func (n *night) any(r *nightRegion, mark string) bool {
	for _, s := range r.sites {
		if strings.Contains(n.seen[s], mark) {
			return true
		}
	}
	return false
}

// inWindows checks that all runs of a region were within its windows.
func (n *night) inWindows(ctx context.Context, r *nightRegion) error {
	all, inside, verified := 0, 0, 0
	for _, s := range r.sites {
		runs, err := n.runs(ctx, s)
		if err != nil {
			return err
		}
		for _, x := range runs {
			all++
			if w, ok := window.Open(x.Started.Add(time.Minute), r.place, r.rule); ok && !x.Finished.After(w.End.Add(n.shown(2*slack))) {
				inside++
			}
		}
		if len(runs) > 0 && runs[len(runs)-1].State == "verified" {
			verified++
		}
	}
	n.holds(all > 0 && inside == all && verified == len(r.sites), r.name+" moved in its own night", "%d of %d runs inside, %d of %d verified", inside, all, verified, len(r.sites))
	return nil
}

// corrupt flips one bit of a file at a site without changing its size or time, and waits for the repair.
func (n *night) corrupt(ctx context.Context) error {
	const at = "tokyo"
	name := filepath.Join("app-03", "setup-003.bin")
	file := filepath.Join(n.f.dir, at, "package", name)
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	good, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	if err := errors.Join(os.WriteFile(file, bad, 0o644), os.Chtimes(file, info.ModTime(), info.ModTime())); err != nil {
		return err
	}
	before, err := n.runs(ctx, at)
	if err != nil {
		return err
	}
	n.say("a bit of %s flips at %s: the same size and time", filepath.ToSlash(name), at)
	n.f.d.command("verify --site %s --full --repair", at)
	if _, err := n.f.tools.ask(ctx, "", n.f.tools.core, "verify", "--site", at, "--full", "--repair", "--no-follow"); err != nil {
		return err
	}
	var done nightRun
	err = n.wait(ctx, n.now().Add(4*time.Hour), "the repair", func() (bool, error) {
		runs, err := n.runs(ctx, at)
		for _, x := range runs[min(len(before), len(runs)):] {
			if x.State == "verified" {
				done = x
			}
		}
		return done.ID != "", err
	})
	if err != nil {
		return err
	}
	now, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n.say("found by its bytes and repaired, with %s fetched; and mailed:", size(done.Totals.Fetched))
	var mailed letter
	err = n.wait(ctx, n.now().Add(4*time.Hour), "the mail about it", func() (bool, error) {
		all, err := n.letters()
		for _, l := range all {
			if strings.Contains(l.subject, "discrepancy at "+at) && strings.Contains(l.text, filepath.ToSlash(name)) {
				mailed = l
			}
		}
		return mailed.name != "", err
	})
	if err != nil {
		return err
	}
	n.show(mailed)
	n.holds(done.Totals.Repaired == 1 && bytes.Equal(now, good) && done.Totals.Fetched <= 2<<20, "a flipped bit is repaired", "%d file, %s fetched of %s", done.Totals.Repaired, size(done.Totals.Fetched), size(n.content()))
	n.holds(strings.Contains(mailed.text, "What to do") || strings.HasPrefix(mailed.subject, "[nightferry] over"), "it is mailed", "%s", strings.TrimPrefix(mailed.subject, "[nightferry] "))
	return nil
}

// halt stops all transfers while Europe is in the middle of its own.
func (n *night) halt(ctx context.Context) error {
	r := n.regions[1]
	if err := n.wait(ctx, r.first.End, "the start of "+r.name, func() (bool, error) { return n.any(r, "%"), nil }); err != nil {
		return err
	}
	begun, base := time.Now(), n.wire.Counts().Down
	if err := n.wait(ctx, r.first.End, "content on its way to "+r.name, func() (bool, error) { return n.wire.Counts().Down-base > n.content()/3, nil }); err != nil {
		return err
	}
	speed := float64(n.wire.Counts().Down-base) / time.Since(begun).Seconds() / 1e6
	n.say("night in Europe, %.1f MB/s; and somebody on call has a doubt:", speed)
	n.f.d.command("halt --all --reason 'a bad package?'")
	ordered := time.Now()
	done := make(chan error, 1)
	var answer string
	go func() {
		var err error
		answer, err = n.f.tools.ask(ctx, "", n.f.tools.core, "halt", "--all", "--reason", "a bad package?", "--json")
		done <- err
	}()
	last, seen := ordered, n.wire.Counts().Down
	for time.Since(last) < haltQuiet && time.Since(ordered) < haltLimit {
		now := n.wire.Counts().Down
		if now-seen > haltPoll {
			last = time.Now()
		}
		seen = now
		time.Sleep(5 * time.Millisecond) // samples the byte counter; it does not wait for an event
	}
	if err := <-done; err != nil {
		return err
	}
	if err := n.look(ctx); err != nil {
		return err
	}
	took := last.Sub(ordered)
	n.say("the last byte left the store %.2f s after Enter; then 0 B/s", took.Seconds())
	n.holds(took <= time.Second, "a halt stops all within a second", "%.1f MB/s; last byte after %.2f s", speed, took.Seconds())
	var given struct{ Orders []string }
	line, _, _ := strings.Cut(answer, "\n")
	if err := json.Unmarshal([]byte(line), &given); err != nil || len(given.Orders) != 1 {
		return fmt.Errorf("the answer to halt is %q: %w", line, err)
	}
	order := given.Orders[0]
	n.f.d.command("resume %s", order)
	if _, err := n.f.tools.ask(ctx, "", n.f.tools.core, "resume", order); err != nil {
		return err
	}
	if err := n.current(ctx, r, r.first.End); err != nil {
		return err
	}
	n.say("lifted: Europe goes on from where it was, and finishes in its night")
	return n.inWindows(ctx, r)
}

func (n *night) america(ctx context.Context) error {
	r := n.regions[2]
	if err := n.wait(ctx, r.first.End, "the start of "+r.name, func() (bool, error) { return n.any(r, "%"), nil }); err != nil {
		return err
	}
	n.say("night in America")
	if err := n.current(ctx, r, r.first.End); err != nil {
		return err
	}
	return n.inWindows(ctx, r)
}
