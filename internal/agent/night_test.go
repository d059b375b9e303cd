package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/policy"
	"nightferry/internal/runs"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// noise is content that does not compress.
func noise(n int) string {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	if _, err := r.Read(b); err != nil {
		panic(err) // never
	}
	return string(b)
}

// hhmm writes a time of the clock on the wall, in UTC.
func hhmm(t time.Time) string { return t.UTC().Format("15:04") }

// TestPain11 closes the window in the middle of an image, and restarts the
// process: the agent stops by its own clock, with nothing said by the Core, and
// goes on in the next window where it was.
func TestPain11(t *testing.T) {
	const size = 40 << 20
	w := newWorld(t)
	target := t.TempDir()
	dir := w.enrolled(target)
	files := map[string]string{"image.wim": noise(size), "small.inf": "x"}
	w.publish(files, target)

	// The site's clock is up to a minute ahead, so that a window ends soon.
	end := time.Now().Add(time.Minute).Truncate(time.Minute).Add(time.Minute)
	var ahead atomic.Int64
	ahead.Store(int64(time.Until(end.Add(-10 * time.Second)))) // of which a busy machine takes some to begin
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	next := end.Add(time.Minute)
	w.want(func(s *wire.State) {
		s.Zone, s.Beat, s.Rate = "UTC", 1, 2_500_000
		s.Desired[0].Windows = fmt.Sprintf("%s-%s, %s-%s", hhmm(end.Add(-5*time.Minute)), hhmm(end), hhmm(next), hhmm(next.Add(5*time.Minute)))
	})
	d := w.start(dir, func(o *Options) { o.Now = clock })
	w.await("the end of the first night", func() bool { return w.finished(0) != nil })
	stopped := clock()
	first := w.finished(0)
	if first.Verdict != runs.Stopped || !strings.Contains(first.Error, "the window has closed") || !strings.Contains(first.Error, hhmm(next)) {
		t.Errorf("the first night ends %s: %s", first.Verdict, first.Error)
	}
	if late := stopped.Sub(end); late < 0 || late > 30*time.Second {
		t.Errorf("it was told %v after the window's end", late)
	}
	if first.Wire < size/20 || first.Wire > size*3/4 {
		t.Fatalf("%d bytes moved in the first night: this test needs its middle", first.Wire)
	}
	if left, err := os.ReadDir(target); err != nil || len(left) > 1 {
		t.Errorf("%d entries in the target, %v: nothing of half a release should be seen", len(left), err)
	}
	w.twoBeats() // and nothing starts
	if w.mu.Lock(); w.finished(1) != nil || len(w.events) != 2 {
		t.Error("something ran while no window was open")
	}
	w.mu.Unlock()
	d.end()

	ahead.Add(int64(time.Minute))
	w.start(dir, func(o *Options) { o.Now = clock })
	w.await("the end of the second night", func() bool { return w.finished(1) != nil })
	second := w.finished(1)
	if second.Verdict != "verified" {
		t.Errorf("the second night ends %s: %s", second.Verdict, second.Error)
	}
	w.same(target, files)
	const blocks = 8 << 20 // one of 1 MiB for each connection
	if twice := first.Wire + second.Wire - size; twice > blocks {
		t.Errorf("%d + %d bytes came for %d: %d twice, want less than one block for each connection", first.Wire, second.Wire, size, twice)
	}
	t.Logf("%d bytes in the first night, %d in the second, of %d", first.Wire, second.Wire, size)
}

