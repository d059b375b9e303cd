package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
)

// The store's clock advances with every write, so that grace periods pass equally fast on slow and fast machines.
const (
	raceTick  = time.Minute
	raceGrace = 100 * time.Minute // a push makes about six changes, and the others make as many meanwhile
)

// clocked is a store whose clock the test controls.
type clocked struct {
	bucket.Store
	mu       sync.Mutex
	time     time.Time
	modified map[string]time.Time
}

func (c *clocked) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

func (c *clocked) tick() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(raceTick)
	return c.time
}

func (c *clocked) stamp(i bucket.Info, key string) bucket.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.Date = c.time
	if at, ok := c.modified[key]; ok {
		i.Modified = at
	} else {
		i.Modified = c.time // between a Put and its stamp: recent in any case
	}
	return i
}

// Get implements bucket.Store.
func (c *clocked) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, i, err := c.Store.Get(ctx, key, off, n)
	return r, c.stamp(i, key), err
}

// Put implements bucket.Store.
func (c *clocked) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	i, err := c.Store.Put(ctx, key, body, cond)
	if err == nil {
		at := c.tick()
		c.mu.Lock()
		c.modified[key] = at
		c.mu.Unlock()
	}
	return c.stamp(i, key), err
}

// Delete implements bucket.Store.
func (c *clocked) Delete(ctx context.Context, key string) error {
	c.tick()
	return c.Store.Delete(ctx, key)
}

// List implements bucket.Store.
func (c *clocked) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	return c.Store.List(ctx, prefix, func(i bucket.Info) error { return fn(c.stamp(i, i.Key)) })
}

// racers is the state of the race.
type racers struct {
	t     *testing.T
	store *clocked
	until time.Time

	mu        sync.Mutex
	published map[string]look // key: channel/number
	pulled    []pulledLook
	n         map[string]int64
}

type pulledLook struct {
	release string
	look    look
}

func (r *racers) count(what string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n[what] += n
}

func (r *racers) dir(name string) string { return filepath.Join(r.t.TempDir(), name) }

// running reports whether to start another round. A slow machine gets up to overtime more, until the race is
// conclusive.
func (r *racers) running() bool {
	now := time.Now()
	return now.Before(r.until) || !r.telling() && now.Before(r.until.Add(overtime))
}

const overtime = 2 * time.Minute

// telling reports whether the race is conclusive: gc deleted packs while pushes and pulls succeeded.
func (r *racers) telling() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.n
	return n["packs deleted"] > 0 && n["published"] >= 10 && n["pulled"] >= 10 && n["pulls in vain"] <= n["pulled"] && n["pushes too late"] <= n["published"]
}

// TestRaceOfGCPushAndPull runs two pushes, two pulls and a gc on one bucket concurrently while content is removed and
// added again. Each successful pull gives, byte for byte, a published release. In the end fsck passes with all data
// read.
func TestRaceOfGCPushAndPull(t *testing.T) {
	r := &racers{t: t, until: time.Now().Add(time.Duration(share(60, 8)) * time.Second), published: map[string]look{}, n: map[string]int64{}}
	r.store = &clocked{Store: s3test.S3(t).Open(t), time: time.Now(), modified: map[string]time.Time{}}
	if _, err := repo.Init(t.Context(), r.store, repo.InitOptions{Root: rootKey(), Release: releaseKey(), Grace: raceGrace, Now: r.store.now()}); err != nil {
		t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 2 {
		name := fmt.Sprintf("channel-%d", i)
		rnd := rand.New(rand.NewPCG(uint64(i), 3))
		source, state, target := r.dir("source"), r.dir("state"), r.dir("target")
		if err := os.MkdirAll(state, 0o755); err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { return r.pusher(ctx, name, source, state, rnd) })
		g.Go(func() error { return r.puller(ctx, name, target) })
	}
	copies := r.dir("copies")
	if err := os.MkdirAll(copies, 0o755); err != nil {
		t.Fatal(err)
	}
	g.Go(func() error { return r.collector(ctx, copies) })
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for _, p := range r.pulled {
		want, ok := r.published[p.release]
		if !ok {
			t.Errorf("a pull brought %s, which nobody published", p.release)
		} else if d := differ(want, p.look); d != "" {
			t.Errorf("a pull of %s brought something else:%s", p.release, d)
		}
	}
	t.Logf("%v", r.n)
	if err := fsck(t, r.store, nil, copies); err != nil {
		t.Error(err)
	}
	if !r.telling() {
		t.Error("the race proved nothing: gc took nothing, or pushes and pulls gave up")
	}
}

