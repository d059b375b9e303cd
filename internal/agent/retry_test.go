package agent

import (
	"testing"
	"time"

	"nightferry/internal/wire"
)

// TestUnchangedFailure: a run that fails again and again in the same way is tried
// less and less often, and in the end once a window; another failure, or a new
// state, begins anew.
func TestUnchangedFailure(t *testing.T) {
	now := time.Date(2026, 3, 2, 22, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		windows string
		want    time.Time // of the next try of an unchanged failure: not before
	}{{"20:00-06:00", time.Date(2026, 3, 3, 6, 0, 0, 0, time.UTC)}, {"", now.Add(24 * time.Hour)}} {
		s := &wire.State{Zone: "UTC", Desired: []wire.Desired{{Channel: "package"}}}
		s.Desired[0].Windows = tt.windows
		a := &agent{session: session{o: Options{Now: func() time.Time { return now }, Retry: 15 * time.Second}}, night: readNight(s)}
		n := attempt{}
		for range 8 { // 15 s, 30 s, … 32 min, of which the last is 30 min
			n.why = "incomplete 0 3"
			n = n.retryAfter(now, a.o.Retry, a.night, "package")
		}
		if n.at.Sub(now) != maxRetry {
			t.Errorf("windows %q: the eighth try is %v away, want %v", tt.windows, n.at.Sub(now), maxRetry)
		}
		if n = n.retryAfter(now, a.o.Retry, a.night, "package"); !n.at.Equal(tt.want) {
			t.Errorf("windows %q: an unchanged failure is tried again at %v, want %v", tt.windows, n.at, tt.want)
		}
		n.why = "incomplete 0 2"
		if n = n.retryAfter(now, a.o.Retry, a.night, "package"); n.at.Sub(now) != maxRetry {
			t.Errorf("windows %q: another failure is tried again in %v, want %v", tt.windows, n.at.Sub(now), maxRetry)
		}
		for range 9 {
			n.why = "" // files in use
			n = n.retryAfter(now, a.o.Retry, a.night, "package")
		}
		if n.at.Sub(now) != maxRetry {
			t.Errorf("windows %q: files in use are tried again in %v, want %v", tt.windows, n.at.Sub(now), maxRetry)
		}
		if n = (attempt{}).retryAfter(now, a.o.Retry, a.night, "package"); n.at.Sub(now) != a.o.Retry {
			t.Errorf("windows %q: after a new state it is tried again in %v", tt.windows, n.at.Sub(now))
		}
	}
}
