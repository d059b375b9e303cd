package incident

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

var osaka = wire.Address{Domain: "apac", Site: "osaka"}

// desk is a service over a real ledger, with a clock that the test moves.
type desk struct {
	*Service
	t   *testing.T
	l   *ledger.Ledger
	now time.Time
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, now: time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)}
	var err error
	d.l, err = ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: func() time.Time { return d.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.l.Close(); err != nil {
			t.Error(err)
		}
	})
	d.restart()
	return d
}

// restart simulates a Core that was killed and starts again: unwritten changes
// are lost.
func (d *desk) restart() {
	d.Service = New(Options{Records: d.l, Now: func() time.Time { return d.now }, OnChange: func(Change) {}})
	if err := d.Load(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// open lists the keys of the open incidents.
func (d *desk) open() []string {
	d.t.Helper()
	list, err := d.List(d.t.Context(), false)
	if err != nil {
		d.t.Fatal(err)
	}
	var keys []string
	for _, i := range list {
		keys = append(keys, i.Key)
	}
	slices.Sort(keys)
	return keys
}

func (d *desk) want(keys ...string) {
	d.t.Helper()
	if got := d.open(); !slices.Equal(got, keys) {
		d.t.Errorf("open: %q, want %q", got, keys)
	}
}

// TestEveryKindEnds: every incident of the registry, about any object, ends by
// itself once its objects are no longer configured and its time has passed.
func TestEveryKindEnds(t *testing.T) {
	d := newDesk(t)
	core, sites := kinds.Entries()
	for _, e := range slices.Concat(core, sites) {
		d.Raise(e.Kind, "package", osaka, "x")
		if e.Object != kinds.Other {
			d.Raise(e.Kind, "package", wire.Address{}, "x")
		}
	}
	d.Flush(t.Context())
	d.restart()
	no := func(string) bool { return false }
	d.Sweep(Known{Channel: no, Domain: no, Task: no, Site: func(wire.Address, string) bool { return false }})
	d.now = d.now.Add(25 * time.Hour)
	d.Expire()
	d.want()
}

// TestSweepKeepsWhatIsThere: Sweep ends no incident about a configured object.
func TestSweepKeepsWhatIsThere(t *testing.T) {
	d := newDesk(t)
	d.Raise(kinds.Publishes, "package", wire.Address{}, "x")
	d.Raise(kinds.Publishes, "gone", wire.Address{}, "x")
	d.Raise(kinds.LogAccess, "apac", wire.Address{}, "x")
	d.Raise(kinds.LogAccess, "gone", wire.Address{}, "x")
	d.Raise(kinds.Stale, "package", osaka, "x")
	d.Raise(kinds.Stale, "gone", osaka, "x")
	d.Raise(kinds.Store, "", wire.Address{}, "x")
	d.Raise(kinds.Clock, "core", wire.Address{}, "x")
	d.Raise(kinds.Clock, "", osaka, "x")
	d.Sweep(Known{Channel: func(n string) bool { return n == "package" }, Domain: func(n string) bool { return n == "apac" },
		Site: func(at wire.Address, channel string) bool { return at == osaka && channel != "gone" }})
	d.want("clock", "clock/core", "log-access/apac", "publish/package", "stale/package", "store")
}

// TestCloseAndAck: a person ends an incident or acknowledges it. Both are
// audited, and an incident whose cause persists opens again.
func TestCloseAndAck(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.Raise(kinds.Silent, "", osaka, "not heard")
	list, err := d.List(ctx, false)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := d.Ack(ctx, list[0].ID, "kay", "the office moves"); err != nil {
		t.Fatal(err)
	}
	if list, err = d.List(ctx, false); err != nil || list[0].Acked != "kay: the office moves" {
		t.Fatalf("%+v, %v", list, err)
	}
	if i, err := d.Close(ctx, list[0].ID, "kay", "it is gone"); err != nil || i.Key != "silent" {
		t.Fatal(i, err)
	}
	d.want()
	if _, err := d.Close(ctx, list[0].ID, "kay", "again"); err == nil {
		t.Error("it was closed twice")
	}
	all, err := d.List(ctx, true)
	if err != nil || len(all) != 1 || all[0].Closed != "kay: it is gone" || all[0].Members[0].Left.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	deeds, err := d.l.Deeds(ctx, ledger.DeedFilter{Who: "kay"})
	if err != nil || len(deeds) != 2 || !strings.Contains(deeds[0].Object, "silent") || deeds[0].Detail != "it is gone" {
		t.Errorf("%+v, %v", deeds, err)
	}
	d.Raise(kinds.Silent, "", osaka, "not heard")
	d.want("silent")
}

// TestTextFollows: an incident shows the latest text.
func TestTextFollows(t *testing.T) {
	d := newDesk(t)
	d.Raise(kinds.Publishes, "package", wire.Address{}, "disk full")
	d.now = d.now.Add(2 * time.Minute)
	d.Raise(kinds.Publishes, "package", wire.Address{}, "access denied")
	list, err := d.List(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].Text != "access denied" || list[0].Count != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestClockWasAhead: times written under a clock that was ahead neither hide
// new events nor stay for ever.
func TestClockWasAhead(t *testing.T) {
	d := newDesk(t)
	now := d.now
	d.now = now.AddDate(1, 0, 0)
	d.Raise(kinds.Forged, "", osaka, "then")
	d.Flush(t.Context())
	d.now = now
	d.restart()
	d.Raise(kinds.Forged, "", osaka, "now")
	if list, err := d.List(t.Context(), false); err != nil || list[0].Text != "now" {
		t.Errorf("%+v, %v", list, err)
	}
	d.Expire()
	d.want("forged")
	d.now = now.Add(25 * time.Hour)
	d.Expire()
	d.want()
}

// TestSymptoms: an alert is sent for the cause alone. A symptom that outlives
// its cause gets its own.
func TestSymptoms(t *testing.T) {
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	at := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	list := []ledger.Incident{
		{ID: 1, Kind: "store", Opened: at(0), Resolved: at(5)},
		{ID: 2, Kind: "site-store", Opened: at(-1), Resolved: at(6)},
		{ID: 3, Kind: "publish", Opened: at(3)},
		{ID: 4, Kind: "site-store", Opened: at(60)},
		{ID: 5, Kind: "silent", Opened: at(1)},
	}
	if got := Symptoms(list, at(7)); !got[2] || !got[3] || got[1] || got[4] || got[5] {
		t.Errorf("%v", got)
	}
	if got := Symptoms(list, at(20)); got[3] {
		t.Errorf("%v: a publish that still fails is no symptom any more", got)
	}
}
