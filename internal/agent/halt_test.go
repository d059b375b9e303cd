package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/s3test"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// slowWorld is a world whose packs hang in the middle until let is called.
func slowWorld(t *testing.T) (w *world, let func()) {
	t.Helper()
	release := make(chan struct{})
	hold := s3test.HangBody(1000, 100, release)
	var on atomic.Bool
	on.Store(true)
	w = newWorld(t, func(next http.Handler) http.Handler {
		held := hold(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if on.Load() && strings.Contains(r.URL.Path, "/packs/") && r.Method == http.MethodGet {
				held.ServeHTTP(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	let = sync.OnceFunc(func() { on.Store(false); close(release) })
	t.Cleanup(let)
	return w, let
}

// fetching waits until the site has asked for a pack.
func (w *world) fetching() {
	w.t.Helper()
	w.await("URL of a pack", func() bool {
		for _, keys := range w.asks {
			for _, k := range keys {
				if strings.HasPrefix(k, "packs/") {
					return true
				}
			}
		}
		return false
	})
}

func (w *world) silence(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = yes
}

// ended reports whether a run has ended so. It is called with w.mu held.
func (w *world) ended(verdict string) bool {
	for n := 0; ; n++ {
		f := w.finished(n)
		if f == nil {
			return false
		}
		if string(f.Verdict) == verdict {
			return true
		}
	}
}

// notes keeps what an agent logs.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) log(x Note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, fmt.Sprint(x.Text, " ", x.Err))
}

func (n *notes) have(part string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.all {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func (n *notes) await(t *testing.T, part string) {
	t.Helper()
	for end := time.Now().Add(patience); !n.have(part); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the agent never said %q: %q", part, n.all[:min(len(n.all), 20)])
		}
	}
}

var big = map[string]string{"big": strings.Repeat("0123456789", 100_000)}

// TestPain14_KilledAgentStaysHalted kills a real agent, as SIGKILL does, in the
// moment in which it says that it has stopped. Started again with the Core
// away, it starts nothing; and it goes on when the order is lifted.
func TestPain14_KilledAgentStaysHalted(t *testing.T) {
	w, let := slowWorld(t)
	base := t.TempDir()
	dir := w.enrolled(base)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	w.try(child.Start())
	w.publish(big, filepath.Join(base, "p"))
	w.fetching()
	w.want(func(s *wire.State) {
		s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.Domain, Value: here.Domain, Reason: "test", By: "tester"})
	})
	w.await("word that it has stopped", func() bool {
		for _, s := range w.stopped {
			if len(s.Orders) == 1 && s.Orders[0].Order == (halt.ID{7}) && s.Epoch == 7 {
				return true
			}
		}
		return false
	})
	w.try(child.Process.Kill())
	_ = child.Wait() // it was killed
	let()
	w.silence(true)
	var said notes
	d := w.start(dir, func(o *Options) { o.Log, o.Spread = said.log, time.Millisecond })
	said.await(t, "begins, holding revision")
	time.Sleep(time.Second) // a measurement: what starts, starts at once
	if said.have("release 1 begins") || said.have("goes on with a run") {
		t.Errorf("it starts although it was halted when it was killed: %q", said.all)
	}
	if _, err := os.Stat(filepath.Join(base, "p", "big")); err == nil {
		t.Error("content was committed under a halt")
	}
	w.silence(false)
	w.want(func(s *wire.State) { s.Halt = w.orders(w.key, 8) })
	w.await("a verified run", func() bool { return w.ended("verified") })
	d.end()
	w.same(filepath.Join(base, "p"), big)
}

// inBurst is an Observer that lets the first rename of a burst wait until it may
// go on, and counts those that come after it.
type inBurst struct {
	begun, goOn chan struct{}
	renames     atomic.Int32
}

func (b *inBurst) Before(op durable.Op) error {
	if op.Kind == durable.Rename && !strings.HasPrefix(op.To, state) && strings.HasPrefix(op.Name, state) && b.renames.Add(1) == 1 {
		close(b.begun)
		<-b.goOn
	}
	return nil
}

// TestPain14_HaltStopsEveryCommit: a commit is under way, for whatever reason,
// and was ended perhaps by something that lets it come to its end. An order to
// stop lets it make no further step. The run is not over: when the order is
// lifted the commit is finished, and told.
func TestPain14_HaltStopsEveryCommit(t *testing.T) {
	never := func(s *wire.State) { s.Desired[0].Windows = "never" }
	always := func(s *wire.State) { s.Desired[0].Windows = "" }
	for _, x := range []struct {
		name   string
		killed bool                         // an earlier process has begun it
		before func(w *world, again func()) // it goes on; again makes another release
		after  bool                         // who goes on does so when the window has closed
		then   func(*wire.State)            // ends it, before the order comes
		ends   []runs.State
	}{
		{"the night ends", false, nil, false, never, []runs.State{runs.Verified}},
		{"nobody wants its release any more", true, func(_ *world, again func()) { again() }, false, nil, []runs.State{runs.Stopped, runs.Verified}},
		{"nobody wants its channel any more", true, func(w *world, _ func()) { w.want(func(s *wire.State) { s.Desired = nil }) }, false, nil, []runs.State{runs.Stopped}},
		{"outside the window, which opens", true, nil, true, always, []runs.State{runs.Verified}},
	} {
		t.Run(x.name, func(t *testing.T) {
			end := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
			var ahead time.Duration
			if x.after {
				ahead = time.Until(end) + time.Minute
			}
			w := newWorld(t)
			base := t.TempDir()
			target, files := filepath.Join(base, "p"), tree(60, "one")
			dir := w.enrolled(base)
			w.publish(files, target)
			w.want(func(s *wire.State) {
				s.Zone, s.Beat, s.Desired[0].Windows = "UTC", 1, hhmm(end.Add(-10*time.Minute))+"-"+hhmm(end)
			})
			if x.killed {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				child := exec.CommandContext(ctx, os.Args[0])
				child.Env = append(os.Environ(), childDir+"="+dir, childPoint+"=the first file")
				if out, err := child.CombinedOutput(); err == nil || ctx.Err() != nil {
					t.Fatalf("the child was not killed\n%s", out)
				}
			}
			if x.before != nil {
				x.before(w, func() { files = tree(70, "two"); w.publish(files, target) })
			}
			b := &inBurst{begun: make(chan struct{}), goOn: make(chan struct{})}
			goOn := sync.OnceFunc(func() { close(b.goOn) })
			w.try(Halt(dir, LocalHalt{Reason: "until it knows the state", At: time.Now()}))
			w.start(dir, func(o *Options) {
				o.Observer, o.Now = b, func() time.Time { return time.Now().Add(ahead) }
			})
			t.Cleanup(goOn) // before the agent's end is waited for
			w.twoBeats()
			w.try(Resume(dir))
			select {
			case <-b.begun:
			case <-time.After(patience):
				t.Fatal("no commit goes on")
			}
			if x.then != nil {
				w.want(x.then)
				w.twoBeats()
			}
			obeyed := func(orders int) func() bool {
				return func() bool {
					return slices.ContainsFunc(w.stopped, func(s wire.Stopped) bool { return s.Epoch == 7 && len(s.Orders) >= orders })
				}
			}
			w.want(func(s *wire.State) {
				s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "test", By: "tester"})
			})
			w.await("word that it knows the order", obeyed(0))
			goOn()
			w.await("word that it has stopped", obeyed(1))
			if n := b.renames.Load(); n > 1 {
				t.Errorf("%d further renames under the order", n-1)
			}
			if _, err := os.Stat(filepath.Join(target, state, "journal")); err != nil {
				t.Errorf("the commit is not left for later: %v", err)
			}
			w.mu.Lock()
			if f := w.finished(0); f != nil {
				t.Errorf("the run ended under the order, %s: %s", f.Verdict, f.Error)
			}
			w.mu.Unlock()
			w.want(func(s *wire.State) {
				s.Halt = w.orders(w.key, 8)
				for i := range s.Desired {
					s.Desired[i].Windows = ""
				}
			})
			w.await("the end", func() bool { return w.finished(len(x.ends)-1) != nil })
			w.mu.Lock()
			defer w.mu.Unlock()
			for i, verdict := range x.ends {
				if f := w.finished(i); f.Verdict != verdict || f.Added < 60 && i == 0 {
					t.Errorf("run %d ends %s with %d added, want %s: %s", i, f.Verdict, f.Added, verdict, f.Error)
				}
			}
			w.same(target, files)
		})
	}
}