// TestOrderedNow: a window that never opens keeps everything back but an order
// that says now, which a rate of 0 still holds.
func TestOrderedNow(t *testing.T) {
	w := newWorld(t)
	target := t.TempDir()
	dir := w.enrolled(target)
	files := tree(20, "one")
	w.publish(files, target)
	w.want(func(s *wire.State) { s.Beat = 1; s.Desired[0].Windows = "never" })
	w.start(dir, nil)
	idle := func(why string) {
		t.Helper()
		w.await("the state to be known", func() bool { return w.hellos > 0 })
		w.twoBeats()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.events) > 0 {
			t.Fatalf("something ran although %s", why)
		}
	}
	idle("no window is open")
	w.want(func(s *wire.State) { s.Desired[0].Start = 1 })
	idle("the order does not say now")
	w.want(func(s *wire.State) { s.Desired[0].Start, s.Desired[0].Now, s.Limit = 2, true, "else 0" })
	idle("the limit is 0")
	w.want(func(s *wire.State) { s.Zone = "Nowhere/Land"; s.Limit = "" })
	w.await("the trouble", func() bool { return w.problems()[ProblemControl] != "" })
	w.twoBeats()
	if w.mu.Lock(); w.finished(0) != nil {
		t.Error("something ran although the site's zone is unknown")
	}
	w.mu.Unlock()
	w.want(func(s *wire.State) { s.Zone = "" })
	w.await("the run", func() bool { return w.finished(0) != nil })
	if f := w.finished(0); f.Verdict != "verified" {
		t.Errorf("it ends %s: %s", f.Verdict, f.Error)
	}
	w.same(target, files)
}

// TestNowIsForItsRelease: a request that ignores windows was not served when a later release comes. That one waits for
// its window, also after a restart, until a request of its own.
func TestNowIsForItsRelease(t *testing.T) {
	w := newWorld(t)
	target := t.TempDir()
	dir := w.enrolled(target)
	w.publish(tree(3, "one"), target)
	now := func(s *wire.State, start uint64) {
		s.Beat, s.Desired[0].Windows, s.Desired[0].Start, s.Desired[0].Now = 1, "never", start, true
	}
	w.want(func(s *wire.State) { now(s, 1); s.Limit = "else 0" })
	d := w.start(dir, nil)
	w.await("the state to be known", func() bool { return w.hellos > 0 })
	w.twoBeats()
	d.end()
	files := tree(3, "two")
	w.publish(files, target)
	w.want(func(s *wire.State) { now(s, 1); s.Limit = "" })
	for range 2 {
		d = w.start(dir, nil)
		w.twoBeats()
		w.mu.Lock()
		if len(w.events) > 0 {
			t.Error("the later release does not wait for its window")
		}
		w.mu.Unlock()
		d.end()
	}
	w.want(func(s *wire.State) { now(s, 2) })
	w.start(dir, nil)
	w.await("the run", func() bool { return w.finished(0) != nil })
	w.same(target, files)
}

// TestLimitInPlaceOfTheRate: an operator's limit counts as long as it is in force,
// below what the configuration says and above it; then that counts again.
func TestLimitInPlaceOfTheRate(t *testing.T) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		state wire.State
		want  int64
		again time.Time
	}{
		{wire.State{Rate: 2_500_000}, 2_500_000, time.Time{}},
		{wire.State{Rate: 2_500_000, Rates: "else 8Mbit"}, 1_000_000, time.Time{}},
		{wire.State{Rate: 2_500_000, Limit: "else 8Mbit"}, 1_000_000, time.Time{}},
		{wire.State{Rate: 2_500_000, Limit: "else 40Mbit"}, 5_000_000, time.Time{}},
		{wire.State{Rate: 2_500_000, Limit: "else unlimited"}, window.Unlimited, time.Time{}},
		{wire.State{Rate: 2_500_000, Limit: "else 40Mbit", LimitUntil: noon.Add(time.Hour).Unix()}, 5_000_000, noon.Add(time.Hour)},
		{wire.State{Rate: 2_500_000, Limit: "else 40Mbit", LimitUntil: noon.Unix()}, 2_500_000, time.Time{}},
		{wire.State{Rates: "else 20Mbit", Limit: "else 40Mbit"}, 5_000_000, time.Time{}},
	} {
		if r, again := readNight(&c.state).currentRate(noon); r != c.want || !again.Equal(c.again) {
			t.Errorf("%+v: %d until %v, want %d until %v", c.state, r, again, c.want, c.again)
		}
	}
}

