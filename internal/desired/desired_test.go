package desired

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/policy"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

var osaka = wire.Address{Domain: "apac", Site: "osaka"}

func world() World {
	return World{
		Fleet: &fleet.Fleet{Channels: []fleet.Channel{{Name: "package"}, {Name: "patch"}}, Sites: []fleet.Site{
			{Name: "osaka", Domain: "apac", Placements: []fleet.Placement{{Channel: "package", Target: "/p"}, {Channel: "patch", Target: "/q", Policy: policy.Policy{Priority: 2}}}},
			{Name: "tokyo", Domain: "apac", Placements: []fleet.Placement{{Channel: "package", Target: "/p"}}},
		}},
		Release: func(channel string) (ledger.Release, bool) {
			return ledger.Release{Channel: channel, Number: 3, Digest: trust.ReleaseDigest(digest.Of([]byte(channel))), Bytes: 7}, true
		},
		Nonce: func(k Key, number trust.ReleaseNumber, start uint64) (n [16]byte) {
			n[0], n[1] = byte(number), byte(start)
			return n
		},
		Beat: time.Minute, Now: 1000,
	}
}

// counting is a store that counts reads and can fail.
type counting struct {
	*ledger.Ledger
	rows, changes int
	fail          error
}

func (c *counting) DesiredState(ctx context.Context, domain, site string) (*ledger.DesiredState, error) {
	s, err := c.Ledger.DesiredState(ctx, domain, site)
	if err == nil {
		c.rows += len(s.Rows)
	}
	return s, err
}

func (c *counting) ChangeDesired(ctx context.Context, change ledger.DesiredChange) (uint64, error) {
	c.changes++
	if c.fail != nil {
		return 0, c.fail
	}
	return c.Ledger.ChangeDesired(ctx, change)
}

type suite struct {
	*testing.T
	store *counting
	s     *Service
	w     World
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	store := &counting{Ledger: l}
	return &suite{t, store, New(store), world()}
}

func (s *suite) update(c Change) []wire.Address {
	s.Helper()
	changed, err := s.s.Update(s.Context(), s.w, c)
	if err != nil {
		s.Fatal(err)
	}
	return changed
}

func (s *suite) start(channel string) uint64 {
	for _, d := range s.s.Of(osaka).Desired {
		if d.Channel == channel {
			return d.Start
		}
	}
	return 0
}

// TestOneChangeOneRevision: all that changes has one revision, what does not
// change keeps its own, and a new Service states the same.
func TestOneChangeOneRevision(t *testing.T) {
	s := newSuite(t)
	if got := s.update(Change{}); len(got) != 2 {
		t.Fatal(got)
	}
	first := s.s.Of(osaka)
	if first.Revision == 0 || first.Revision != s.s.Of(wire.Address{Domain: "apac", Site: "tokyo"}).Revision || len(first.Desired) != 2 || first.Desired[1].Priority != 2 {
		t.Fatalf("%+v", first)
	}
	if got := s.update(Change{}); got != nil || s.store.changes != 1 {
		t.Errorf("nothing changes: %v, %d", got, s.store.changes)
	}
	s.w.Fleet.Sites[0].Zone = "Asia/Tokyo"
	if d := cmp.Diff([]wire.Address{osaka}, s.update(Change{})); d != "" {
		t.Error(d)
	}
	if now := s.s.Of(osaka); now.Revision <= first.Revision || now.Zone != "Asia/Tokyo" {
		t.Errorf("%+v", now)
	}
	again := New(s.store)
	if _, err := again.Update(t.Context(), s.w, Change{}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s.s.Of(osaka), again.Of(osaka)); d != "" {
		t.Error(d)
	}
}

// TestWorkByScope: a request of one site reads that site's rows only.
func TestWorkByScope(t *testing.T) {
	s := newSuite(t)
	s.update(Change{})
	s.store.rows = 0
	k := Key{osaka, "patch"}
	request := Request{Rehash: true, Adopt: true, Check: wire.CheckFull, Verify: true, Now: true, DryRun: true}
	s.update(Change{Only: []string{"osaka", "osaka"}, Requests: map[Key]Request{k: request}})
	if s.store.rows != 2 {
		t.Errorf("%d rows were read", s.store.rows)
	}
	d := s.s.Of(osaka).Desired[1]
	if (Request{DryRun: d.DryRun, Rehash: d.Rehash, Adopt: d.Adopt, Now: d.Now, Check: d.Check, Verify: d.Verify}) != request || d.Start == 0 || s.start("package") != 0 {
		t.Errorf("%+v", d)
	}
	s.update(Change{})
	if d := cmp.Diff(d, s.s.Of(osaka).Desired[1]); d != "" {
		t.Errorf("the request is forgotten: %s", d)
	}
}

