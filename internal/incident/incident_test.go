package incident

import (
	"context"
	"errors"
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
	d.Service = New(Options{Records: &d.l.Incidents, Now: func() time.Time { return d.now }, OnChange: func(Change) {}})
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
	d.ResolveUnconfigured(Known{Channel: no, Domain: no, Task: no, Site: func(wire.Address, string) bool { return false }})
	d.now = d.now.Add(25 * time.Hour)
	d.ResolveExpired()
	d.want()
}

// TestConfiguredStaysOpen: ResolveUnconfigured ends no incident about a configured object.
func TestConfiguredStaysOpen(t *testing.T) {
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
	d.ResolveUnconfigured(Known{Channel: func(n string) bool { return n == "package" }, Domain: func(n string) bool { return n == "apac" },
		Site: func(at wire.Address, channel string) bool { return at == osaka && channel != "gone" }})
	d.want("clock", "clock/core", "log-access/apac", "publish/package", "stale/package", "store")
}

// TestSilence: an incident that a person has silenced stays so when it ends and opens again, until that time, or until somebody
// acknowledges it without.
func TestSilence(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	silent := func() time.Time {
		t.Helper()
		d.Raise(kinds.Silent, "", osaka, "not heard")
		list, err := d.List(ctx, false)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].Silent
	}
	id := func() int64 {
		list, err := d.List(ctx, false)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].ID
	}
	if !silent().IsZero() {
		t.Error("a new incident is silent")
	}
	for _, at := range []time.Time{d.now.Add(-time.Minute), d.now, d.now.Add(MaxSilence + time.Minute)} {
		if _, err := d.Ack(ctx, id(), "kay", "x", at); !errors.Is(err, ErrSilence) {
			t.Errorf("silent until %s: %v", at, err)
		}
	}
	until := d.now.Add(8 * time.Hour).UTC().Truncate(time.Microsecond)
	if _, err := d.Ack(ctx, id(), "kay", "the office moves", until); err != nil {
		t.Fatal(err)
	}
	if list, err := d.List(ctx, false); err != nil || list[0].Acked != "kay: the office moves" {
		t.Errorf("%+v, %v", list, err)
	}
	for range 2 {
		if got := silent(); !got.Equal(until) {
			t.Errorf("silent until %s, want %s", got, until)
		}
		if _, err := d.Close(ctx, id(), "kay", "it is back"); err != nil {
			t.Fatal(err)
		}
	}
	silent()
	if _, err := d.Ack(ctx, id(), "kay", "tell me again", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Close(ctx, id(), "kay", "it is back"); err != nil {
		t.Fatal(err)
	}
	if got := silent(); !got.IsZero() {
		t.Errorf("still silent until %s", got)
	}
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
	if _, err := d.Ack(ctx, list[0].ID, "kay", "the office moves", time.Time{}); err != nil {
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

// meeting lets a test act between two writes of the records.
type meeting struct {
	Records
	before, after func()
}

func (m *meeting) OpenIncident(ctx context.Context, p ledger.IncidentReport) (bool, error) {
	m.before()
	return m.Records.OpenIncident(ctx, p)
}

func (m *meeting) CloseIncident(ctx context.Context, id int64, d ledger.Deed) (ledger.Incident, error) {
	i, err := m.Records.CloseIncident(ctx, id, d)
	m.after()
	return i, err
}

// meet puts a meeting between the service and its ledger.
func (d *desk) meet() *meeting {
	m := &meeting{Records: &d.l.Incidents, before: func() {}, after: func() {}}
	d.o.Records = m
	return m
}

// TestNotedWhileWritten: a transaction ends a part while Flush writes its
// opening. The row that is written afterwards ends, too.
func TestNotedWhileWritten(t *testing.T) {
	d := newDesk(t)
	d.meet().before = func() { d.Noted("site-store/package", osaka, false) }
	d.Raise("site-store", "package", osaka, "no answer")
	d.Flush(t.Context())
	d.want()
	if len(d.Kinds()) > 0 {
		t.Error("it is open in memory")
	}
}

// TestNotedWhileTheLedgerFails: a change that could not be written is not tried
// again if a transaction has a newer fact about its part.
func TestNotedWhileTheLedgerFails(t *testing.T) {
	d := newDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.meet().before = func() { cancel(); d.Noted("site-store/package", osaka, false) }
	d.Raise("site-store", "package", osaka, "no answer")
	d.Raise("site-disk", "package", osaka, "full")
	d.Flush(ctx)
	d.o.Records = &d.l.Incidents
	d.want("site-disk/package")
}

// TestRaisedWhileClosed: an incident is raised, and written, while a person
// closes the one before it. The end of its cause ends it.
func TestRaisedWhileClosed(t *testing.T) {
	d := newDesk(t)
	d.Raise(kinds.Silent, "", osaka, "not heard")
	list, err := d.List(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	done := make(chan struct{})
	d.meet().after = func() {
		d.now = d.now.Add(2 * time.Minute)
		d.Raise(kinds.Silent, "", osaka, "still not heard")
		go func() { d.Flush(t.Context()); close(done) }()
	}
	if _, err := d.Close(t.Context(), list[0].ID, "kay", "moved"); err != nil {
		t.Fatal(err)
	}
	<-done
	d.want("silent")
	d.Resolve(kinds.Silent, "", osaka)
	d.want()
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

// TestTextIsOfTheSiteThatIsNamed: an incident of several sites names the one whose text it shows, also after that one
// has left.
func TestTextIsOfTheSiteThatIsNamed(t *testing.T) {
	d := newDesk(t)
	berlin := wire.Address{Domain: "corp", Site: "berlin"}
	for _, x := range []struct {
		do          func()
		scope, text string
	}{
		{func() { d.Raise(kinds.Silent, "", osaka, "osaka is quiet") }, "site osaka", "osaka is quiet"},
		{func() { d.Raise(kinds.Silent, "", berlin, "berlin is quiet") }, "site berlin", "berlin is quiet"},
		{func() { d.Resolve(kinds.Silent, "", berlin) }, "site osaka", "osaka is quiet"},
	} {
		d.now = d.now.Add(2 * time.Minute)
		x.do()
		list, err := d.List(t.Context(), false)
		if err != nil || len(list) != 1 || list[0].Scope != x.scope || list[0].Text != x.text {
			t.Errorf("%+v, %v; want %s: %s", list, err, x.scope, x.text)
		}
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
	d.ResolveExpired()
	d.want("forged")
	d.now = now.Add(25 * time.Hour)
	d.ResolveExpired()
	d.want()
}

// TestSymptoms: no alert is sent for an incident that another one explains. All
// others are alerted.
func TestSymptoms(t *testing.T) {
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	at := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	is := func(key string, opened, resolved int, sites ...string) ledger.Incident {
		kind, _ := kinds.CutKey(key)
		i := ledger.Incident{Key: key, Kind: string(kind), Opened: at(opened), Last: now}
		if resolved != 0 {
			i.Resolved = at(resolved)
		}
		for _, s := range sites {
			i.Members = append(i.Members, ledger.Member{Site: s})
		}
		return i
	}
	away := is("store", -20, 0, "")
	for _, c := range []struct {
		about    string
		cause, x ledger.Incident
		symptom  bool
	}{
		{"a publish while the store is away", away, is("publish/package", -10, 0, ""), true},
		{"a site that noticed first", away, is("site-store/package", -25, 0, "osaka"), true},
		{"a kind that the store does not explain", away, is("silent", -10, 0, "osaka"), false},
		{"a publish long after the store went away", is("store", -3*60, 0, ""), is("publish/package", -10, 0, ""), false},
		{"a publish long before", is("store", -1, 0, ""), is("publish/package", -30, 0, ""), false},
		{"a publish that fails soon after", is("store", -20, -5, ""), is("publish/package", -3, 0, ""), true},
		{"a publish that still fails later", is("store", -40, -20, ""), is("publish/package", -30, 0, ""), false},
		{"a publish that has ended later", is("store", -40, -20, ""), is("publish/package", -30, -1, ""), true},
		{"the head of the same channel", is("store/package", -20, 0, ""), is("publish/package", -10, 0, ""), true},
		{"the head of another channel", is("store/driver", -20, 0, ""), is("publish/package", -10, 0, ""), false},
		{"the head of a channel and the bucket", is("store/driver", -20, 0, ""), is("bucket/check", -10, 0, ""), false},
		{"the head of a channel and a log", is("store/driver", -20, 0, ""), is("log", -10, 0, ""), false},
		{"the head of a channel and the Core", is("store/driver", -20, 0, ""), is("core/state", -10, 0, ""), false},
		{"a bucket that cannot be checked", away, is("bucket/check", -10, 0, ""), true},
		{"damage in the bucket", away, is("bucket", -10, 0, ""), false},
		{"a file of the Core", is("ledger-full", -20, 0, ""), is("core/state", -10, 0, ""), true},
		{"a message that the Core cannot handle", away, is("core/message", -10, 0, ""), false},
		{"the clock of the same site", is("clock", -20, 0, "osaka", "lisbon"), is("site-clock", -10, 0, "osaka"), true},
		{"the clock of another site", is("clock", -20, 0, "lisbon"), is("site-clock", -10, 0, "osaka"), false},
		{"the Core's clock", is("clock/core", -20, 0, ""), is("site-clock", -10, 0, "osaka"), true},
		{"a symptom open for a day", is("store", -25*60, 0, ""), is("publish/package", -25*60, 0, ""), false},
	} {
		c.cause.ID, c.x.ID = 1, 2
		got := Symptoms([]ledger.Incident{c.x, c.cause}, now)
		if got[2] != c.symptom || got[1] {
			t.Errorf("%s: symptom %v, want %v; cause %v", c.about, got[2], c.symptom, got[1])
		}
	}
}

// TestQueueOfAFailingLedger: an incident that persists while the ledger cannot be written takes one place in the queue,
// so that another one still finds room, and is shown and written.
func TestQueueOfAFailingLedger(t *testing.T) {
	d := newDesk(t)
	broken := &failing{Records: &d.l.Incidents}
	d.Service = New(Options{Records: broken, Now: func() time.Time { return d.now }, OnChange: func(Change) {}})
	for range maxPending + 10 {
		d.now = d.now.Add(2 * again)
		d.Raise(kinds.Store, "", wire.Address{}, "away since "+d.now.String())
	}
	last := d.now.String()
	d.Raise(kinds.Silent, "", osaka, "silent")
	d.want("silent", "store")
	for range 2 * maxPending { // a site that comes and goes
		d.Resolve(kinds.Silent, "", osaka)
		d.now = d.now.Add(2 * again)
		d.Raise(kinds.Silent, "", osaka, "silent")
	}
	if n := len(d.pending); n > mergeAbove+1 {
		t.Errorf("%d changes wait", n)
	}
	broken.works = true
	d.want("silent", "store")
	list, err := d.List(t.Context(), false)
	if err != nil || !slices.ContainsFunc(list, func(i ledger.Incident) bool { return strings.HasSuffix(i.Text, last) }) {
		t.Errorf("%+v, %v", list, err)
	}
}

// failing is a ledger whose volume cannot be written until it works again.
type failing struct {
	Records
	works bool
}

func (f *failing) OpenIncident(ctx context.Context, p ledger.IncidentReport) (bool, error) {
	if !f.works {
		return false, ledger.ErrFull
	}
	return f.Records.OpenIncident(ctx, p)
}

func (f *failing) ResolveMember(ctx context.Context, key, domain, site string) (bool, error) {
	if !f.works {
		return false, ledger.ErrFull
	}
	return f.Records.ResolveMember(ctx, key, domain, site)
}
