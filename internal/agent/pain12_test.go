package agent

import (
	"context"
	"crypto/ed25519"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// gone is a bus whose Core is away.
type gone struct{}

func (gone) Publish(string, []byte) error                 { return bus.ErrAway }
func (gone) Subscribe(string, func(string, []byte)) error { return nil }
func (gone) Flush(context.Context) error                  { return bus.ErrAway }
func (gone) SetURLs([]string) error                       { return nil }
func (gone) Close()                                       {}

// endless is a store whose content never comes to its end.
type endless struct{ bucket.Store }

func (e endless) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	if strings.HasPrefix(key, "packs/") {
		<-ctx.Done()
		return nil, bucket.Info{}, &bucket.Error{Op: "get", Key: key, Kind: bucket.KindOther, Err: context.Cause(ctx)}
	}
	body, info, err := e.Store.Get(ctx, key, off, n)
	info.Date = time.Time{} // that of this year
	return body, info, err
}

// fortnight is an agent that lives through days in no time, with its Core away:
// all is real but its clock, the line, and that its loop is driven by hand.
type fortnight struct {
	t    *testing.T
	a    *agent
	zone *time.Location
	now  atomic.Int64 // Unix milliseconds
	g    *errgroup.Group
	ctx  context.Context
}

func (f *fortnight) clock() time.Time { return time.UnixMilli(f.now.Load()) }

// fortnights share a repository of two channels.
type fortnights struct {
	store   bucket.Store
	repo    *repo.Repo
	root    ed25519.PrivateKey
	desired map[string]wire.Desired
}

func newFortnights(t *testing.T) *fortnights {
	t.Helper()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	x := &fortnights{root: ed25519.NewKeyFromSeed(make([]byte, 32)), desired: map[string]wire.Desired{}}
	key := ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	dir := t.TempDir()
	var err error
	x.store, err = bucket.Open(t.Context(), "file:///"+strings.TrimPrefix(filepath.ToSlash(dir), "/"), bucket.Options{})
	try(err)
	t.Cleanup(func() { try(bucket.Close(x.store)) })
	long := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err = repo.Init(t.Context(), x.store, repo.InitOptions{Root: x.root, Release: key, Now: long})
	try(err)
	caches, err := durable.Open(t.TempDir(), durable.Options{})
	try(err)
	t.Cleanup(func() { _ = caches.Close() })
	for _, channel := range []string{"image", "driver"} {
		src := t.TempDir()
		try(os.WriteFile(filepath.Join(src, "file"), []byte(noise(1<<20)+channel), 0o644))
		// A head vouches for a fortnight: this one is signed in the year that the test lives in, and lasts.
		now := func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }
		r, err := repo.Open(t.Context(), x.store, repo.Options{Now: now})
		try(err)
		_, err = push.Run(t.Context(), r, src, push.Options{Channel: channel, Key: key, State: caches, Now: now})
		try(err)
		h, err := r.Head(t.Context(), channel)
		try(err)
		x.desired[channel] = wire.Desired{Channel: channel, Number: h.Number, Release: h.Release, Nonce: []byte("nonce of 16 byte"), Bytes: 1 << 20}
		x.repo = r
	}
	return x
}

// agent makes one that begins at a time and has accepted a state.
func (x *fortnights) agent(t *testing.T, g *errgroup.Group, ctx context.Context, zone *time.Location, begin time.Time, windows map[string]string, rates string) *fortnight {
	t.Helper()
	f := &fortnight{t: t, zone: zone, g: g, ctx: ctx}
	f.now.Store(begin.UnixMilli())
	base := t.TempDir()
	sp, err := spool.Open(ctx, filepath.Join(base, "agent.db"), spool.Options{Now: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	})
	o := options(base, func(string, ...any) {})
	o.Now, o.Recheck = f.clock, time.Hour
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	a := newAgent(o, &Identity{Domain: here.Domain, Site: here.Site, Repo: x.repo.ID(), Root: repo.PublicOf(x.root), Store: "https://store", Allow: []string{base}, key: x.root}, nil, sp)
	a.store, a.bus = endless{x.store}, gone{}
	if err := a.keys.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.urls = newURLs(func(wire.Ask) error { return bus.ErrAway }, a.storeNow, time.Hour)
	f.a = a
	s := &wire.State{At: begin.UnixMilli(), Store: a.id.Store, Zone: zone.String(), Rates: rates}
	for _, channel := range []string{"driver", "image"} {
		d := x.desired[channel]
		d.Target, d.Windows = filepath.Join(base, channel), windows[channel]
		s.Desired = append(s.Desired, d)
	}
	if err := a.acceptState(ctx, 1, s); err != nil {
		t.Fatal(err)
	}
	return f
}

