package enrolment

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestChallenges: each token has one challenge at a time, which is good once. Their number is bounded, and expired ones
// make room.
func TestChallenges(t *testing.T) {
	s := New(Options{})
	s.putChallenge("a", challenge{nonce: []byte{1}, expires: start.Add(nonceLife)}, start)
	s.putChallenge("a", challenge{nonce: []byte{2}, expires: start.Add(nonceLife)}, start)
	if ch, ok := s.takeChallenge("a"); !ok || ch.nonce[0] != 2 {
		t.Error("the newer challenge does not replace the older one")
	}
	if _, ok := s.takeChallenge("a"); ok {
		t.Error("a challenge is good twice")
	}
	for i := range maxChallenges {
		if !s.putChallenge(fmt.Sprint(i), challenge{expires: start.Add(nonceLife)}, start) {
			t.Fatal("refused", i)
		}
	}
	if s.putChallenge("more", challenge{expires: start.Add(nonceLife)}, start) {
		t.Error("challenges have no bound")
	}
	if now := start.Add(nonceLife + 1); !s.putChallenge("more", challenge{expires: now.Add(nonceLife)}, now) || len(s.challenges) != 1 {
		t.Errorf("%d challenges after all have expired", len(s.challenges))
	}
}

// TestMachines: an agent that was restarted is one machine. An earlier process that is heard again is a second one,
// unless its message may still have been on the way.
func TestMachines(t *testing.T) {
	var m machines
	note := func(id string, after time.Duration, at int64) (bool, string) {
		isNew, other := m.noteProcess(process{id, "machine " + id, start.Add(after), at})
		if other != nil {
			return isNew, other.machine
		}
		return isNew, ""
	}
	for i, step := range []struct {
		id    string
		after time.Duration
		at    int64
		isNew bool
		other string
	}{
		{"a", 0, 10, false, ""},
		{"a", time.Minute, 20, false, ""},
		{"b", 2 * time.Minute, 30, true, ""},                       // restarted
		{"a", 2*time.Minute + time.Second, 25, false, ""},          // was on the way
		{"b", 3 * time.Minute, 40, false, ""},                      //
		{"a", 3*time.Minute + time.Second, 25, false, "machine a"}, // too late for that
		{"a", 3*time.Minute + time.Second, 50, false, "machine a"},
	} {
		if isNew, other := note(step.id, step.after, step.at); isNew != step.isNew || other != step.other {
			t.Errorf("step %d: new %t, other %q", i, isNew, other)
		}
	}
	for i := range 3 * maxProcesses {
		note(fmt.Sprint("restart ", i), time.Hour, int64(100+i))
	}
	if len(m.before) != maxProcesses {
		t.Errorf("%d processes are remembered", len(m.before))
	}
}

// world stands for the Core around a Service. It records the calls.
type world struct {
	calls []string
	sites map[wire.Address]Site
	fail  error // of Enforce
}