// TestWithdraw checks that only the named request ends: a later one stays, and its number is greater.
func TestWithdraw(t *testing.T) {
	s := newSuite(t)
	k := Key{osaka, "patch"}
	s.update(Change{Requests: map[Key]Request{k: {Now: true, Rehash: true}, {osaka, "package"}: {DryRun: true}}})
	first, other := s.start("patch"), s.start("package")
	s.update(Change{Only: []string{"osaka"}, Withdraw: map[Key]uint64{k: first, {osaka, "package"}: other + 1}})
	if d := s.s.Of(osaka).Desired[1]; d.Start != 0 || d.Now || d.Rehash || s.start("package") != other {
		t.Errorf("%+v, the other %d", d, s.start("package"))
	}
	s.update(Change{Requests: map[Key]Request{k: {}}})
	if again := s.start("patch"); again <= first {
		t.Errorf("request %d after %d", again, first)
	}
	s.update(Change{Only: []string{"osaka"}, Withdraw: map[Key]uint64{k: first}})
	if s.start("patch") == 0 {
		t.Error("a later request was withdrawn")
	}
}

// TestNowIsForItsRelease: a request that ignores windows does so for the release that is current when it is given.
func TestNowIsForItsRelease(t *testing.T) {
	s := newSuite(t)
	s.update(Change{})
	s.update(Change{Only: []string{"osaka"}, Requests: map[Key]Request{{osaka, "patch"}: {Now: true, Rehash: true}}})
	start := s.start("patch")
	s.update(Change{})
	if d := s.s.Of(osaka).Desired[1]; !d.Now {
		t.Errorf("the request has lapsed with the same release: %+v", d)
	}
	was := s.w.Release
	s.w.Release = func(channel string) (ledger.Release, bool) {
		r, ok := was(channel)
		r.Number++
		return r, ok
	}
	s.update(Change{})
	for _, again := range []*Service{s.s, New(s.store)} {
		if _, err := again.Update(t.Context(), s.w, Change{}); err != nil {
			t.Fatal(err)
		}
		if d := again.Of(osaka).Desired[1]; d.Now || !d.Rehash || d.Start != start || d.Number != 4 {
			t.Errorf("with the next release: %+v", d)
		}
	}
}

// TestNumbersNeverGoBack: neither a channel nor a site that was away for a while
// has its requests numbered anew, and a limit outlives both.
func TestNumbersNeverGoBack(t *testing.T) {
	s := newSuite(t)
	s.update(Change{Limits: map[wire.Address]Limit{osaka: {Timetable: "else 5B"}}})
	ask := func() uint64 {
		s.update(Change{Only: []string{"osaka"}, Requests: map[Key]Request{{osaka, "patch"}: {}}})
		return s.start("patch")
	}
	last := uint64(0)
	whole := s.w.Fleet
	for _, without := range []func(*fleet.Fleet){
		func(*fleet.Fleet) {},
		func(f *fleet.Fleet) { f.Sites[0].Placements = nil },
		func(f *fleet.Fleet) { f.Sites = f.Sites[1:] },
	} {
		less := *whole
		less.Sites = append([]fleet.Site{}, whole.Sites...)
		without(&less)
		s.w.Fleet = &less
		s.update(Change{})
		if len(less.Sites) == 1 && s.s.Of(osaka).Revision != 0 {
			t.Error("a site that is configured no more has a state")
		}
		s.w.Fleet = whole
		s.update(Change{})
		if now := ask(); now <= last {
			t.Errorf("request %d follows %d", now, last)
		} else {
			last = now
		}
		if l := s.s.Of(osaka).Limit; l != "else 5B" {
			t.Errorf("the limit is %q", l)
		}
	}
	s.w.Now = 2000
	s.update(Change{Only: []string{"osaka"}, Limits: map[wire.Address]Limit{osaka: {Timetable: "else 1B", Until: 3000}}})
	s.w.Now = 3000
	s.update(Change{})
	if l := s.s.Of(osaka).Limit; l != "" {
		t.Errorf("a limit that has ended is %q", l)
	}
}

// TestAllOrNothing: a change that the store does not take changes no state, and
// is made up for.
func TestAllOrNothing(t *testing.T) {
	s := newSuite(t)
	s.update(Change{})
	before := s.s.Of(osaka)
	s.w.Fleet.Sites[0].Placements = s.w.Fleet.Sites[0].Placements[:1]
	s.w.Fleet.Sites[0].Region = "ap"
	s.store.fail = errors.New("disk full")
	if _, err := s.s.Update(t.Context(), s.w, Change{}); !errors.Is(err, s.store.fail) || !s.s.Behind() {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, s.s.Of(osaka)); d != "" {
		t.Error(d)
	}
	s.store.fail = nil
	s.update(Change{})
	if now := s.s.Of(osaka); s.s.Behind() || len(now.Desired) != 1 || now.Region != "ap" || now.Revision <= before.Revision {
		t.Errorf("%+v", now)
	}
}