// TestHaltTwiceInASecond: an order on the site that is given again at once, in the
// same words, is confirmed as the first was.
func TestHaltTwiceInASecond(t *testing.T) {
	w := newWorld(t)
	dir := w.enrolled(t.TempDir())
	w.start(dir, nil)
	w.await("hello", func() bool { return w.hellos > 0 }) // LookHalt tries the agent's lock
	at := time.Now().Truncate(time.Second)
	for _, after := range []time.Duration{0, 300 * time.Millisecond} {
		w.try(Halt(dir, LocalHalt{Reason: "test", By: "tester", At: at.Add(after)}))
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			h, err := LookHalt(dir)
			w.try(err)
			if h.At.Equal(at.Add(after)) && !h.Stopped.IsZero() {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the order of %v is not confirmed", h.At)
			}
		}
	}
}

// TestOrderThatIsBeingRead: the agent looks at the order on its site five times a
// second. Windows keeps a file that is open in its place; who stops a site, or
// lets it go on, does not hear of that.
func TestOrderThatIsBeingRead(t *testing.T) {
	w := newWorld(t)
	dir := w.enrolled(t.TempDir())
	reading := func(act func() error) {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, haltFile))
		w.try(err)
		closed := make(chan error, 1)
		time.AfterFunc(200*time.Millisecond, func() { closed <- f.Close() })
		w.try(act())
		w.try(<-closed)
	}
	order := LocalHalt{Reason: "one", At: time.Now()}
	w.try(Halt(dir, order))
	order.Reason = "two"
	reading(func() error { return Halt(dir, order) })
	if h, err := LookHalt(dir); err != nil || h.Reason != "two" {
		t.Errorf("%+v, %v", h, err)
	}
	reading(func() error { return Resume(dir) })
	if h, err := LookHalt(dir); err != nil || h != nil {
		t.Errorf("%+v, %v", h, err)
	}
}

