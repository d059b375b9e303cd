package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

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
	if _, err := w.repo.Halts().Merge(t.Context(), w.key, func(*repo.HaltObject, bool) (uint64, error) { return 7, nil }); err != nil {
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
	l := stops()
	first, second := l[0].Orders[0], l[1].Orders[0]
	if second.Ago < first.Ago {
		t.Errorf("sent %d ms after the stop, then %d ms after it", first.Ago, second.Ago)
	}
	first.Ago, second.Ago = 0, 0                     // the age is that of the sending
	if l[0].Epoch != l[1].Epoch || first != second { // a new connection may give it a new number
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
	if _, err := w.repo.Halts().Merge(t.Context(), w.key, func(*repo.HaltObject, bool) (uint64, error) { return 7, nil }); err != nil {
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
	if _, err := w.repo.Halts().Merge(t.Context(), w.key, func(h *repo.HaltObject, _ bool) (uint64, error) {
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
		h := newHaltState(&session{o: Options{Now: func() time.Time { return now }, Spread: 30 * time.Second},
			id: &Identity{Domain: here.Domain, Site: fmt.Sprint("site-", i)}}, make(signal, 1))
		h.channels = []string{"driver", "package"}
		h.orders = &halt.Orders{Active: []halt.Order{{ID: halt.ID{2}, Scope: halt.All}}}
		h.stopHalted(nil)
		if len(h.after) != 0 || h.haltOrder("driver") == nil {
			t.Fatalf("halted: %v", h.after)
		}
		h.orders = &halt.Orders{}
		h.stopHalted(nil)
		if len(h.after) != 2 {
			t.Fatalf("lifted: %v", h.after)
		}
		for _, at := range h.after {
			d := at.Sub(now)
			if d < 0 || d >= h.s.o.Spread {
				t.Fatalf("a channel waits for %v", d)
			}
			starts[d*tenths/h.s.o.Spread]++
		}
		before := maps.Clone(h.after)
		h.stopHalted(nil) // another state of the same epoch changes nothing
		if !maps.Equal(before, h.after) {
			t.Fatalf("%v became %v", before, h.after)
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
	w.try(a.loadAccepted(t.Context()))
	first, second := halt.Order{ID: halt.ID{1}, Scope: halt.All, Reason: "test", By: "tester"}, halt.Order{ID: halt.ID{2}, Scope: halt.All, Reason: "test", By: "tester"}
	newest := func() uint64 {
		a.halts.mu.Lock()
		defer a.halts.mu.Unlock()
		return a.halts.newest
	}
	a.halts.keeping.Lock()
	var older errgroup.Group
	older.Go(func() error {
		_, err := a.halts.takeHalts(t.Context(), w.orders(w.key, 1, first))
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
		a.halts.keeping.Unlock()
	}()
	if _, err := a.halts.takeHalts(t.Context(), w.orders(w.key, 2, first, second)); err != nil {
		t.Error(err)
	}
	if err := older.Wait(); err != nil {
		t.Errorf("orders that were overtaken: %v", err)
	}
	if m, _ := a.halts.obeyedOrders(); m.Epoch != 2 || len(m.Orders) != 2 {
		t.Errorf("%+v", m)
	}
}

// TestHaltsOfOneEpoch: the Core dies between its order to the sites and that to the store, and a person orders the store
// to stop another channel, or all. Both orders have the same epoch, and both count until a newer object lifts them.
func TestHaltsOfOneEpoch(t *testing.T) {
	w := newWorld(t)
	a, _ := w.still()
	w.try(a.loadAccepted(t.Context()))
	take := func(object []byte, stopped ...string) {
		t.Helper()
		if _, err := a.halts.takeHalts(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		for _, channel := range []string{"image", "package"} {
			if got, want := a.halts.haltOrder(channel) != nil, slices.Contains(stopped, channel); got != want {
				t.Errorf("%s: stopped %v, want %v", channel, got, want)
			}
		}
	}
	image, all := halt.Order{ID: halt.ID{1}, Scope: halt.Channel, Value: "image", Reason: "test", By: "core"}, halt.Order{ID: halt.ID{2}, Scope: halt.All, Reason: "test", By: "on call"}
	cores, stores := w.orders(w.key, 3, image), w.orders(w.key, 3, all)
	take(cores, "image")
	take(stores, "image", "package")
	take(cores, "image", "package") // the other path again
	take(w.orders(w.key, 2), "image", "package")
	take(w.orders(w.key, 4, image), "image")
	take(w.orders(w.key, 5))
}

// TestUnkeptHaltIsObeyedNotConfirmed: an order that cannot be made durable here
// stops the site, which does not say so before it is.
func TestUnkeptHaltIsObeyedNotConfirmed(t *testing.T) {
	w := newWorld(t)
	a, open := w.still()
	w.try(a.loadAccepted(t.Context()))
	w.try(a.spool.Close()) // its disk is gone
	object := w.orders(w.key, 3, halt.Order{ID: halt.ID{3}, Scope: halt.All, Reason: "test", By: "tester"})
	kept := spoolError{}
	if _, err := a.halts.takeHalts(t.Context(), object); !errors.As(err, &kept) {
		t.Fatal(err)
	}
	if a.halts.haltOrder("package") == nil {
		t.Error("it does not obey")
	}
	if m, _ := a.halts.obeyedOrders(); len(m.Orders) != 0 || m.Epoch != 0 {
		t.Errorf("it confirms what a restart would forget: %+v", m)
	}
	a.spool = open()
	if _, err := a.halts.takeHalts(t.Context(), object); err != nil { // it comes again
		t.Fatal(err)
	}
	if m, _ := a.halts.obeyedOrders(); len(m.Orders) != 1 || m.Epoch != 3 {
		t.Errorf("it does not confirm: %+v", m)
	}

	// A key that may not give orders lifts none.
	if _, err := a.halts.takeHalts(t.Context(), w.orders(w.root, 9)); err == nil || a.halts.haltOrder("package") == nil {
		t.Errorf("a key without the role lifts orders: %v", err)
	}
}

// TestWithheldChannel: the Core withholds the desired state of one channel. The agent keeps its earlier one, durably,
// and takes those of the other channels.
func TestWithheldChannel(t *testing.T) {
	w := newWorld(t)
	a, _ := w.still()
	w.try(a.loadAccepted(t.Context()))
	accept := func(revision uint64, v wire.State) {
		v.At, v.Store = time.Now().UnixMilli(), a.id.Store
		w.try(a.acceptState(t.Context(), revision, &v))
	}
	accept(5, wire.State{Desired: []wire.Desired{{Channel: "driver", Number: 1}, {Channel: "package", Number: 7}}})
	accept(6, wire.State{Desired: []wire.Desired{{Channel: "driver", Number: 2}}, Withheld: []string{"other", "package"}})
	for range 2 {
		if len(a.state.Desired) != 2 || findDesired(a.state, "driver").Number != 2 || findDesired(a.state, "package").Number != 7 {
			t.Errorf("%+v", a.state.Desired)
		}
		a.state = nil
		w.try(a.loadAccepted(t.Context())) // as after a restart
	}
	accept(6, wire.State{Desired: []wire.Desired{{Channel: "driver", Number: 2}, {Channel: "package", Number: 8}}})
	if findDesired(a.state, "package").Number != 8 {
		t.Errorf("%+v", a.state.Desired)
	}
}

// TestHaltWithoutADesiredState: the Core withholds the desired state under
// revision 0. The agent obeys the halt order with it and keeps its own state,
// even if it has seen no revision yet.
func TestHaltWithoutADesiredState(t *testing.T) {
	w := newWorld(t)
	a, _ := w.still()
	w.try(a.loadAccepted(t.Context()))
	w.try(a.acceptState(t.Context(), 0, &wire.State{At: time.Now().UnixMilli(), Store: a.id.Store, Halt: w.orders(w.key, 3, halt.Order{ID: halt.ID{3}, Scope: halt.All, Reason: "test", By: "tester"})}))
	if a.halts.haltOrder("package") == nil {
		t.Error("it does not obey")
	}
	if a.state != nil {
		t.Errorf("it keeps a state without a revision: %+v", a.state)
	}
}
