package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/wire"
)

func TestConverges(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	target := filepath.Join(base, "package")
	d := w.start(w.enrolled(base), func(o *Options) { o.AckWait = 5 * time.Second }) // what is asked again would be counted
	first := tree(100, "one")
	w.publish(first, target)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.same(target, first)

	second := tree(90, "one")
	second["d0/f000.inf"] = "changed"
	w.publish(second, target)
	w.await("second run", func() bool { return w.finished(1) != nil })
	w.same(target, second)
	d.end()

	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.finished(0)
	if f.Verdict != "verified" || f.Added != 107 || f.Unchanged != 0 || f.Files != 100 {
		t.Errorf("first run: %+v", f)
	}
	if f = w.finished(1); f.Verdict != "verified" || f.Changed != 1 || f.Deleted != 10 || f.Unchanged != 96 {
		t.Errorf("second run: %+v", f)
	}
	at, number, err := wire.OpenAttestation(f.Attestation, w.repo.ID(), here, w.site)
	if err != nil || number != 2 || at.Files != 90 || at.ReadFiles+at.StatedFiles != 90 || at.Tree.IsZero() || string(at.Nonce) != "nonce of 16 byte" {
		t.Errorf("attestation %+v, %v", at, err)
	}
	if p := w.problems(); len(p) > 0 {
		t.Errorf("problems %v", p)
	}
	packs := 0
	for _, keys := range w.asks {
		for _, k := range keys {
			if strings.HasPrefix(k, "packs/") {
				packs++
				break
			}
		}
	}
	if packs > 2 {
		t.Errorf("packs were asked for %d times, once a run is enough", packs)
	}
}

// TestDocumentedProblems keeps the table for operators in step.
func TestDocumentedProblems(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "agent.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Problems() {
		if !strings.Contains(string(doc), "\n| `"+kind+"` |") {
			t.Errorf("docs/agent.md does not list the problem %q", kind)
		}
	}
}
