package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/schedule"
	"nightferry/internal/spool"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

const (
	// aheadMost and aheadRate, in bytes and bytes per second, limit reading a
	// release's plan before its window. The plan is not content.
	aheadMost = 64 << 20
	aheadRate = 256 << 10
	// aheadWait is the time limit for asking the Core and the store.
	aheadWait = 10 * time.Minute
	// prepareEvery is the interval at which the agent checks its plan again.
	prepareEvery = time.Hour
)

// preparation holds the needs of a channel's next run. The agent asks for them while
// the Core is reachable, so that the window can open without the Core.
type preparation struct {
	of     string        // the release and its target, see preparationOf
	index  uint64        // sequence of the index root that the plan was read from; 0: not read yet
	keys   []string      // objects that the run reads
	needed int64         // bytes of content that it must fetch; -1: not known
	at     time.Time     // when to look again
	wait   time.Duration // before a failure is tried again
}

func preparationOf(want *wire.Desired) string {
	return fmt.Sprintf("%d\x00%s\x00%s", want.Number, want.Release, want.Target)
}

// preparations holds the needs of the next runs.
type preparations struct {
	mu    sync.Mutex
	plans map[string]*preparation // by channel
}

// neededBytes returns the bytes that a channel's next run must fetch; -1: not known.
func (f *preparations) neededBytes(want *wire.Desired) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.planOf(want).needed
}

func (f *preparations) setNeeded(want *wire.Desired, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planOf(want).needed = bytes
}

// dropPlan forgets a channel's plan and returns the keys that were requested for it.
func (f *preparations) dropPlan(channel string) (keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.plans[channel]; p != nil {
		keys = p.keys
	}
	delete(f.plans, channel)
	return keys
}

// planAgain lets each channel plan anew at once.
func (f *preparations) planAgain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.plans {
		p.at = time.Time{}
	}
}

// planOf returns the plan of a channel's next run. The caller holds f.mu.
func (f *preparations) planOf(want *wire.Desired) *preparation {
	p := f.plans[want.Channel]
	if p == nil || p.of != preparationOf(want) {
		p = &preparation{of: preparationOf(want), needed: -1}
		f.plans[want.Channel] = p
	}
	return p
}

// errOpened stops the preparation of a run because its window opened.
var errOpened = errors.New("the window has opened")

// startPreparation starts the preparation of a run that waits for its window, if it is
// due. It returns the time until the next call. The preparation also finishes
// an interrupted commit, which needs no network.
func (a *agent) startPreparation(ctx context.Context, g *errgroup.Group, busy map[string]*job, want wire.Desired, left *spool.Run, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.preparing.mu.Lock()
	p := a.preparing.planOf(&want)
	d := p.at.Sub(now)
	a.preparing.mu.Unlock()
	if d > 0 {
		return d
	}
	if busy[want.Channel] != nil || a.running[want.Channel] != nil || len(a.running) >= schedule.MaxRuns || preparationJob(a.running) != nil || !a.night.mayAsk(now) {
		return watch
	}
	j := &job{rate: newLimiter(0), prepares: true}
	var failed error
	if !a.spawnJob(ctx, g, want.Channel, j, func(rctx context.Context) error {
		if failed = a.prepareRun(ctx, rctx, j, p, want, left); failed != nil && context.Cause(rctx) == nil {
			a.logNote(Info, want.Channel, fmt.Sprintf("release %d: what its run needs could not be asked for ahead of its window", want.Number), failed)
		}
		if kept := (spoolError{}); errors.As(failed, &kept) {
			return a.reportFullDisk(ctx, kept.error)
		}
		return nil
	}, func() {
		a.preparing.mu.Lock()
		defer a.preparing.mu.Unlock()
		wait := p.wait
		p.at, p.wait = a.o.Now().Add(prepareEvery), 0
		if failed != nil {
			p.wait = min(max(2*wait, a.o.Retry), maxRetry)
			p.at = a.o.Now().Add(p.wait)
		}
	}) {
		return watch
	}
	return prepareEvery
}

// preparationJob returns the job that prepares a run, or nil.
func preparationJob(jobs map[string]*job) *job {
	for _, j := range jobs {
		if j.prepares {
			return j
		}
	}
	return nil
}