func (r *racers) open(ctx context.Context) (*repo.Repo, error) {
	return repo.Open(ctx, r.store, repo.Options{Now: r.store.now})
}

// pusher publishes trees made from few contents, so that content returns after gc has condemned it.
func (r *racers) pusher(ctx context.Context, name, source, state string, rnd *rand.Rand) error {
	for r.running() {
		tr := tree{}
		for i := range 1 + rnd.IntN(5) {
			tr.file(fmt.Sprintf("d%d/f%d", rnd.IntN(2), i), random(generator(uint64(rnd.IntN(12))), 60_000))
		}
		if err := lay(source, tr); err != nil {
			return err
		}
		res, err := r.push(ctx, name, source, state)
		switch {
		case errors.Is(err, repo.ErrTooLong):
			r.count("pushes too late", 1)
		case err != nil:
			return fmt.Errorf("push: %w", err)
		default:
			r.count("published", 1)
			r.mu.Lock()
			r.published[fmt.Sprint(name, "/", res.Number)] = tr.look()
			r.mu.Unlock()
		}
	}
	return nil
}

func (r *racers) push(ctx context.Context, name, source, state string) (*push.Result, error) {
	root, err := durable.Open(state, durable.Options{})
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rep, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	return push.Run(ctx, rep, source, push.Options{Channel: name, AllowDeletes: true, Key: releaseKey(), State: root, Now: r.store.now})
}

func (r *racers) puller(ctx context.Context, name, target string) error {
	for r.running() {
		res, err := apply.Run(ctx, r.store, target, apply.Options{Channel: name, Now: r.store.now})
		var missing *repo.MissingError
		switch {
		case errors.Is(err, fs.ErrNotExist) && r.unborn(name):
			continue
		case errors.As(err, &missing), errors.Is(err, fs.ErrNotExist):
			// gc removed the releases that this pull needed.
			r.count("pulls in vain", 1)
			continue
		case err != nil:
			return fmt.Errorf("pull: %w", err)
		case res.Verdict != apply.Verified:
			return fmt.Errorf("pull: it ended %s", res.Verdict)
		}
		seen, err := see(target)
		if err != nil {
			return err
		}
		r.count("pulled", 1)
		r.mu.Lock()
		r.pulled = append(r.pulled, pulledLook{fmt.Sprint(name, "/", res.Number), seen})
		r.mu.Unlock()
	}
	return nil
}

// unborn reports whether a channel has no release yet.
func (r *racers) unborn(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.published[name+"/1"]
	return !ok
}

func (r *racers) collector(ctx context.Context, copies string) error {
	root, err := durable.Open(copies, durable.Options{})
	if err != nil {
		return err
	}
	defer root.Close()
	for r.running() {
		rep, err := r.open(ctx)
		if err != nil {
			return err
		}
		report, err := collect.GC(ctx, rep, rep.Segments(root), collect.Options{Keep: 1, MinSmall: 2})
		if err != nil {
			return err
		}
		r.count("releases expired", int64(report.Expired))
		r.count("packs condemned", report.Condemned)
		r.count("packs revived", report.Revived)
		r.count("packs repacked", report.Repacked)
		r.count("packs merged", report.Merged)
		r.count("packs deleted", report.Deleted)
	}
	return nil
}
