package clock

import (
	"errors"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestDue: a last time in the future, left by a wrong clock, never stops a
// task.
func TestDue(t *testing.T) {
	now := LocalAt(noon)
	for _, x := range []struct {
		last Local
		due  bool
	}{{Local{}, true}, {now, false}, {now.Add(-time.Hour), true}, {now.Add(-time.Hour + 1), false}, {now.Add(1), true}, {now.Add(9000 * time.Hour), true}} {
		if got := Due(x.last, now, time.Hour); got != x.due {
			t.Errorf("last %v: due %t", x.last.Time(), got)
		}
	}
}

// TestSkew: the store's time is known after a comparison. Clocks agree only
// if they were compared recently and are close.
func TestSkew(t *testing.T) {
	var s Skew
	now := LocalAt(noon)
	if got := s.Store(now); got.Time() != noon {
		t.Errorf("before a comparison: %v", got)
	}
	if _, err := s.Agreed(now); !errors.Is(err, ErrNotCompared) {
		t.Errorf("%v", err)
	}
	s.Compare(Store{}, now, now) // a response without a date
	if _, err := s.Agreed(now); !errors.Is(err, ErrNotCompared) {
		t.Errorf("%v", err)
	}
	s.Compare(StoreAt(noon.Add(-time.Second)), now, now) // as exact as a date of whole seconds can be
	if got, err := s.Agreed(now); err != nil || got.Time() != noon {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Agreed(now.Add(time.Hour)); !errors.Is(err, ErrNotCompared) {
		t.Errorf("an hour later: %v", err)
	}
	for _, after := range []Local{now.Add(48 * time.Hour), now.Add(-48 * time.Hour), now.Add(10 * time.Minute)} { // the clock was set meanwhile, or the request hung
		s.Compare(StoreAt(noon.Add(after.Sub(now))), now, after)
		if got, err := s.Agreed(now); err != nil || got.Time() != noon {
			t.Errorf("after a comparison that took %s: %v, %v", after.Sub(now), got, err)
		}
	}
	s.Compare(StoreAt(noon.Add(-40*24*time.Hour)), now, now)
	differ := (*DifferError)(nil)
	if _, err := s.Agreed(now); !errors.As(err, &differ) || differ.Ahead.Round(time.Minute) != 40*24*time.Hour {
		t.Errorf("%v", err)
	}
	if got, want := s.Store(now.Add(time.Minute)).Time(), noon.Add(-40*24*time.Hour+time.Minute+500*time.Millisecond); !got.Equal(want) {
		t.Errorf("a minute later: %v, want %v", got, want)
	}
}