// underWay tells when a good part of an answer has gone out.
type underWay struct {
	http.ResponseWriter
	moves chan struct{}
	sum   int
}

func (u *underWay) Write(b []byte) (int, error) {
	n, err := u.ResponseWriter.Write(b)
	if u.sum += n; u.sum >= 100<<10 {
		select {
		case u.moves <- struct{}{}:
		default:
		}
	}
	return n, err
}

// TestPain14_BlockIsCutShort: an order that comes while a block is under way on
// a slow line ends its connection. The block would take half a minute.
func TestPain14_BlockIsCutShort(t *testing.T) {
	moves := make(chan struct{}, 1)
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/packs/") && r.Method == http.MethodGet {
				rw = &underWay{ResponseWriter: rw, moves: moves}
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	dir := w.enrolled(base)
	content := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{14}).Read(content)
	w.want(func(s *wire.State) { s.Rate = 32 << 10 })
	d := w.start(dir, nil)
	w.publish(map[string]string{"block": string(content)}, filepath.Join(base, "p"))
	select {
	case <-moves:
	case <-time.After(patience):
		t.Fatal("no block is fetched")
	}
	w.want(func(s *wire.State) {
		s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "test", By: "tester"})
	})
	began := time.Now()
	w.await("word that it has stopped", func() bool { return len(w.stopped) > 0 && len(w.stopped[len(w.stopped)-1].Orders) == 1 })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	w.mu.Lock()
	if s := w.stopped[len(w.stopped)-1].Orders[0]; s.Bytes > 256<<10 {
		t.Errorf("%d bytes came after the order", s.Bytes)
	}
	w.mu.Unlock()
	d.end()
}

