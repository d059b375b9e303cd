package apply

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"nightferry/internal/testbed"
)

// TestPain09_ManyFilesNoOp: a no-op takes a constant number of requests, and its time and memory stay bounded as
// the number of files grows. It uses 1 000 000 files with NIGHTFERRY_SOAK=1, else 20 000, and 4 000 on Windows.
func TestPain09_ManyFilesNoOp(t *testing.T) {
	files := 20_000
	if runtime.GOOS == "windows" {
		files = 4_000 // Wine takes milliseconds to adopt each
	}
	if testbed.Soak() {
		files = 1_000_000
	}
	p := newPress(t, nil)
	dst := t.TempDir()
	for i := range files {
		dir := filepath.Join(dst, fmt.Sprintf("d%04d", i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	p.publish(dst)
	t.Logf("published %d files in %v", files, time.Since(start))
	start = time.Now()
	p.must(dst, nil)
	t.Logf("adopted in %v", time.Since(start))
	c := testbed.Count(p.store)
	p.store = c
	runtime.GC()
	start = time.Now()
	peak := watchHeap(func() {
		if r := p.must(dst, nil); !r.NoOp {
			t.Error("no no-op")
		}
	})
	took := time.Since(start)
	t.Logf("no-op in %v, heap %d MiB, %+v", took, peak>>20, c.Counts())
	if c.Counts().Requests() > 4 {
		t.Errorf("%+v", c.Counts())
	}
	// Four times what an idle machine may take: bench measures the promise.
	if limit := 4 * (500*time.Millisecond + time.Duration(files)*40*time.Microsecond); took > limit {
		t.Errorf("took %v, at most %v", took, limit)
	}
	if peak > 200<<20 {
		t.Errorf("heap grew to %d MiB", peak>>20)
	}
}

// watchHeap returns the peak heap in use, in bytes, while fn runs.
func watchHeap(fn func()) (peak uint64) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	fn()
	close(stop)
	<-done
	return peak
}
