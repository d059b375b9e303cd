package window

import (
	"testing"
	"time"
)

// TestMotion checks that shown and real time convert into each other without
// loss, that windows use the shown time, and that the zero Motion changes
// nothing.
func TestMotion(t *testing.T) {
	now := time.Date(2026, 11, 22, 22, 40, 0, 0, time.UTC)
	m, err := ParseMotion("2027-03-28T00:00:00Z@720", now)
	if err != nil {
		t.Fatal(err)
	}
	day := m.To.Add(24 * time.Hour)
	for real, shown := range map[time.Time]time.Time{
		now:                       m.To,
		now.Add(5 * time.Second):  m.To.Add(time.Hour),
		now.Add(2 * time.Minute):  day,
		now.Add(-3 * time.Minute): m.To.Add(-3 * time.Minute), // before the rehearsal started
		{}:                        {},
	} {
		if got := m.At(real); !got.Equal(shown) {
			t.Errorf("at %v it shows %v, want %v", real, got, shown)
		}
		if got := m.When(shown); !got.Equal(real) {
			t.Errorf("it shows %v at %v, want %v", shown, got, real)
		}
	}
	if got := m.Real(time.Hour); got != 5*time.Second {
		t.Errorf("an hour takes %v", got)
	}
	// The night in which Berlin's clocks change is an hour shorter in a
	// rehearsal, too.
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	rule, err := ParseRule("01:00-05:00")
	if err != nil {
		t.Fatal(err)
	}
	w, ok := Open(m.At(now.Add(5*time.Second)), Place{Zone: berlin}, rule)
	if got := m.When(w.End).Sub(m.When(w.Start)); !ok || got != 15*time.Second {
		t.Errorf("the night takes %v (%t), want 15 s", got, ok)
	}
	zero := Motion{}
	if zero.On() || zero.At(now) != now || zero.When(now) != now || zero.Real(time.Hour) != time.Hour {
		t.Error("no rehearsal changes the time")
	}
	for _, text := range []string{"", "now", "@720", "now@0", "now@10001", "now@-1", "2027-03-28@720", "now@7.5"} {
		if m, err := ParseMotion(text, now); err == nil {
			t.Errorf("%q is read as %+v", text, m)
		}
	}
}
