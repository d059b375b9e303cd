package core

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestEndedWorkIsNoTrouble: work that ends because the Core stops is not reported as a failure.
func TestEndedWorkIsNoTrouble(t *testing.T) {
	events := 0
	n := &notices{now: time.Now, onEvent: func(Event) { events++ }}
	n.ReportFailure("store", fmt.Errorf("read the head: %w", context.Canceled))
	if events != 0 {
		t.Error("an ended context was reported")
	}
	n.ReportFailure("store", fmt.Errorf("read the head: %w", context.DeadlineExceeded))
	if events != 1 {
		t.Error("a store that does not answer was not reported")
	}
}