func (w *world) call(format string, args ...any) {
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

func (w *world) AddToken(context.Context, ledger.Token, [32]byte) (ledger.Token, error) {
	return ledger.Token{}, errors.ErrUnsupported
}
func (w *world) TakeToken(context.Context, string, [32]byte, string) (ledger.Token, error) {
	return ledger.Token{}, errors.ErrUnsupported
}
func (w *world) EndTokens(_ context.Context, domain, site string) (int, error) {
	w.call("end tokens %s/%s", domain, site)
	return 1, nil
}
func (w *world) EndUsedTokens(context.Context, string) (int, error) { return 0, nil }
func (w *world) Enrol(context.Context, ledger.Identity) ([]ledger.Identity, error) {
	return nil, errors.ErrUnsupported
}
func (w *world) Renew(_ context.Context, public string, _ time.Time, _ string) error { return nil }
func (w *world) Revoke(_ context.Context, domain, site, _ string) (ledger.Identity, error) {
	w.call("end identity %s/%s", domain, site)
	return ledger.Identity{Domain: domain, Site: site, Public: "U1"}, nil
}
func (w *world) Contest(context.Context, string, string, string) (ledger.Identity, error) {
	w.call("contest")
	return ledger.Identity{Public: "U1", Contested: start}, nil
}
func (w *world) Settle(context.Context, string, string) (ledger.Identity, error) {
	w.call("settle")
	return ledger.Identity{Public: "U1"}, nil
}
func (w *world) NoteProcess(context.Context, string, ledger.Process) error { return nil }
func (w *world) Enrolled(fn func(wire.Address, Site)) {
	for a, s := range w.sites {
		fn(a, s)
	}
}
func (w *world) Enrolment(a wire.Address) Site { return w.sites[a] }
func (w *world) Replace(_ context.Context, a wire.Address, id *ledger.Identity, _ time.Time) error {
	w.call("replace %s, none %t", a, id == nil)
	delete(w.sites, a)
	return nil
}
func (w *world) Update(a wire.Address, id *ledger.Identity) { w.sites[a] = Site{Identity: id} }
func (w *world) Doubt(_ context.Context, a wire.Address)    { w.call("doubt %s", a) }
func (w *world) Sign(fn func(*bus.Authority) error) error   { return fn(nil) }
func (w *world) Enforce(context.Context) error              { w.call("enforce"); return w.fail }
func (w *world) EndDomain(_ context.Context, d string) ([]string, error) {
	w.call("end domain %s", d)
	return []string{"K1"}, nil
}
func (w *world) Refresh(context.Context) error { w.call("refresh"); return nil }
func (w *world) Rotating(string) bool          { return false }
func (w *world) URLs() []string                { return nil }
func (w *world) Pin() bus.Pin                  { return bus.Pin{} }
func (w *world) KeepNewest(public string) error {
	w.call("keep newest %s", public)
	return nil
}
func (w *world) NotCut(context.Context, wire.Address, string) error { return nil }
func (w *world) DomainNotCut(_ context.Context, domain, key string) error {
	w.call("key %s of %s is not cut", key, domain)
	return nil
}
func (w *world) Audit(_ context.Context, what, object, detail string) error {
	w.call("audit %s %s: %s", what, object, detail)
	return nil
}
func (w *world) AuditToken(context.Context, string, string, string, string) error { return nil }
func (w *world) LedgerFailed(err error)                                           { w.call("ledger: %v", err) }
func (w *world) ReportFailure(string, error)                                      {}
func (w *world) ReportSuccess(string)                                             {}
func (w *world) Raise(kind kinds.Kind, _ string, at wire.Address, _ string) {
	w.call("open %s %s", kind, at)
}
func (w *world) Resolve(kind kinds.Kind, _ string, at wire.Address) {
	w.call("resolve %s %s", kind, at)
}

var osaka = wire.Address{Domain: "apac", Site: "osaka"}

func newWorld() (*world, *Service) {
	w := &world{sites: map[wire.Address]Site{osaka: {Identity: &ledger.Identity{Domain: "apac", Site: "osaka", Public: "U1"}}}}
	f := &fleet.Fleet{Domains: []fleet.Domain{{Name: "apac"}}, Sites: []fleet.Site{{Name: "osaka", Domain: "apac"}}}
	return w, New(Options{Tokens: w, Identities: w, Processes: w, Sites: w, Access: w, Bus: w, Notices: w, Incidents: w,
		Fleet: func() *fleet.Fleet { return f }, Now: func() time.Time { return start }, Clip: func(s string) string { return s },
		Prove: func(_ context.Context, a wire.Address) { w.call("prove %s", a) },
		Ended: func(a wire.Address, why string) { w.call("ended %s: %s", a, why) }})
}

func (w *world) want(t *testing.T, calls ...string) {
	t.Helper()
	if !slices.Equal(w.calls, calls) {
		t.Errorf("it did\n%q\nwant\n%q", w.calls, calls)
	}
	w.calls = nil
}

// TestRevoke: tokens end first, so that the site cannot enroll anew meanwhile. The bus is cut last, before the answer,
// and a failure of that is an error.
func TestRevoke(t *testing.T) {
	w, s := newWorld()
	w.fail = errors.New("no bus")
	if err := s.RevokeSite(t.Context(), "osaka", "stolen"); !errors.Is(err, w.fail) {
		t.Error(err)
	}
	w.want(t, "end tokens /osaka", "audit revoke site osaka: 1 unused tokens", "end identity apac/osaka", "replace apac/osaka, none true",
		"ended apac/osaka: stolen", "audit revoke site osaka: key U1: stolen", "enforce")

	w, s = newWorld()
	if sites, err := s.RevokeDomain(t.Context(), "apac", "breach"); err != nil || !slices.Equal(sites, []string{"osaka"}) {
		t.Error(sites, err)
	}
	w.want(t, "end domain apac", "end tokens apac/", "audit revoke domain apac: 1 unused tokens", "end identity apac/osaka", "replace apac/osaka, none true",
		"ended apac/osaka: breach", "audit revoke site osaka: key U1: breach", "audit revoke domain apac: breach", "key K1 of apac is not cut", "refresh")
	if _, err := s.RevokeDomain(t.Context(), "emea", ""); err == nil {
		t.Error("a domain that is not configured is revoked")
	}
}

// TestContest: a second machine makes the site contested, once. After an operator's word it is one machine again, which
// has to prove what it holds. The last message of the machine that was stopped may arrive later: it changes nothing.
func TestContest(t *testing.T) {
	w, s := newWorld()
	first, second := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	s.Contact(t.Context(), osaka, Sender{Instance: first, At: 1, Machine: "a"})
	s.Contact(t.Context(), osaka, Sender{Instance: second, At: 2, Machine: "b"})
	w.want(t, "keep newest U1")
	s.Contact(t.Context(), osaka, Sender{Instance: first, At: 3, Machine: "a"})
	w.want(t, "contest", "doubt apac/osaka", "open cloned apac/osaka", "audit contested site osaka: two machines use the identity of site osaka: a and b. Nothing that they report is believed: stop one of them and enroll the site again, or, if the other one is gone for good, nightferry site confirm osaka")
	s.Contact(t.Context(), osaka, Sender{Instance: first, At: 4, Machine: "a"})
	w.want(t)
	if err := s.Confirm(t.Context(), "osaka", "deleted"); err != nil {
		t.Error(err)
	}
	w.want(t, "settle", "resolve cloned apac/osaka", "audit confirm site osaka: deleted", "prove apac/osaka")
	if err := s.Confirm(t.Context(), "osaka", ""); err == nil {
		t.Error("there is nothing to confirm")
	}
	s.Contact(t.Context(), osaka, Sender{Instance: first, At: 5, Machine: "a"})
	if last := s.Contact(t.Context(), osaka, Sender{Instance: second, At: 6, Leaving: true}); last.ID != w.sites[osaka].Identity.Process.ID {
		t.Errorf("the process that stays is %q", last.ID)
	}
	s.Contact(t.Context(), osaka, Sender{Instance: first, At: 7, Machine: "a"})
	w.want(t)
}

// TestForkedState: a record of starts that lacks the start that was heard last is of a copy. A record that continues it, or
// does not reach back to it, or was made anew, proves nothing.
func TestForkedState(t *testing.T) {
	id := func(n byte) []byte { return bytes.Repeat([]byte{n}, wire.StartID) }
	sender := func(lineage byte, starts uint64, ids ...byte) *Sender {
		v := &Sender{Instance: bytes.Repeat(id(ids[0]), 2), Lineage: []byte{lineage}, Starts: starts}
		for _, n := range ids {
			v.Started = append(v.Started, id(n)...)
		}
		return v
	}
	known := &ledger.Process{Lineage: "07", Starts: 3, Started: hex.EncodeToString(id(3))}
	for _, x := range []struct {
		name   string
		v      *Sender
		forked bool
	}{
		{"the same process", sender(7, 3, 3, 2, 1), false},
		{"the next start", sender(7, 4, 4, 3, 2, 1), false},
		{"starts that were not heard", sender(7, 6, 6, 5, 4, 3, 2), false},
		{"a copy that started as often", sender(7, 3, 9, 2, 1), true},
		{"a copy that started more often", sender(7, 5, 8, 9, 4, 2, 1), true},
		{"an earlier state", sender(7, 2, 9, 1), true},
		{"too many starts since", sender(7, 9, 9, 8, 7), false},
		{"a state made anew", sender(8, 1, 9), false},
		{"a start that could not be recorded", sender(7, 0, 9), false},
		{"the record of another process", &Sender{Instance: bytes.Repeat(id(1), 2), Lineage: []byte{7}, Starts: 3, Started: id(9)}, false},
	} {
		if got := hasForked(known, x.v); got != x.forked {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	if hasForked(&ledger.Process{}, sender(7, 3, 3)) {
		t.Error("the first start that is heard is of a copy")
	}
}
