package pains

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/testbed"
)

// counter is a counter that is safe for concurrent use.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// older and newer are two releases that differ in every way that an update can.
func older() tree {
	return tree{
		"edit": noise(1, 300_000), "grow.img": noise(2, 2_000_000), "gone": noise(3, 5000), "gone-dir/x": noise(4, 50), "empty": {},
		"swap-a": noise(5, 40_000), "swap-b": noise(6, 40_000), "moved/from": noise(7, 70_000), "case.txt": noise(8, 2000),
		"file-to-dir": noise(9, 900), "dir-to-file/x": noise(10, 900), "dir-to-file/y": noise(11, 10), "same": noise(12, 9000), "hollow/": nil,
		"holes.img": append(append(noise(13, 200_000), make([]byte, 1_500_000)...), noise(14, 1000)...),
	}
}

func newer() tree {
	return tree{
		"edit": noise(21, 300_000), "grow.img": append(noise(2, 2_000_000), noise(22, 400_000)...), "added": noise(23, 60_000), "added-dir/deep/z": noise(24, 1), "empty": {},
		"swap-a": noise(6, 40_000), "swap-b": noise(5, 40_000), "moved/to": noise(7, 70_000), "CASE.txt": noise(8, 2000),
		"file-to-dir/x": noise(9, 900), "dir-to-file": noise(25, 1000), "same": noise(12, 9000), "hollow/": nil, "hollow2/": nil,
		"holes.img": append(append(noise(13, 200_000), make([]byte, 1_500_000)...), noise(26, 1000)...),
	}
}

// s5cmd #493: an interrupted download leaves half a file under its name. A real pull is killed at random changes of the
// target; internal/crash does this exhaustively.
func TestPain05_TornFiles(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, older())
	w.mustPush(nil)
	template := w.site()
	w.arrive(template)
	lay(t, w.src, newer())
	w.mustPush(func(o *push.Options) { o.AllowDeletes = true })

	var total counter
	counted := w.site()
	copyTree(t, template, counted)
	_, err := w.pull(counted, func(o *apply.Options) { o.Observer = observer(func(durable.Op) error { total.next(); return nil }) })
	must(t, err)

	points := 12
	if testbed.Soak() {
		points = 100
	}
	r := rand.New(rand.NewPCG(5, 5))
	for range points {
		at := 1 + r.IntN(total.n)
		site := w.site()
		copyTree(t, template, site)
		if out, err := (errand{Job: "killed pull", Store: w.url, Dir: site, At: at}).command(t).CombinedOutput(); err == nil || strings.Contains(string(out), "it ended") {
			// Goroutines interleave differently each time, so the last changes may not happen.
			if at < total.n-total.n/10 {
				t.Errorf("killed at change %d of %d: %v %s", at, total.n, err, out)
			}
		}
		whole(t, site, older(), newer())
		w.arrive(site)
		if t.Failed() {
			t.Fatalf("killed at change %d of %d", at, total.n)
		}
	}
	t.Logf("killed at %d of %d changes", points, total.n)
}

// whole fails the test unless each visible file matches one of the releases, and each file that is the same in all
// releases is there.
func whole(t testing.TB, site string, releases ...tree) {
	t.Helper()
	for p := range look(t, site) {
		b, err := os.ReadFile(filepath.Join(site, p))
		if err != nil {
			continue // a folder
		}
		fits := false
		for _, r := range releases {
			content, has := r[p]
			fits = fits || has && bytes.Equal(b, content)
		}
		if !fits {
			t.Errorf("%s: its %d bytes are those of no release", p, len(b))
		}
	}
	for _, p := range []string{"same", "empty"} {
		if _, err := os.Stat(filepath.Join(site, p)); err != nil {
			t.Errorf("a file that no release changes: %v", err)
		}
	}
}
