package crash

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
)

// step is the rename that ends a phase by giving a file its name.
type step struct {
	phase string // phase that it ends
	root  string
	to    string // new name, or its folder if it ends in a slash
}

// Phases of a pull.
const (
	stagePhase = iota // the journal does not have its name yet
	burstPhase        // the journal has its name; the catalogue is still the old one
	endPhase
)

func pullSteps() []step {
	return []step{
		{"staging", "target", stateDir + "/journal"},
		{"from journal to catalogue", "target", stateDir + "/catalogue"},
		{phase: "tidying up"},
	}
}

// Phases of a push.
const (
	packPhase = iota // no segment is stored yet
	segmentPhase
	rootPhase
	releasePhase
	headPhase
	publishedPhase
)

func pushSteps() []step {
	return []step{
		{"packs", "store", "packs/"},
		{"segment", "store", "index/"},
		{"index root", "store", "index/root"},
		{"release", "store", "channels/?/releases/"},
		{"head", "store", "channels/?/head"},
		{phase: "stat cache"},
	}
}

// initSteps returns the objects of a new repository.
func initSteps() []step {
	return []step{{"format", "store", "format"}, {"trust", "store", "trust/"}, {"halt", "store", "halt"}, {phase: "index root"}}
}

func (s step) ends(root string, op durable.Op) bool {
	if op.Kind != durable.Rename || root != s.root || s.to == "" {
		return false
	}
	if before, after, ok := strings.Cut(s.to, "?"); ok { // channel names are opaque in an encrypted repository
		return strings.HasPrefix(op.To, before) && strings.Contains(op.To, after)
	}
	return op.To == s.to || strings.HasSuffix(s.to, "/") && strings.HasPrefix(op.To, s.to)
}

// killer counts the changes of this process by phase and kills it at one of them.
type killer struct {
	at    *point
	steps func() []step
	meter *meter

	mu     sync.Mutex
	counts []int
	phase  int
	over   bool // the change that ends the phase was observed, but may not have happened yet
}

// watch returns the observer for one folder.
func (k *killer) watch(dir, root string) durable.Observer { return &watcher{k, dir, root} }

type watcher struct {
	k         *killer
	dir, root string
}

// Before implements durable.Observer.
func (w *watcher) Before(op durable.Op) error {
	if op.Kind == durable.Probe {
		return nil
	}
	k := w.k
	k.mu.Lock()
	defer k.mu.Unlock()
	steps := k.steps()
	if k.over {
		k.phase, k.over = k.phase+1, false
	}
	for len(k.counts) <= k.phase {
		k.counts = append(k.counts, 0)
	}
	if k.at != nil && k.at.Phase == k.phase && k.at.N == k.counts[k.phase] {
		if k.at.Half {
			w.half(op)
		}
		r := report{Op: w.root + ": " + op.Kind.String() + " " + op.Name + " " + op.To, Counts: k.counts, Packs: k.meter.packs.Load(), PackPuts: k.meter.puts.Load()}
		r.say()
		die()
	}
	k.counts[k.phase]++
	// A phase without its own step in this run is skipped: a push may store several packs and no segment. The last
	// matching step counts, because the index root is stored beside the segments.
	for n := len(steps) - 1; n >= k.phase; n-- {
		if steps[n].ends(w.root, op) {
			k.phase, k.over = n, true
			break
		}
	}
	return nil
}

// half makes the first half of a change that takes several steps.
func (w *watcher) half(op durable.Op) {
	name := filepath.Join(w.dir, filepath.FromSlash(op.Name))
	switch op.Kind {
	case durable.Write:
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			_, _ = f.WriteAt(op.Data[:len(op.Data)/2], op.Off)
			_ = f.Close()
		}
	case durable.Create: // the file has its name, but not its length
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_ = f.Close()
		}
	default: // atomic
	}
}

// meter counts the pack bytes that a store returns, and the packs that are sent to it.
type meter struct {
	bucket.Store
	packs, puts atomic.Int64
}

// Get implements bucket.Store.
func (m *meter) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, info, err := m.Store.Get(ctx, key, off, n)
	if err == nil && strings.HasPrefix(key, "packs/") {
		r = &meteredBody{r, &m.packs}
	}
	return r, info, err
}

// Put implements bucket.Store.
func (m *meter) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	if strings.HasPrefix(key, "packs/") {
		m.puts.Add(1)
	}
	return m.Store.Put(ctx, key, body, cond)
}

type meteredBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
