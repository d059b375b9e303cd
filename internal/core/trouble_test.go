package core_test

import (
	"errors"
	"fmt"
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
	"nightferry/internal/ledger"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
)

// TestOnlyWebSocket: where nothing but 443 is open, that is enough, and the
// other door does not exist.
func TestOnlyWebSocket(t *testing.T) {
	w := newWorld(t, nil)
	control := w.options.Addr
	w.stop()
	w.options.Addr = ""
	w.start()
	if w.core.Addr() != "" {
		t.Errorf("it listens on %s", w.core.Addr())
	}
	if c, err := net.Dial("tcp", control); err == nil {
		c.Close()
		t.Errorf("%s is open", control)
	}
	w.write("a.txt", "one")
	w.publish("package")
	w.joined("osaka", nil)
	w.untilCurrent(1, "osaka")
	if !w.said("agent osaka:  connected to the Core at wss://") {
		t.Error("osaka came by another way")
	}
}

// TestPrestagedFolder: a new site fills itself from a folder that was shipped
// to it. What lies there is not believed.
func TestPrestagedFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	wire := w.through()
	const files, size = 8, 1 << 20
	honest, lying := filepath.Join(w.dir, "shipped"), filepath.Join(w.dir, "altered")
	for i := range files {
		name := fmt.Sprintf("d%d/f%d.bin", i%3, i)
		content := w.noise(name, size, uint64(i))
		for _, dir := range []string{honest, lying} {
			path := filepath.Join(dir, "some", "where", name) // another layout than the target's
			if dir == lying && i < 2 {
				content = strings.Repeat("lie!", size/8) + content[size/2:] // of the same length
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
				t.Fatal(err)
			}
			stamp, err := os.Stat(filepath.Join(w.source, name))
			if err == nil {
				err = os.Chtimes(path, stamp.ModTime(), stamp.ModTime())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	w.publish("package")
	for _, s := range []struct {
		site, seed string
		low, high  int64 // bytes from the store
	}{{"osaka", honest, 0, size / 8}, {"tokyo", lying, size / 2, 3 * size}} {
		wire.Reset()
		w.joined(s.site, func(o *agent.Options) { o.Seeds = []string{s.seed} })
		w.untilCurrent(1, s.site)
		if !w.same(w.folder(s.site, "package")) {
			t.Errorf("%s: what arrived is not the source", s.site)
		}
		// The counter sees all that the Core does too; that is next to nothing.
		if down := wire.Counts().Down; down < s.low || down > s.high {
			t.Errorf("%s fetched %d bytes of %d, want %d to %d", s.site, down, files*size, s.low, s.high)
		}
		run := w.lastRun(s.site)
		if run.State != "verified" || run.Totals.Held < files*size-s.high || run.Totals.Fetched > s.high {
			t.Errorf("%s: %+v", s.site, run)
		}
	}
	if b, err := os.ReadFile(filepath.Join(lying, "some", "where", "d0", "f0.bin")); err != nil || len(b) != size || !strings.HasPrefix(string(b), "lie!") {
		t.Errorf("the shipped folder was changed: %d bytes, %v", len(b), err)
	}
}

// gate is a fault that tests switch.
type gate struct {
	down  atomic.Bool
	first func() // called once, when the first pack is asked for after it was set
	mu    sync.Mutex
}

func (g *gate) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if g.down.Load() {
			s3test.S3Error(rw, http.StatusServiceUnavailable, "ServiceUnavailable", "gone")
			return
		}
		if strings.Contains(r.URL.Path, "/packs/") && r.URL.Query().Has("X-Amz-Signature") { // a site asks
			g.mu.Lock()
			do := g.first
			g.first = nil
			g.mu.Unlock()
			if do != nil {
				do()
			}
		}
		next.ServeHTTP(rw, r)
	})
}

func (g *gate) atFirstPack(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.first = do
}

// TestCoreAndStoreGoneInMidTransfer: the Core goes while a site transfers,
// which finishes without it; then the store goes. Both come back, and every
// file is told of once.
func TestCoreAndStoreGoneInMidTransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	g := &gate{}
	w.through(g.fault)
	w.write("a.txt", "one")
	w.publish("package")
	stop := w.joined("osaka", nil)
	w.untilCurrent(1, "osaka")

	const files = 30
	for i := range files {
		w.noise(fmt.Sprintf("f%02d.bin", i), 300_000, uint64(i))
	}
	gone := make(chan struct{})
	g.atFirstPack(func() { w.stop(); close(gone) })
	w.publish("package")
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("no pack was asked for")
	}
	w.untilSame(w.folder("osaka", "package"))
	stop() // it is restarted before the Core is back: what it has to say is on its disk
	w.agent(filepath.Join(w.dir, "agents", "osaka"), nil)
	w.start()
	w.untilCurrent(2, "osaka")
	w.untilRendered()
	w.onceEach(2, files+1)

	g.atFirstPack(func() { g.down.Store(true) })
	for i := range files {
		w.noise(fmt.Sprintf("g%02d.bin", i), 300_000, uint64(100+i))
	}
	w.publish("package")
	w.until("the incident", func() bool { return w.open("site-store") })
	g.down.Store(false)
	w.untilCurrent(3, "osaka")
	w.untilSame(w.folder("osaka", "package"))
	w.untilOver("site-store")
	w.untilRendered()
	w.onceEach(3, 2*files+1)
}

// onceEach: a release came in exactly one verified run, whose log names what it
// added once.
func (w *world) onceEach(number trust.ReleaseNumber, files int) {
	w.t.Helper()
	runs, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil {
		w.t.Fatal(err)
	}
	verified := 0
	for _, r := range runs {
		if r.Number != number || r.State != "verified" {
			continue
		}
		verified++
		log := ""
		for name, text := range w.logs() {
			if strings.HasSuffix(name, r.ID.String()+".jsonl") {
				log = text
			}
		}
		if n := int64(strings.Count(log, "\n")) - 2; n != r.Totals.Added+r.Totals.Changed || r.Totals.Added != 30 || r.Totals.Added+r.Totals.Unchanged != int64(files) {
			w.t.Errorf("release %d: %d lines, %+v", number, n, r.Totals)
		}
	}
	if verified != 1 {
		w.t.Errorf("release %d: %d verified runs: %+v", number, verified, runs)
	}
}
