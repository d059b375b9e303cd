package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
)

// content counts what leaves the store for sites, and may refuse the halt object.
type content struct {
	bytes  atomic.Int64
	last   atomic.Int64 // Unix nanoseconds of the last of them
	closed atomic.Bool  // the halt object cannot be read
}

func (c *content) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case c.closed.Load() && strings.HasSuffix(r.URL.Path, "/halt") && r.Method == http.MethodGet:
			s3test.S3Error(rw, http.StatusServiceUnavailable, "ServiceUnavailable", "down for the test")
		case strings.Contains(r.URL.Path, "/packs/") && r.Method == http.MethodGet:
			next.ServeHTTP(&contentWriter{rw, c}, r)
		default:
			next.ServeHTTP(rw, r)
		}
	})
}

type contentWriter struct {
	http.ResponseWriter
	c *content
}

func (w *contentWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if n > 0 {
		w.c.bytes.Add(int64(n))
		w.c.last.Store(time.Now().UnixNano())
	}
	return n, err
}

func (w *contentWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// line is the network between sites and Core, which can be cut.
type line struct {
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
	cutIt bool
}

func newLine(t *testing.T, to func() string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &line{l: l}
	t.Cleanup(func() { _ = l.Close(); n.cut(true) })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to())
			n.mu.Lock()
			if n.cutIt || err != nil {
				_ = a.Close()
				if err == nil {
					_ = b.Close()
				}
				n.mu.Unlock()
				continue
			}
			n.conns = append(n.conns, a, b)
			n.mu.Unlock()
			go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
			go func() { _, _ = io.Copy(b, a); _ = b.Close() }()
		}
	}()
	return n
}

func (n *line) cut(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cutIt = yes
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

// haltWorld is a fleet that takes about a minute for its release.
type haltWorld struct {
	*world
	content content
	line    *line
	names   []string
}

const (
	haltRate  = 10_000_000 / 8 // bytes per second of each site: 10 Mbit/s
	haltEvery = 2 * time.Second
)

func newHaltWorld(t *testing.T) *haltWorld {
	h := &haltWorld{world: newWorld(t, nil), names: []string{"berlin", "osaka", "tokyo"}}
	h.stop()
	h.bucket, _ = s3test.Through(t, h.bucket, h.content.fault)
	h.options.StoreURL = h.bucket.URL("")
	for i := range h.settings.Fleet.Sites {
		h.settings.Fleet.Sites[i].Rate = haltRate
	}
	addr := h.options.Addr
	h.line = newLine(t, func() string { return addr })
	h.settings.URLs = []string{"tls://" + h.line.l.Addr().String()}
	h.start()
	r := rand.NewChaCha8([32]byte{14})
	for i := range 60 {
		b := make([]byte, 1<<20)
		_, _ = r.Read(b)
		h.write(fmt.Sprintf("d%d/f%02d.bin", i%7, i), string(b))
	}
	h.publish("package")
	return h
}

func (h *haltWorld) agent(name string, join bool) func() {
	h.t.Helper()
	state, allow := filepath.Join(h.dir, "agents", name), filepath.Join(h.dir, "sites", name)
	if join {
		token, err := h.core.Enrolment.Token(h.t.Context(), name, 0)
		if err == nil {
			err = os.MkdirAll(allow, 0o755)
		}
		if err == nil {
			_, err = agent.Enrol(h.t.Context(), token.Text, agent.EnrolOptions{StateDir: state, Allow: []string{allow}, Version: "test", Now: time.Now})
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{StateDir: state, Version: "test", Now: time.Now, Retry: 200 * time.Millisecond, AckWait: 2 * time.Second, HaltEvery: haltEvery, Spread: 500 * time.Millisecond,
			Log: func(n agent.Note) { h.note(fmt.Sprintf("agent %s: %s %s %v", name, n.Channel, n.Text, n.Err)) }})
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			h.t.Errorf("agent %s: %v", name, err)
		}
	})
	h.t.Cleanup(stop)
	return stop
}

// moving waits until content has moved for a while.
func (h *haltWorld) moving() {
	h.t.Helper()
	from := h.content.bytes.Load()
	h.until("content to move", func() bool { return h.content.bytes.Load() > from+2<<20 })
}

// allMoving waits until content has moved to each site.
func (h *haltWorld) allMoving() {
	h.t.Helper()
	h.until("content to move to all", func() bool {
		list, err := h.core.Query.Sites(h.t.Context(), fleet.Scope{Channel: "package"})
		if err != nil {
			h.t.Fatal(err)
		}
		n := 0
		for _, s := range list {
			if p := s.Channels[0].Progress; p != nil && p.BytesDone > 0 {
				n++
			}
		}
		return n == len(h.names)
	})
}

