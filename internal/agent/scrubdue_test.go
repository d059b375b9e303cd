package agent

import (
	"testing"
	"time"
)

// TestPassDue: a clock that was ahead for a moment does not end the checks.
func TestPassDue(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	last := now.Add(-time.Hour)
	for done, want := range map[time.Time]bool{{}: true, last.Add(-time.Second): true, last: false, now: false, now.AddDate(1, 0, 0): true} {
		if got := passDue(done.Unix(), last, now); got != want {
			t.Errorf("done %v: due %t", done, got)
		}
	}
}