// TestPain14_OldOrdersAreNoAnswer: while the Core is silent somebody puts an
// old, well-signed halt object back into the store. That lifts nothing, and
// says nothing of what is in force now: content does not move on it.
func TestPain14_OldOrdersAreNoAnswer(t *testing.T) {
	w, let := slowWorld(t)
	base := t.TempDir()
	dir := w.enrolled(base)
	var said notes
	d := w.start(dir, func(o *Options) { o.Log, o.HaltEvery = said.log, 200*time.Millisecond })
	w.want(func(s *wire.State) { s.Halt = w.orders(w.key, 7) }) // none is active; the store's object is of epoch 1
	w.publish(big, filepath.Join(base, "p"))
	w.fetching()
	w.silence(true)
	said.await(t, "release 1: stopped")
	if !said.have("epoch 7 was seen here") {
		t.Errorf("it does not say why: %q", said.all)
	}
	let()
	if _, err := w.repo.MergeHalt(t.Context(), w.key, func(*repo.HaltObject, bool) (uint64, error) { return 7, nil }); err != nil {
		t.Fatal(err)
	}
	said.await(t, "orders to stop can be read again")
	w.silence(false)
	w.await("a verified run", func() bool { return w.ended("verified") })
	d.end()
	w.same(filepath.Join(base, "p"), big)
}

// TestStopIsConfirmedUntilAcknowledged: the Core does not take the site's word
// that it has stopped. The site repeats it within a second, unchanged, and stops
// repeating it when the Core has acknowledged it; a Core that was away gets it
// again.
func TestStopIsConfirmedUntilAcknowledged(t *testing.T) {
	w := newWorld(t)
	dir := w.enrolled(t.TempDir())
	w.mu.Lock()
	w.unanswered = true
	w.mu.Unlock()
	d := w.start(dir, nil)
	w.want(func(s *wire.State) {
		s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "test", By: "tester"})
	})
	stops := func() (list []wire.Stopped) {
		for _, s := range w.stopped {
			if len(s.Orders) == 1 {
				list = append(list, s)
			}
		}
		return list
	}
	w.await("the word that it has stopped", func() bool { return len(stops()) > 0 })
	w.await("the same word again", func() bool { return len(stops()) > 1 })
	w.mu.Lock()
	if l := stops(); l[0].Number != l[1].Number || l[0].Orders[0] != l[1].Orders[0] {
		t.Errorf("%+v became %+v", l[0], l[1])
	}
	w.unanswered = false
	w.mu.Unlock()
	answered := func() bool { // it has repeated nothing for longer than its longest wait so far
		w.mu.Lock()
		n := len(w.stopped)
		w.mu.Unlock()
		w.twoBeats()
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.stopped) == n
	}
	w.want(func(s *wire.State) { s.Beat = 1 })
	for end := time.Now().Add(patience); !answered(); {
		if time.Now().After(end) {
			t.Fatal("it repeats what was acknowledged")
		}
	}
	w.mu.Lock()
	before := len(stops())
	w.mu.Unlock()
	d.end()
	w.start(dir, nil)
	w.await("the word of the next process", func() bool { return len(stops()) > before })
}

// TestStoreLiftsWhatItOrders: the Core hangs while its connections stay open. An
// order of it that is lifted in the store lets the site continue, with the URLs
// that it has.
func TestStoreLiftsWhatItOrders(t *testing.T) {
	w, let := slowWorld(t)
	base := t.TempDir()
	dir := w.enrolled(base)
	d := w.start(dir, func(o *Options) { o.HaltEvery = 400 * time.Millisecond })
	w.publish(big, filepath.Join(base, "p"))
	w.fetching()
	w.want(func(s *wire.State) {
		s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "test", By: "tester"})
	})
	w.await("word that it has stopped", func() bool { return len(w.stopped) > 0 && len(w.stopped[len(w.stopped)-1].Orders) == 1 })
	w.silence(true)
	let()
	if _, err := w.repo.MergeHalt(t.Context(), w.key, func(*repo.HaltObject, bool) (uint64, error) { return 7, nil }); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(base, "p", "big")); err == nil && string(b) == big["big"] {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it stays stopped while the Core is silent")
		}
	}
	w.silence(false)
	d.end()
}