// quiet measures for a while that nothing moves, neither from the store nor to
// the sites' folders.
func (h *haltWorld) quiet(d time.Duration) {
	h.t.Helper()
	// An agent logs its stop before a busy machine has closed the connections.
	h.until("the last bytes to leave", func() bool { return time.Since(time.Unix(0, h.content.last.Load())) > 500*time.Millisecond })
	bytes, disk := h.content.bytes.Load(), h.disk()
	time.Sleep(d) // a measurement, not a wait for something
	if n := h.content.bytes.Load() - bytes; n != 0 {
		h.t.Errorf("%d bytes left the store after the stop", n)
	}
	if now := h.disk(); now != disk {
		h.t.Errorf("the sites' folders changed after the stop:\n%s\n%s", disk, now)
	}
}

// disk describes all that lies in the sites' folders.
func (h *haltWorld) disk() string {
	h.t.Helper()
	var b bytes.Buffer
	err := filepath.Walk(filepath.Join(h.dir, "sites"), func(p string, i os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, p, i.Size(), i.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

func (h *haltWorld) view(order halt.ID) core.HaltView {
	h.t.Helper()
	list, err := h.core.Halts.List(h.t.Context(), true)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, v := range list {
		if v.Order == order {
			return v
		}
	}
	return core.HaltView{}
}

func (h *haltWorld) confirmed(order halt.ID) func() bool {
	return func() bool {
		v := h.view(order)
		for _, s := range v.Sites {
			if s.Stopped.IsZero() {
				return false
			}
		}
		return len(v.Sites) > 0
	}
}

// busy bounds a stop that an idle machine makes in a second or in five. Transfers that no order stops take longer.
const busy = 20 * time.Second

// TestPain14Stop: all sites are transferring; an order stops them within a
// second, for the bytes at the store and the files at the sites, with proof. A
// restart of agents and Core stays stopped, and resume lets them go on from
// what they have.
func TestPain14Stop(t *testing.T) {
	h := newHaltWorld(t)
	stops := map[string]func(){}
	for _, n := range h.names {
		stops[n] = h.agent(n, true)
	}
	h.allMoving()
	began := time.Now()
	done, err := h.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "bad package"})
	if err != nil || done.Sites != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.until("all to confirm", h.confirmed(done.Orders[0]))
	confirmed := time.Since(began)
	time.Sleep(max(0, time.Second-time.Since(began)))
	h.quiet(2 * time.Second)
	// The second that the design promises is measured by bench; a machine that is busy with other tests takes longer.
	if last := time.Unix(0, h.content.last.Load()).Sub(began); last > busy || confirmed > busy {
		t.Errorf("the last byte left %v after the order, the last site confirmed after %v", last, confirmed)
	} else {
		t.Logf("last byte after %v, last confirmation after %v", last, confirmed)
	}
	v := h.view(done.Orders[0])
	for _, s := range v.Sites {
		if s.Within == nil || s.Error == nil || time.Duration(*s.Within) > confirmed || *s.Error > *s.Within {
			t.Errorf("%s stopped within %v of the order, ± %v; the last confirmation came after %v", s.Site, s.Within, s.Error, confirmed)
		}
		if d := s.Stopped.Sub(v.At); d < 0 || d > confirmed || s.BytesAfter < 0 || float64(s.BytesAfter) > haltRate*max(1, confirmed.Seconds()) {
			t.Errorf("%s says that it stopped %v after the order, %d bytes later", s.Site, d, s.BytesAfter)
		}
	}
	h.until("the bucket to have it", func() bool { return !h.view(done.Orders[0]).Unstored })
	r, err := repo.Open(t.Context(), h.store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := r.Halts().Read(t.Context()); err != nil || stored.Epoch != done.Epoch || len(stored.Orders.Active) != 1 || stored.Orders.Active[0].Reason != "bad package" {
		t.Errorf("the bucket holds %+v, %v", stored, err)
	}
	if _, err := h.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err == nil {
		t.Error("a halted Core publishes")
	}

	for _, stop := range stops {
		stop()
	}
	h.restart()
	for _, n := range h.names {
		stops[n] = h.agent(n, false)
	}
	h.until("all to be back", func() bool {
		s, err := h.core.Query.Status(t.Context())
		return err == nil && s.Connected == 3
	})
	h.quiet(time.Second)

	fetched := h.content.bytes.Load()
	free := h.apart()
	for i := range free.Sites {
		free.Sites[i].Rate = 0
	}
	if err := h.core.Reload(t.Context(), h.settings); err != nil {
		t.Fatal(err)
	}
	if _, err := h.core.Halts.Resume(t.Context(), halt.NewID().String(), "", ""); !errors.Is(err, core.ErrNoOrder) {
		t.Errorf("an order that nobody gave is lifted: %v", err)
	}
	if _, err := h.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	h.untilCurrent(1, h.names...)
	// What was staged is used: fetched twice is no more than a block of each of 16
	// connections, and what the network held of it.
	if all := h.content.bytes.Load(); all > 3*60<<20+3*16*3<<19 {
		t.Errorf("%d MiB left the store, %d MiB before the stop", all>>20, fetched>>20)
	}
	if v := h.view(done.Orders[0]); v.Resumed.IsZero() {
		t.Error("the ledger does not know that the order is lifted")
	}
	runs, err := h.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", State: "stopped"})
	if err != nil || len(runs) != 1 || !strings.Contains(runs[0].Cause, "bad package") {
		t.Errorf("%+v, %v", runs, err)
	}
}

// TestPain14SecondPath: the network to the Core is cut while sites transfer.
// They read the order from the store; a site that cannot read the store's
// either stops by itself; and what stops a site on the spot needs nobody.
func TestPain14SecondPath(t *testing.T) {
	h := newHaltWorld(t)
	berlin := h.agent("berlin", true)
	h.agent("osaka", true)
	h.agent("tokyo", true)
	h.allMoving()
	h.line.cut(true)
	began := time.Now()
	done, err := h.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Domain, Value: "apac", Reason: "cut off"})
	if err != nil || done.Sites != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	// The agents' own 10 seconds are 2 here: 25 are 5.
	state := func(n string) string { return filepath.Join(h.dir, "agents", n) }
	h.until("two sites to stop", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		log := h.log.String()
		return strings.Contains(log, "agent osaka: package release 1: stopped") && strings.Contains(log, "agent tokyo: package release 1: stopped")
	})
	if d := time.Since(began); d > busy {
		t.Errorf("through the store it took %v", d)
	} else {
		t.Logf("through the store: %v", d)
	}

	// berlin goes on, until the store's orders cannot be read any more.
	h.moving()
	h.content.closed.Store(true)
	began = time.Now()
	h.until("berlin to be blind", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return strings.Contains(h.log.String(), "agent berlin: package release 1: stopped (")
	})
	if d := time.Since(began); d > busy { // 5 s, and two reads of 3 s
		t.Errorf("blind, it took %v", d)
	} else {
		t.Logf("blind: %v", d)
	}
	h.quiet(time.Second)
	h.content.closed.Store(false)
	h.line.cut(false)
	h.until("the cut-off to confirm", h.confirmed(done.Orders[0]))

	// Somebody stops berlin on the spot, without the Core.
	h.moving()
	h.line.cut(true)
	at := time.Now()
	if err := agent.Halt(state("berlin"), agent.LocalHalt{Reason: "disk", By: "root", At: at}); err != nil {
		t.Fatal(err)
	}
	var l *agent.LocalHalt
	h.until("berlin to stop", func() bool {
		l, err = agent.LookHalt(state("berlin"))
		return err == nil && !l.Stopped.IsZero()
	})
	if d := time.Since(at); d > busy {
		t.Errorf("on the spot it took %v", d)
	} else {
		t.Logf("on the spot: %v", d)
	}
	h.quiet(time.Second)
	berlin()
	h.agent("berlin", false)
	h.line.cut(false)
	h.until("the Core to know of it", func() bool {
		v := h.view(halt.ID{})
		return len(v.Sites) == 1 && v.Sites[0].Site == "berlin" && v.Reason == "disk"
	})
	h.quiet(time.Second)
	if err := agent.Resume(state("berlin")); err != nil {
		t.Fatal(err)
	}
	free := h.apart()
	for i := range free.Sites {
		free.Sites[i].Rate = 0
	}
	if err := h.core.Reload(t.Context(), h.settings); err != nil {
		t.Fatal(err)
	}
	h.untilCurrent(1, "berlin")
	if _, err := h.core.Halts.Resume(t.Context(), "", halt.Domain, "apac"); err != nil {
		t.Fatal(err)
	}
	h.untilCurrent(1, h.names...)
}

