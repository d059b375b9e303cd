package push

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestProgressWithinAFile checks that a large file reports its name and progress before it is read completely.
func TestProgressWithinAFile(t *testing.T) {
	g := newRig(t, nil)
	const size = 24 << 20
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	path := filepath.Join(g.source, "base.wim")
	old := time.Now().Add(-time.Hour)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	var ticks atomic.Int64
	began := time.Now()
	if _, err := g.push(func(o *Options) {
		o.Now = func() time.Time { return began.Add(time.Duration(ticks.Add(1)) * time.Second) }
	}); err != nil {
		t.Fatal(err)
	}
	within, last := 0, int64(0)
	for _, e := range g.events {
		if p := e.Progress; p != nil && p.Phase == "store" {
			if p.Read < last {
				t.Errorf("it goes back from %d to %d", last, p.Read)
			}
			if last = p.Read; p.Read > 0 && p.Read < size && p.Path == "base.wim" {
				within++
			}
		}
	}
	if within == 0 || last != size {
		t.Errorf("%d events within the file; the last shows %d of %d bytes", within, last, size)
	}
}