// TestRecordedStateIsNoSignOfLife: while the Core is silent, what it once sent is
// sent again and again. The order in the store still stops the site.
func TestRecordedStateIsNoSignOfLife(t *testing.T) {
	w, _ := slowWorld(t)
	base := t.TempDir()
	dir := w.enrolled(base)
	d := w.start(dir, func(o *Options) { o.HaltEvery = 400 * time.Millisecond })
	w.publish(big, filepath.Join(base, "p"))
	w.fetching()
	w.mu.Lock()
	s, revision := w.state, w.revision
	w.mu.Unlock()
	old := w.sign(here, wire.VerbState, revision, &s)
	w.silence(true)
	if _, err := w.repo.MergeHalt(t.Context(), w.key, func(h *repo.HaltObject, _ bool) (uint64, error) {
		h.Orders.Add(halt.Order{ID: halt.ID{8}, Scope: halt.All, Reason: "test", By: "tester"})
		return 7, nil
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if err := w.client.Publish(here.Down(wire.VerbState), old); err != nil {
			t.Fatal(err)
		}
		if st, err := ReadStatus(t.Context(), dir, time.Now); err == nil && len(st.Runs) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not read the store's orders")
		}
	}
	w.silence(false)
	d.end()
}

// TestMissedRunsAreSpread: an order that stopped many sites is lifted. Each
// channel of each waits for a time of its own.
func TestMissedRunsAreSpread(t *testing.T) {
	const sites, tenths = 400, 10
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	var starts [tenths]int
	for i := range sites {
		a := &agent{session: session{o: Options{Now: func() time.Time { return now }, Spread: 30 * time.Second},
			id: &Identity{Domain: here.Domain, Site: fmt.Sprint("site-", i)}}, state: &wire.State{Desired: []wire.Desired{{Channel: "driver"}, {Channel: "package"}}},
			halts: halts{answers: newConfirmations(time.Now()), stops: map[halt.ID]*stop{}, was: map[string]bool{}, after: map[string]time.Time{}}}
		a.orders = &halt.Orders{Active: []halt.Order{{ID: halt.ID{2}, Scope: halt.All}}}
		a.halting(nil)
		if len(a.after) != 0 || a.halted("driver") == nil {
			t.Fatalf("halted: %v", a.after)
		}
		a.orders = &halt.Orders{}
		a.halting(nil)
		if len(a.after) != 2 {
			t.Fatalf("lifted: %v", a.after)
		}
		for _, at := range a.after {
			d := at.Sub(now)
			if d < 0 || d >= a.o.Spread {
				t.Fatalf("a channel waits for %v", d)
			}
			starts[d*tenths/a.o.Spread]++
		}
		before := maps.Clone(a.after)
		a.halting(nil) // another state of the same epoch changes nothing
		if !maps.Equal(before, a.after) {
			t.Fatalf("%v became %v", before, a.after)
		}
	}
	for i, n := range starts {
		if n < sites*2/tenths/2 || n > sites*2/tenths*2 {
			t.Errorf("%d of %d starts fall into tenth %d: %v", n, sites*2, i, starts)
		}
	}
}

// TestSpreadOutlivesNews: what the Core states after an order was lifted, as
// the publishes that it made up for, does not start everything at once.
func TestSpreadOutlivesNews(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	dir := w.enrolled(base)
	d := w.start(dir, func(o *Options) { o.Spread = 1e6 * time.Hour }) // by chance, but hardly within this test
	w.want(func(s *wire.State) {
		s.Halt, s.Beat = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "test", By: "tester"}), 1
	})
	w.publish(big, filepath.Join(base, "p"))
	w.await("word that it has stopped", func() bool { return len(w.stopped) > 0 && len(w.stopped[len(w.stopped)-1].Orders) == 1 })
	w.twoBeats()
	w.want(func(s *wire.State) { s.Halt = w.orders(w.key, 8) })
	w.want(func(s *wire.State) { s.Rate = 1 << 30 })
	w.twoBeats()
	w.mu.Lock()
	for _, e := range w.events {
		if e.Kind == wire.StartedEvent {
			t.Error("a run starts as soon as the order is lifted")
			break
		}
	}
	w.mu.Unlock()
	d.end()
	d = w.start(dir, nil)
	w.await("a verified run", func() bool { return w.ended("verified") })
	d.end()
}