// TestHaltsOfOthers: an order that somebody else has put into the bucket is
// adopted; an order with a slip in its name is refused; and a Core whose store
// is away stops its sites all the same.
func TestHaltsOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.runAgent("osaka", true)
	if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osacka"}); err == nil || !strings.Contains(err.Error(), "osaka") {
		t.Errorf("a slip: %v", err)
	}
	r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	theirs := halt.NewID()
	_, err = r.Halts().Put(t.Context(), w.release, func(o *halt.Orders) error {
		o.Add(halt.Order{ID: theirs, Scope: halt.Region, Value: "ap", Reason: "typhoon", By: "somebody"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	confirmed := func(order halt.ID) func() bool {
		return func() bool {
			list, err := w.core.Halts.List(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				for _, s := range v.Sites {
					if v.Order == order && s.Site == "osaka" && !s.Stopped.IsZero() {
						return true
					}
				}
			}
			return false
		}
	}
	w.until("the order of somebody else", confirmed(theirs))
	ours, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("ours", confirmed(ours.Orders[0]))
	if _, err := w.core.Halts.Resume(t.Context(), theirs.String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.restart()
	list, err := w.core.Halts.List(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].Order != ours.Orders[0] {
		t.Errorf("%+v, %v", list, err)
	}
	_, err = w.core.Query.Sites(t.Context(), fleet.Scope{})
	if err != nil {
		t.Error(err)
	}
}