// ask is one turn of the daemon's loop, and of whatever that begins or ends: it
// returns how long the daemon would sleep now.
func (f *fortnight) ask() time.Duration {
	f.t.Helper()
	for {
		soon, err := f.a.startDue(f.ctx, f.g)
		if err != nil {
			f.t.Fatal(err)
		}
		if !f.settle() {
			return soon
		}
	}
}

// settle waits until what was begun has begun, and what was stopped has ended,
// and reports whether something has: then the daemon asks again.
func (f *fortnight) settle() (woken bool) {
	f.t.Helper()
	limit := time.After(patience)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for f.moving() {
		select {
		case <-look.C:
		case <-limit:
			f.t.Fatalf("a run that was stopped goes on at %s", f.clock().In(f.zone))
		}
	}
	select {
	case <-f.a.work:
		return true
	default:
		return false
	}
}

// moving reports whether a run is on its way to its begin or its end.
func (f *fortnight) moving() bool {
	runs, err := f.a.spool.Runs(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	for channel, j := range f.a.running {
		open, _ := f.a.night.isOpen(f.clock(), channel, false)
		if open == j.prepares || open && findLeftover(runs, channel) == nil {
			return true
		}
	}
	return false
}

// shown is the first minute at which a zone's clock shows hhmm of a day, or has
// passed it: found by looking at the clock, minute by minute.
func shown(day time.Time, hhmm string, zone *time.Location) time.Time {
	date := day.Format(time.DateOnly)
	for at := time.Date(day.Year(), day.Month(), day.Day(), 12, 0, 0, 0, zone).AddDate(0, 0, -1); ; at = at.Add(time.Minute) {
		if d, c := at.Format(time.DateOnly), at.Format("15:04"); d > date || d == date && c >= hhmm {
			return at
		}
	}
}

// span is a window as the site's clock on the wall has it.
type span struct{ from, to time.Time }

func spans(first time.Time, days int, rule string, zone *time.Location) (all []span) {
	from, to, _ := strings.Cut(rule, "-")
	for i := range days {
		day := first.AddDate(0, 0, i)
		end := day
		if to <= from {
			end = day.AddDate(0, 0, 1)
		}
		all = append(all, span{shown(day, from, zone), shown(end, to, zone)})
	}
	return all
}

// TestPain12 lives through 14 days in five zones over both of their clock
// changes, by the daemon's own decisions, with the Core away: in each window
// each channel starts once, at its begin, and stops at its end, to the second.
// What it does is read from the events that it would tell the Core.
func TestPain12(t *testing.T) {
	x := newFortnights(t)
	windows := map[string]string{"image": "20:00-06:00", "driver": "02:15-05:00"}
	for _, z := range []struct{ name, spring, autumn string }{
		{"Europe/Berlin", "2026-03-29", "2026-10-25"},
		{"America/New_York", "2026-03-08", "2026-11-01"},
		{"Pacific/Chatham", "2026-09-27", "2026-04-05"},
		{"Australia/Lord_Howe", "2026-10-04", "2026-04-05"},
		{"Asia/Kathmandu", "2026-03-29", "2026-10-25"},
	} {
		for _, edge := range []string{z.spring, z.autumn} {
			t.Run(strings.ReplaceAll(z.name, "/", "-")+"_"+edge, func(t *testing.T) {
				t.Parallel()
				x.live(t, z.name, edge, windows)
			})
		}
	}
}

func (x *fortnights) live(t *testing.T, zoneName, edge string, windows map[string]string) {
	zone, err := time.LoadLocation(zoneName)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", edge+" 12:00", zone)
	if err != nil {
		t.Fatal(err)
	}
	const days = 14
	first := at.AddDate(0, 0, -7)
	want := map[string][]span{}
	var edges []time.Time
	for channel, rule := range windows {
		from := first
		if channel == "driver" {
			from = first.AddDate(0, 0, 1) // the one of the first day is over
		}
		want[channel] = spans(from, days, rule, zone)
		for _, s := range want[channel] {
			edges = append(edges, s.from, s.to)
		}
	}
	begin := time.Date(first.Year(), first.Month(), first.Day(), 13, 0, 0, 0, zone)
	end := begin.AddDate(0, 0, days)
	ctx, cancel := context.WithCancel(t.Context())
	g, gctx := errgroup.WithContext(ctx)
	f := x.agent(t, g, gctx, zone, begin, windows, "06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited")
	rng := rand.New(rand.NewPCG(12, uint64(at.Unix())))
	for f.clock().Before(end) {
		soon := f.ask()
		f.paced()
		now := f.clock()
		// The daemon looks at the clock at least once a minute, because somebody may set it. Most of these looks are
		// left out, as while a machine sleeps; never those around a window's begin and end.
		next := end
		for _, e := range edges {
			if e.After(now) && e.Before(next) {
				next = e
			}
		}
		if far := next.Add(-2*watch - time.Duration(rng.Int64N(int64(time.Minute)))); far.After(now.Add(soon)) {
			f.now.Store(far.UnixMilli())
			continue
		}
		f.now.Store(now.Add(max(soon, time.Millisecond)).UnixMilli())
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for channel, got := range f.lived() {
		if len(got) != len(want[channel]) {
			t.Errorf("%s: %d runs in %d windows", channel, len(got), len(want[channel]))
			continue
		}
		for i, w := range want[channel] {
			if d, e := got[i].from.Sub(w.from), got[i].to.Sub(w.to); d < 0 || d > time.Second || e < 0 || e > time.Second {
				t.Errorf("%s: ran %s to %s, its window was %s to %s", channel, got[i].from.In(zone), got[i].to.In(zone), w.from, w.to)
			}
		}
	}
}

// paced checks that the rate of the hour is in force.
func (f *fortnight) paced() {
	f.t.Helper()
	want := rate.Inf
	switch hour := f.clock().In(f.zone).Hour(); {
	case hour >= 20 && hour < 22:
		want = 20_000_000 / 8
	case hour >= 6 && hour < 20:
		return // nothing moves
	}
	if got := f.a.rate.Limit(); got != want {
		f.t.Errorf("%v bytes per second at %s, want %v", got, f.clock().In(f.zone), want)
	}
}

// lived reads from the spool when each run began and ended.
func (f *fortnight) lived() map[string][]span {
	f.t.Helper()
	out := map[string][]span{"image": nil, "driver": nil}
	open := map[string]time.Time{}
	for next := uint64(1); ; {
		_, events, err := f.a.spool.Batch(context.Background(), next, 1<<20)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(events) == 0 {
			return out
		}
		next += uint64(len(events))
		for _, e := range events {
			at := time.UnixMilli(e.At)
			switch e.Kind {
			case wire.StartedEvent:
				if _, ok := open[e.Channel]; ok {
					f.t.Errorf("%s: a run begins at %s while one is open", e.Channel, at.In(f.zone))
				}
				open[e.Channel] = at
			case wire.FinishedEvent:
				var fin wire.Finished
				if err := wire.Decode(e.Body, &fin); err != nil || fin.Verdict != runs.Stopped || !strings.Contains(fin.Error, "the window has closed") {
					f.t.Errorf("%s: a run ends %s at %s: %s, %v", e.Channel, fin.Verdict, at.In(f.zone), fin.Error, err)
				}
				out[e.Channel] = append(out[e.Channel], span{open[e.Channel], at})
				delete(open, e.Channel)
			case wire.ProblemEvent:
				f.t.Errorf("a problem at %s: %x", at.In(f.zone), e.Body)
			}
		}
	}
}
