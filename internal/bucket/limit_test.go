package bucket_test

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
)

// Bodies in both directions share one rate, exact to 5 % over seconds, however many there are. A busy machine can
// make it slower, so the test fails for slowness only after three slow results, but at once if it is too fast.
func TestLimitIsExact(t *testing.T) {
	const rate = 2 << 20
	for _, bodies := range []int{1, 16} {
		got := 0.0
		for range 3 {
			if got = limitedRate(t, rate, bodies); got > 0.95*rate {
				break
			}
		}
		// A busy machine may be slower: bench measures the lower bound, 5 %.
		if off := got/rate - 1; off > 0.05 || off < -0.5 {
			t.Errorf("%d bodies moved %.0f bytes per second, want %d", bodies, got, rate)
		} else {
			t.Logf("%d bodies: %+.1f %%", bodies, 100*off)
		}
	}
}

// limitedRate moves some seconds' worth and returns the bytes per second.
func limitedRate(t *testing.T, rate int64, bodies int) float64 {
	t.Helper()
	const total = 5 << 20
	dir := openDir(t, t.TempDir())
	s := bucket.Limit(dir, rate)
	part := noise(total / bodies)
	if _, err := dir.Put(t.Context(), "in", bucket.Bytes(part), bucket.Cond{}); err != nil {
		t.Fatal(err)
	}
	var moved atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range bodies {
		wg.Go(func() {
			if i%2 == 1 {
				if _, err := s.Put(t.Context(), "out", bucket.Bytes(part), bucket.Cond{}); err != nil {
					t.Error(err)
				}
				moved.Add(int64(len(part)))
				return
			}
			r, _, err := s.Get(t.Context(), "in", 0, -1)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			n, err := io.Copy(io.Discard, r)
			if err != nil {
				t.Error(err)
			}
			moved.Add(n)
		})
	}
	wg.Wait()
	return float64(moved.Load()) / time.Since(start).Seconds()
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"20Mbit": 2500000, "2.5MB": 2500000, "512KiB": 524288, "1Gbit": 125000000, "8bit": 1, "100B": 100, "1kB": 1000, "1KB": 1000,
		"1 MiB": 1 << 20, "1MiB/s": 1 << 20, "20mbit": 2500000, "20Mbps": 2500000, "56kbps": 7000, "1GiB": 1 << 30, "0.5GB": 500000000,
	} {
		if got, err := bucket.ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "20", "Mbit", "20Mb", "20b", "-1MB", "0MB", "1bit", "1.2.3MB", "20M", "5 k", "20 apples", "1e3MB", "NaNMB", "99999999999999999GB"} {
		if got, err := bucket.ParseRate(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
	if _, err := bucket.ParseRate("20M"); err == nil || !strings.Contains(err.Error(), "write 20Mbit for bits or 20MB for bytes") {
		t.Errorf("20M: %v", err)
	}
}
