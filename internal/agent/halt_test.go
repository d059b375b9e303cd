package agent

import (
	"context"
	"fmt"
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

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/runs"
	"nightferry/internal/s3test"
	"nightferry/internal/wire"
)

// slowWorld is a world whose packs hang in the middle until let is called.
func slowWorld(t *testing.T, faults ...s3test.Fault) (w *world, let func()) {
	t.Helper()
	release := make(chan struct{})
	hold := s3test.HangBody(1000, 100, release)
	var on atomic.Bool
	on.Store(true)
	w = newWorld(t, append(faults, func(next http.Handler) http.Handler {
		held := hold(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if on.Load() && strings.Contains(r.URL.Path, "/packs/") && r.Method == http.MethodGet {
				held.ServeHTTP(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	})...)
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
	if said.have("release 1 begins") || said.have("continues a run") {
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
	if took := time.Since(began); took > 20*time.Second { // the whole block takes 32 s
		t.Errorf("it took %v", took)
	}
	w.mu.Lock()
	if s := w.stopped[len(w.stopped)-1].Orders[0]; s.Bytes > 256<<10 {
		t.Errorf("%d bytes came after the order", s.Bytes)
	}
	w.mu.Unlock()
	d.end()
}