// TestLimitOfNothing: a run that a limit of 0 stops says so, and how it is
// lifted, and what it was fetching; and goes on when it is.
func TestLimitOfNothing(t *testing.T) {
	w := newWorld(t)
	target := t.TempDir()
	dir := w.enrolled(target)
	files := map[string]string{"image.wim": noise(8 << 20)}
	w.publish(files, target)
	w.want(func(s *wire.State) { s.Beat, s.Rate = 1, 1_000_000 })
	w.start(dir, nil)
	w.fetching()
	w.twoBeats()
	w.want(func(s *wire.State) { s.Limit = "else 0" })
	w.await("its end", func() bool { return w.finished(0) != nil })
	f := w.finished(0)
	if f.Verdict != runs.Stopped || !strings.Contains(f.Error, "get packs/") || !strings.Contains(f.Error, "nightferry limit has set the rate to 0: fetched data is kept, and the channel continues when that is lifted (nightferry limit --off)") {
		t.Errorf("it ends %s: %s", f.Verdict, f.Error)
	}
	w.want(func(s *wire.State) { s.Limit, s.Rate = "", 0 })
	w.await("the next run", func() bool { return w.finished(1) != nil })
	w.same(target, files)
}

// TestWhyNothingMoves: what ends a run is called by its name.
func TestWhyNothingMoves(t *testing.T) {
	noon := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	night := []wire.Desired{{Channel: "image", Policy: policy.Policy{Windows: "20:00-06:00"}}}
	for _, c := range []struct {
		state   wire.State
		ordered bool
		want    string
	}{
		{wire.State{Desired: night}, false, "the window has closed: fetched data is kept, and the channel continues in the next, on 2026-11-02 20:00 UTC"},
		{wire.State{Desired: night, Limit: "else 0"}, false, "the window has closed: "},
		{wire.State{Desired: []wire.Desired{{Channel: "image", Policy: policy.Policy{Windows: "never"}}}}, false, "the window has closed, and no other is foreseen: "},
		{wire.State{Desired: night, Limit: "else 0"}, true, "nightferry limit has set the rate to 0: fetched data is kept, and the channel continues when that is lifted"},
		{wire.State{Limit: "else 0", LimitUntil: noon.Unix() + 3600}, false, "continues when that changes, on 2026-11-02 13:00 UTC, or is lifted before (nightferry limit --off)"},
		{wire.State{Limit: "06:00-20:00 0; else 1MB"}, false, "continues when that changes, on 2026-11-02 20:00 UTC, or"},
		{wire.State{Rates: "06:00-20:00 0; else 1MB"}, false, "the configuration's rate is 0 at this hour: fetched data is kept, and the channel continues when that changes, on 2026-11-02 20:00 UTC"},
		{wire.State{Rates: "else 0"}, false, "the configuration's rate is 0 at all hours: "},
		{wire.State{Zone: "Nowhere/Land"}, false, "the Core's windows cannot be read here: "},
	} {
		n := readNight(&c.state)
		if open, _ := n.isOpen(noon, "image", c.ordered); open {
			t.Errorf("%+v is open", c.state)
		}
		if got := n.closedReason(noon, "image", c.ordered).Error(); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c.state, got)
		}
	}
}

// TestPace measures sixteen connections over ten seconds, right after the rate
// was changed while they moved.
func TestPace(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	site := newLimiter(2_000_000)
	ctx, cancel := context.WithCancel(t.Context())
	var moved atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer res.Body.Close()
			p := &paced{ReadCloser: res.Body, ctx: ctx, limits: []*rate.Limiter{site, newLimiter(0)}, moved: new(atomic.Int64)}
			b := make([]byte, 256<<10)
			for {
				n, err := p.Read(b)
				moved.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	within := func(bytesPerSecond int64, span time.Duration) {
		t.Helper()
		setRate(site, bytesPerSecond)
		began, before := time.Now(), moved.Load()
		<-time.After(span)
		got := float64(moved.Load()-before) / time.Since(began).Seconds()
		// A busy machine may be slower; the promise, 5 % both ways, is measured by the bench's part rate.
		if off := got/float64(bytesPerSecond) - 1; off < -0.25 && span >= 10*time.Second || off > 0.05 {
			t.Errorf("%.0f bytes per second, want %d: %+.1f %%", got, bytesPerSecond, 100*off)
		} else {
			t.Logf("%.0f bytes per second of %d: %+.1f %%", got, bytesPerSecond, 100*off)
		}
	}
	within(20_000_000, 2*time.Second)
	within(2_500_000, 10*time.Second)
	cancel()
	all.Wait()
}