// prepareRun finishes an interrupted commit, plans the next run, asks for
// presigned URLs and stores them in the spool.
func (a *agent) prepareRun(ctx, rctx context.Context, j *job, p *preparation, want wire.Desired, left *spool.Run) error {
	target, err := a.reachTarget(want.Target)
	if err != nil {
		return err
	}
	if left != nil {
		if err := a.finishCommit(ctx, rctx, *left); err != nil {
			return err
		}
	}
	rctx, cancel := context.WithTimeout(rctx, aheadWait)
	defer cancel()
	a.preparing.mu.Lock()
	since := p.index
	a.preparing.mu.Unlock()
	subject := a.halts.subjectOf(want.Channel)
	read := &keySet{}
	s := &store{Store: a.store, urls: a.urls, moved: &j.moved, limits: []*rate.Limiter{newLimiter(aheadRate)}, date: func(d time.Time) { a.storeClock.set(d, a.o.Now()) },
		reads: read.addKey, most: aheadMost}
	f, err := apply.Foresee(rctx, s, target, apply.Options{Channel: want.Channel, Root: a.id.targetOpener(want.Target), Release: want.Number, Digest: want.Release, Policy: want.Policy,
		Held: a.fills.heldIn(ctx, want.Channel, want.Target), Adopt: want.Adopt,
		Now: a.o.Now, RootKey: &a.id.Root, Key: a.id.repo, Subject: subject, Observer: a.o.Observer,
		Gate: func(context.Context) error {
			if h := a.halts.haltOrder(want.Channel); h != nil {
				return &halt.Error{Order: *h}
			}
			return nil
		}}, since)
	if err != nil {
		return err
	}
	a.mu.Lock()
	until := a.night.closeTime(a.o.Now(), want.Channel)
	a.mu.Unlock()
	a.preparing.mu.Lock()
	if f != nil {
		a.urls.releaseKeys(p.keys)
		read.addKey(haltKey)
		for _, key := range f.Packs[:min(len(f.Packs), maxPrefetch)] {
			read.addKey(key)
		}
		p.keys = read.sortedKeys()
		if p.needed < 0 || f.Needed < p.needed { // a stopped run has counted its staged bytes
			p.needed = f.Needed
		}
	}
	keys := p.keys
	a.preparing.mu.Unlock()
	lent, err := a.urls.keepPresigned(rctx, keys, until)
	if err != nil {
		return err
	}
	if err := a.spool.KeepPresigned(ctx, want.Channel, lent); err != nil {
		return spoolError{err}
	}
	if f == nil {
		return nil
	}
	a.preparing.mu.Lock()
	p.index = f.Index
	a.preparing.mu.Unlock()
	a.logNote(Info, want.Channel, fmt.Sprintf("release %d is ready for its window: %d bytes at most in %d packs", want.Number, f.Needed, len(f.Packs)), nil)
	return nil
}

// finishCommit finishes the commit that an earlier process left, if there is one. The
// run stays open, so its final report includes these outcomes.
func (a *agent) finishCommit(ctx, rctx context.Context, r spool.Run) error {
	target, err := a.reachTarget(r.Target)
	if err != nil || r.DryRun {
		return err
	}
	if r.Pass, err = a.spool.Pass(ctx, r.Channel); err != nil {
		return spoolError{err}
	}
	keep := context.WithoutCancel(ctx)
	t := &eventRecorder{a: a, ctx: keep, run: &r}
	return errors.Join(apply.Recover(rctx, target, a.applyOptions(keep, &r, t)), t.flushOutcomes())
}

// noteRemaining notes how many bytes a stopped run has still to fetch.
func (a *agent) noteRemaining(r *spool.Run, res *apply.Result) {
	if res == nil || res.BytesNeeded == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := findDesired(a.state, r.Channel); d != nil && d.Number == r.Number {
		a.preparing.setNeeded(d, max(0, res.BytesNeeded-res.BytesFetched))
	}
}

// mayAsk reports whether the agent may read a release's plan outside the
// window. An operator's limit of 0 forbids it. A rate of 0 in the timetable
// limits only content.
func (n *night) mayAsk(now time.Time) bool {
	if n.refused != nil {
		return false
	}
	shown := n.motion.At(now)
	if n.limit == nil || !n.until.IsZero() && !shown.Before(n.until) {
		return true
	}
	r, _ := n.limit.Rate(shown, n.place.Zone)
	return r > 0
}

// closeTime returns the end of a channel's open window, or else of its next one.
// It returns the zero time if the channel has no window.
func (n *night) closeTime(now time.Time, channel string) time.Time {
	rule, has := n.rules[channel]
	if !has {
		return time.Time{}
	}
	shown := n.motion.At(now)
	w, ok := window.Open(shown, n.place, rule)
	if !ok {
		w, _ = window.Next(shown, n.place, rule)
	}
	return n.motion.When(w.End)
}

// keySet collects keys. It is safe for concurrent use.
type keySet struct {
	mu  sync.Mutex
	all map[string]struct{}
}

func (k *keySet) addKey(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = map[string]struct{}{}
	}
	k.all[key] = struct{}{}
}

func (k *keySet) sortedKeys() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]string, 0, len(k.all))
	for key := range k.all {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// errMuch stops reading a plan that is too large to read outside a window.
var errMuch = fmt.Errorf("the plan takes more than %d MiB to read: it is read in the window", aheadMost>>20)

func tooMuch(key string) error {
	return &bucket.Error{Op: "get", Key: key, Kind: bucket.KindOther, Err: errMuch}
}
