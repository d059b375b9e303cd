package releases

import (
	"testing"
	"time"
)

// TestPagesAreBounded: the cache of manifest pages loses the old ones, and the oldest of
// the others where they are too many.
func TestPagesAreBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var all []keptPage
	for n := range 500 { // a release a day, and more than one on some
		all = append(all, keptPage{name: string(rune('a' + n%26)), size: 14 << 10, saved: now.Add(-time.Duration(n) * 6 * time.Hour)})
	}
	left := func(most int64) int { return len(all) - len(stalePages(all, now, most)) }
	if n := left(1 << 40); n != 241 { // 60 days, both ends
		t.Errorf("%d pages of 60 days stay", n)
	}
	if n := left(100 * 14 << 10); n != 100 {
		t.Errorf("%d pages stay where 100 have room", n)
	}
	if n := left(0); n != 0 {
		t.Errorf("%d pages stay where none has room", n)
	}
}