// still makes an agent that does nothing by itself, and what opens its spool again.
func (w *world) still() (a *agent, open func() *spool.Spool) {
	w.t.Helper()
	dir := w.enrolled(w.t.TempDir())
	id, err := Load(dir)
	w.try(err)
	root, err := durable.Open(dir, durable.Options{})
	w.try(err)
	open = func() *spool.Spool {
		sp, err := spool.Open(w.t.Context(), filepath.Join(dir, spoolFile), spool.Options{Now: time.Now})
		w.try(err)
		return sp
	}
	a = newAgent(options(dir, w.t.Logf), id, root, open())
	w.t.Cleanup(func() { w.try(errors.Join(a.spool.Close(), root.Close())) })
	return a, open
}

// TestHaltsByBothPathsAtOnce: the bucket brings orders, and before they are
// durable the control plane has brought newer ones, which are. The older are no
// error, and the newer count.
func TestHaltsByBothPathsAtOnce(t *testing.T) {
	w := newWorld(t)
	a, _ := w.still()
	w.try(a.remember(t.Context()))
	first, second := halt.Order{ID: halt.ID{1}, Scope: halt.All, Reason: "test", By: "tester"}, halt.Order{ID: halt.ID{2}, Scope: halt.All, Reason: "test", By: "tester"}
	newest := func() uint64 {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.newest
	}
	a.keeping.Lock()
	var older errgroup.Group
	older.Go(func() error {
		_, err := a.takeHalts(t.Context(), w.orders(w.key, 1, first))
		return err
	})
	for newest() < 1 {
		time.Sleep(time.Millisecond)
	}
	go func() { // it comes last, and is served first
		for newest() < 2 {
			time.Sleep(time.Millisecond)
		}
		if err := a.spool.Keep(t.Context(), spool.Halt, spool.Numbered{Number: 2, Object: w.orders(w.key, 2, first, second)}); err != nil {
			t.Error(err)
		}
		a.keeping.Unlock()
	}()
	if _, err := a.takeHalts(t.Context(), w.orders(w.key, 2, first, second)); err != nil {
		t.Error(err)
	}
	if err := older.Wait(); err != nil {
		t.Errorf("orders that were overtaken: %v", err)
	}
	if m, _ := a.obeyed(); m.Epoch != 2 || len(m.Orders) != 2 {
		t.Errorf("%+v", m)
	}
}

// TestUnkeptHaltIsObeyedNotConfirmed: an order that cannot be made durable here
// stops the site, which does not say so before it is.
func TestUnkeptHaltIsObeyedNotConfirmed(t *testing.T) {
	w := newWorld(t)
	a, open := w.still()
	w.try(a.remember(t.Context()))
	w.try(a.spool.Close()) // its disk is gone
	object := w.orders(w.key, 3, halt.Order{ID: halt.ID{3}, Scope: halt.All, Reason: "test", By: "tester"})
	kept := spoolError{}
	if _, err := a.takeHalts(t.Context(), object); !errors.As(err, &kept) {
		t.Fatal(err)
	}
	if a.halted("package") == nil {
		t.Error("it does not obey")
	}
	if m, _ := a.obeyed(); len(m.Orders) != 0 || m.Epoch != 0 {
		t.Errorf("it confirms what a restart would forget: %+v", m)
	}
	a.spool = open()
	if _, err := a.takeHalts(t.Context(), object); err != nil { // it comes again
		t.Fatal(err)
	}
	if m, _ := a.obeyed(); len(m.Orders) != 1 || m.Epoch != 3 {
		t.Errorf("it does not confirm: %+v", m)
	}

	// A key that may not give orders lifts none.
	if _, err := a.takeHalts(t.Context(), w.orders(w.root, 9)); err == nil || a.halted("package") == nil {
		t.Errorf("a key without the role lifts orders: %v", err)
	}
}
