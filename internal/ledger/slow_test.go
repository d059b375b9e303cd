package ledger

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestSlowReadersHoldNoConnection checks that the ledger answers all reads while many readers of a run's events pause.
// Each reader still gets all events, over several pages.
func TestSlowReadersHoldNoConnection(t *testing.T) {
	l, _ := newLedger(t)
	run := runID(1)
	const n = 3*pageEvents + 7
	for first := uint64(1); first <= n; first += 100 {
		_, err := l.Commit(t.Context(), batch("apac", "osaka", first, int(min(100, n+1-first)), run))
		must(t, err)
	}
	const readers = 16
	started, release := make(chan bool, readers), make(chan bool)
	counts := make([]int, readers)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			if err := l.RunEvents(t.Context(), run, func(Event) error {
				if counts[i]++; counts[i] == 1 {
					started <- true
					<-release
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	for range readers {
		<-started
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := l.Runs(ctx, RunFilter{}); err != nil {
		t.Errorf("another read beside %d slow readers: %v", readers, err)
	}
	close(release)
	all.Wait()
	for i, c := range counts {
		if c != n {
			t.Errorf("reader %d got %d events, want %d", i, c, n)
		}
	}
}
