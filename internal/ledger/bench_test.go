package ledger

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
)

// BenchmarkCommit measures outcomes per second. Many sites commit batches of 2 000 outcomes (20 000 bytes, as encoded
// on the wire) concurrently.
func BenchmarkCommit(b *testing.B) {
	for _, sites := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(sites, " sites"), func(b *testing.B) {
			l, err := Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"), Options{Now: newClock().now})
			if err != nil {
				b.Fatal(err)
			}
			body := make([]byte, 20000)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
			var wg sync.WaitGroup
			for s := range sites {
				wg.Go(func() {
					for n := uint64(s); n < uint64(b.N); n += uint64(sites) {
						_, err := l.Commit(b.Context(), Batch{Domain: "apac", Site: fmt.Sprint("s", s), Generation: gen, First: n/uint64(sites) + 1,
							Events: []Event{{Run: runID(s), Channel: "package", Body: body}}})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "outcomes/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
