package halting_test

import (
	"testing"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// TestStopWithinItsOrder checks that no clock of a site moves its stop before the order or after the confirmation, and that
// the bound needs the Core's clock alone.
func TestStopWithinItsOrder(t *testing.T) {
	given := time.UnixMilli(1_700_000_000_250)
	for _, x := range []struct {
		name         string
		at           time.Duration // the site's clock at its stop, since the order
		sent, ago    time.Duration // when the confirmation came, and how old the stop was then
		want, within time.Duration
	}{
		{"exact", 300 * time.Millisecond, 400 * time.Millisecond, 0, 300 * time.Millisecond, 400 * time.Millisecond},
		{"behind", -2700 * time.Millisecond, time.Second, 0, 0, time.Second},
		{"ahead", time.Hour, time.Second, 0, time.Second, time.Second},
		{"late", 10 * time.Second, time.Hour, time.Hour - 11*time.Second, 10 * time.Second, 11 * time.Second},
		{"older than the order", 0, time.Second, time.Minute, 0, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := newDesk(t)
			d.now = given
			o := halt.Order{ID: halt.NewID(), Scope: halt.All, By: "test", At: given.Unix()}
			if _, err := d.Give(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			d.now = given.Add(x.sent)
			d.Confirm(osaka, "p1", []wire.Stop{{Order: o.ID, At: given.Add(x.at).UnixMilli(), Ago: x.ago.Milliseconds()}})
			h := d.active()[o.ID]
			if len(h.Confirmed) != 1 || !h.At.Equal(given) {
				t.Fatalf("%+v", h)
			}
			if c := h.Confirmed[0]; c.Stopped.Sub(given) != x.want || time.Duration(c.Within) != x.within || !c.Confirmed.Equal(d.now) {
				t.Errorf("stopped %v after the order, at most %v: %+v", c.Stopped.Sub(given), time.Duration(c.Within), c)
			}
		})
	}
}

// TestAnotherProcessConfirms checks that the confirmation of another process replaces the one before, and that the time of
// a stop stays if it was passed on by a restart.
func TestAnotherProcessConfirms(t *testing.T) {
	d := newDesk(t)
	d.now = time.Unix(1_700_000_000, 0)
	o := halt.Order{ID: halt.NewID(), Scope: halt.All, By: "test", At: d.now.Unix()}
	if _, err := d.Give(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	confirm := func(after time.Duration, process string, at time.Duration) ledger.Stop {
		t.Helper()
		d.now = time.Unix(o.At, 0).Add(after)
		d.Confirm(osaka, process, []wire.Stop{{Order: o.ID, At: time.Unix(o.At, 0).Add(at).UnixMilli()}})
		c := d.active()[o.ID].Confirmed
		if len(c) != 1 {
			t.Fatalf("%+v", c)
		}
		return c[0]
	}
	first := confirm(2*time.Second, "p1", time.Second)
	if again := confirm(time.Hour, "p1", time.Minute); again != first {
		t.Errorf("the first confirmation of a process does not count: %+v", again)
	}
	restarted := confirm(time.Hour, "p2", time.Second)
	if restarted.Process != "p2" || !restarted.Stopped.Equal(first.Stopped) || restarted.Within != first.Within {
		t.Errorf("a restart changes the proof: %+v", restarted)
	}
	if other := confirm(time.Hour, "p3", 30*time.Minute); other.Process != "p3" || !other.Stopped.Equal(other.Said) || time.Duration(other.Within) != time.Hour {
		t.Errorf("another machine's stop: %+v", other)
	}
}
