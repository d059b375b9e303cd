package apply

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"nightferry/internal/durable"
	"nightferry/internal/testbed"
)

// killer simulates a process that dies at its n-th change: no later change reaches the disk.
type killer struct {
	mu   sync.Mutex
	at   int // 0: never
	n    int
	ops  []durable.Op
	dead bool
}

var errKilled = errors.New("killed")

func (k *killer) Before(op durable.Op) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if op.Kind == durable.Probe {
		return nil
	}
	k.n++
	if k.dead || k.at != 0 && k.n >= k.at {
		k.dead = true
		return errKilled
	}
	op.Data = append([]byte(nil), op.Data...)
	k.ops = append(k.ops, op)
	return nil
}

var before = tree{
	"a": blob(1, 3000), "b": blob(2, 3000), // swapped
	"edit":      "old text",
	"gone/deep": "deleted with its folder", "gone/x": "also",
	"move/from": blob(3, 2000),
	"keep/same": "the same in both",
	"turn":      "a file that becomes a folder",
	"fold/in":   "a folder that becomes a file", "fold/sub/in": "deep",
	"img": blob(4, 150_000),
}

var after = tree{
	"a": blob(2, 3000), "b": blob(1, 3000),
	"edit":      "new text, longer",
	"move2/to":  blob(3, 2000),
	"keep/same": "the same in both", "keep/new": "new beside it",
	"turn/inside": "a folder now",
	"fold":        "a file now",
	"img":         blob(4, 150_000)[:100_000] + blob(5, 60_000),
	"empty/":      "",
}

// whole fails the test unless every visible file is the old or the new one.
func whole(t *testing.T, what, dst string, old, new tree) {
	t.Helper()
	for p, text := range seen(t, dst) {
		if strings.HasSuffix(p, "/") {
			continue
		}
		a, inOld := old[p]
		b, inNew := new[p]
		if (!inOld || text != a) && (!inNew || text != b) {
			t.Fatalf("%s: %q is neither the old nor the new file: %d bytes", what, p, len(text))
		}
	}
	// A file of both releases may be missing only while it is being moved.
	have := seen(t, dst)
	for p := range old {
		if _, inNew := new[p]; inNew && p != "a" && p != "b" && !strings.HasSuffix(p, "/") {
			if _, ok := have[p]; !ok {
				t.Fatalf("%s: %q is in both releases, and is missing", what, p)
			}
		}
	}
}

// TestPain05_KilledAtEveryChange kills a pull before each of its changes to the disk in turn. Every visible file is whole,
// and the next pull finishes the work.
func TestPain05_KilledAtEveryChange(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	lay(t, src, after)
	p.publish(src)
	base := filepath.Dir(dst)
	total, journaled, stride := 0, 0, 1
	if runtime.GOOS == "windows" && !testbed.Soak() {
		stride = 20 // Wine takes seconds for each
	}
	for n := 0; n == 0 || n <= total; n += stride {
		dst := filepath.Join(base, fmt.Sprint("dst", n))
		p.must(dst, func(o *Options) { o.Release = 1 })
		k := &killer{at: n}
		_, err := p.pull(dst, func(o *Options) { o.Observer = k })
		if n == 0 {
			if err != nil {
				t.Fatal(err)
			}
			total = k.n
			sameTree(t, src, dst)
			continue
		}
		if err == nil {
			// Concurrency varies the number of changes slightly: this run had finished before.
			continue
		}
		what := fmt.Sprintf("killed at change %d of %d", n, total)
		whole(t, what, dst, before, after)
		if jerr := pending(rootOf(t, dst)); jerr == nil {
			journaled++
		} else {
			for path, text := range before {
				if !strings.HasSuffix(path, "/") && seen(t, dst)[path] != text {
					// Without a journal the commit has not started or is finished.
					whole(t, what+": no journal, but changed", dst, after, after)
					break
				}
			}
		}
		p.must(dst, nil)
		sameTree(t, src, dst)
		if again := p.must(dst, nil); !again.NoOp {
			t.Fatalf("%s: after recovery the pull is no no-op", what)
		}
	}
	t.Logf("%d changes, killed at each, %d of them with a journal", total, journaled)
	if journaled < 20/stride {
		t.Errorf("only %d kills hit the commit", journaled)
	}
}

func rootOf(t *testing.T, dir string) *durable.Root {
	t.Helper()
	r, err := durable.Open(dir, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// TestPain05_PowerCut replays possible disk states after a power cut: all synced changes and any subset of the
// others.
func TestPain05_PowerCut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the disk that is simulated keeps Linux's rules")
	}
	// With and without files that must make way first.
	t.Run("moves", func(t *testing.T) { powerCut(t, before, after) })
	t.Run("edits", func(t *testing.T) {
		powerCut(t, tree{"a": blob(1, 3000), "b/c": blob(2, 3000), "d": blob(3, 150_000), "e": "old"},
			tree{"a": blob(4, 3000), "b/c": blob(5, 5000), "d": blob(6, 150_000), "new/f": "new"})
	})
}

func powerCut(t *testing.T, old, new tree) {
	p, src, dst := dirs(t, old)
	p.publish(src)
	p.must(dst, nil)
	disk := readDisk(t, dst)
	lay(t, src, new)
	p.publish(src)
	k := &killer{}
	p.must(dst, func(o *Options) { o.Observer = k })
	rnd := rand.New(rand.NewPCG(15, 0))
	base := filepath.Dir(dst)
	rounds := 150
	if testbed.Soak() {
		rounds = 1500
	}
	journaled := 0
	for i := range rounds {
		n := 1 + rnd.IntN(len(k.ops))
		if i%2 == 0 { // half of them inside the commit
			n = commitStart(k.ops) + rnd.IntN(len(k.ops)-commitStart(k.ops))
		}
		dst := filepath.Join(base, fmt.Sprint("cut", i))
		if i == 0 {
			n = len(k.ops)
		}
		disk.cut(k.ops[:n], rnd).lay(t, dst)
		what := fmt.Sprintf("power cut %d after change %d of %d (%v %s)", i, n, len(k.ops), k.ops[n-1].Kind, k.ops[n-1].Name)
		whole(t, what, dst, old, new)
		if i == 0 { // the run had finished: everything it reported is on disk
			whole(t, what, dst, new, new)
		}
		if err := pending(rootOf(t, dst)); err == nil {
			journaled++
		}
		r, err := p.pull(dst, nil)
		if err != nil || r.Verdict != Verified {
			t.Fatalf("%s: recovery: %v, %v %v", what, r.Verdict, err, r.files)
		}
		for path, text := range new {
			if !strings.HasSuffix(path, "/") && seen(t, dst)[path] != text {
				t.Fatalf("%s: after recovery %q is wrong", what, path)
			}
		}
	}
	t.Logf("%d power cuts, %d with a journal", rounds, journaled)
	if journaled < rounds/5 {
		t.Errorf("only %d cuts hit the commit", journaled)
	}
}

// commitStart returns the index of the rename that gives the journal its name.
func commitStart(ops []durable.Op) int {
	for i, op := range ops {
		if op.Kind == durable.Rename && op.To == journalName {
			return i + 1
		}
	}
	return 0
}
