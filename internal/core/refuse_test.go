package core_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestTokens: one token lets one key join, once, in its day, at its Core.
func TestTokens(t *testing.T) {
	w := newWorld(t, nil)
	issued, err := w.core.Enrolment.Token(core.WithActor(t.Context(), "alice"), "osaka", 0)
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.enrol(issued.Text, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.enrol(issued.Text, nil)
	mustRefuse(t, err, "used")
	if text := w.untilIncident("token"); !strings.Contains(text, "used before") {
		t.Error(text)
	}
	w.untilDeed("refused enroll", "used")
	first.hello() // it goes on

	late, err := w.core.Enrolment.Token(t.Context(), "tokyo", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.ahead.Store(int64(25 * time.Hour))
	_, err = w.enrol(late.Text, nil)
	mustRefuse(t, err, "expired")
	w.ahead.Store(0)

	// A new token supersedes the key; the old connection is cut.
	first.connected()
	second := w.join("osaka")
	first.mustBeCut()
	second.hello()

	// A token whose secret the Core never gave out.
	forged, err := wire.ParseToken(issued.Text)
	if err != nil {
		t.Fatal(err)
	}
	other := newWorld(t, nil)
	theirs, err := other.core.Enrolment.Token(t.Context(), "osaka", 0)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := wire.ParseToken(theirs.Text)
	if err != nil {
		t.Fatal(err)
	}
	foreign.Core = forged.Core
	text, err := foreign.Text()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.enrol(text, nil); !errors.Is(err, bus.ErrPin) {
		t.Errorf("a token for another Core: %v", err)
	}
	foreign.CA = forged.CA // as if the authority were the same: its user is not
	if text, err = foreign.Text(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.enrol(text, nil); err == nil {
		t.Error("another Core's user was let in")
	}
	if _, err := w.core.Enrolment.Token(t.Context(), "osakka", 0); err == nil || !strings.Contains(err.Error(), "osaka") {
		t.Errorf("a token for nobody: %v", err)
	}
	wave, err := w.core.Enrolment.Wave(t.Context(), fleet.Scope{}, 20, 0)
	if err != nil || len(wave) != 2 {
		t.Errorf("a wave of %d, %v", len(wave), err)
	}
}

// TestAsks: a site is lent what its releases need, and nothing else.
func TestAsks(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", strings.Repeat("package", 10_000))
	driver := filepath.Join(w.dir, "source-driver")
	if err := errors.Join(os.Mkdir(driver, 0o755), os.WriteFile(filepath.Join(driver, "d.sys"), []byte(strings.Repeat("driver", 10_000)), 0o644)); err != nil {
		t.Fatal(err)
	}
	osaka, berlin := w.join("osaka"), w.join("berlin")
	w.publish("package")
	before := packs(t, w)
	w.publish("driver")
	var mine, theirs string
	for k := range packs(t, w) {
		if before[k] {
			mine = k
		} else {
			theirs = k
		}
	}
	osaka.stateOf("package", 1)
	berlin.stateOf("driver", 1)
	good := []string{"format", "halt", "index/root", "trust/1", "channels/package/head", "channels/package/releases/1", mine}
	u, err := osaka.ask(good...)
	if err != nil || len(u.Lent) != len(good) {
		t.Fatalf("%+v, %v", u.Refused, err)
	}
	u, err = osaka.ask("trust/2", "channels/package/releases/2")
	if err != nil || len(u.Refused) != 2 || !u.Refused[0].Absent || !u.Refused[1].Absent {
		t.Fatalf("what is not there: %+v, %v", u, err)
	}
	bad := []string{theirs, "channels/driver/head", "channels/driver/releases/1", "packs/../format", "packs/00/" + strings.Repeat("0", 64), "", "format/x", "trust/01", "index/roots", "other"}
	u, err = osaka.ask(bad...)
	if err != nil || len(u.Lent) != 0 || len(u.Refused) != len(bad) {
		t.Fatalf("lent %d of what is not its own, %v", len(u.Lent), err)
	}
	for _, r := range u.Refused {
		if r.Absent {
			t.Errorf("%q: said to be absent, which would be an answer", r.Key)
		}
	}
	w.untilIncident("ask")
	w.untilDeed("refused ask", theirs)
	// Its rightful reader, who gets the kill switch along with it.
	if u, err = berlin.ask(theirs, "channels/driver/head"); err != nil || len(u.Refused) != 0 || len(u.Lent) != 3 || u.Lent[0].Key != theirs || u.Lent[2].Key != "halt" {
		t.Fatalf("lent %d, refused %+v, %v", len(u.Lent), u.Refused, err)
	}
}

// TestOldReleaseIsNotLent: packs that only an earlier release needs are lent to
// who may be in the middle of it, not to whoever says so.
func TestOldReleaseIsNotLent(t *testing.T) {
	w := newWorld(t, nil)
	w.noise("a.bin", 1<<20, 1)
	tokyo := w.join("tokyo")
	w.publish("package")
	old := slices.Collect(maps.Keys(packs(t, w)))[0]
	one := tokyo.stateOf("package", 1)
	w.noise("a.bin", 1<<20, 2)
	w.publish("package")
	w.ahead.Store(int64(2 * time.Second)) // releases are dated by the second
	osaka := w.join("osaka")              // never heard of release 1
	for n, s := range map[byte]*wireSite{1: tokyo, 2: osaka} {
		s.stateOf("package", 2)
		if u, err := s.ask(old); err != nil || len(u.Lent) > 0 {
			t.Errorf("%s is lent %d objects that it does not need, %v", s.at, len(u.Lent), err)
		}
		s.deliver(s.events(ledger.RunID{n}, one, nil, &wire.Finished{}, nil)[:1])
		u, err := s.ask(old)
		if err != nil || (len(u.Lent) > 0) != (s == tokyo) {
			t.Errorf("%s is lent %d objects for its run of release 1, %v", s.at, len(u.Lent), err)
		}
	}
}

// TestAsksWithoutEnd: a site asks for more than the Core can find out. The others
// are heard, and lent what they ask for, meanwhile.
func TestAsksWithoutEnd(t *testing.T) {
	w := newWorld(t, nil)
	held, release := make(chan struct{}, 1000), make(chan struct{})
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/releases/9") {
				held <- struct{}{}
				<-release
			}
			next.ServeHTTP(rw, r)
		})
	})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	w.write("a.txt", "one")
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	w.publish("package")
	tokyo.stateOf("package", 1)
	const many, waiting = 200, 32
	for id := range uint64(many) {
		osaka.say(wire.VerbAsk, 0, &wire.Ask{ID: 1<<32 + id, Keys: []string{"channels/package/releases/9"}})
	}
	<-held
	w.until("all but some asks to be dropped", func() bool { return w.core.Metrics().Refusals["overrun"] == many-waiting })
	tokyo.hello()
	if u, err := tokyo.ask("format"); err != nil || len(u.Lent) == 0 {
		t.Errorf("while another site's asks are not answered: %+v, %v", u, err)
	}
	osaka.hello() // itself, too
}

func packs(t *testing.T, w *world) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, k := range testbed.Keys(t, w.store, repo.PacksPrefix) {
		out[k] = true
	}
	return out
}

// TestForgeries: what is not signed by the site, or claims what is not so, does
// not reach the ledger as true.
func TestForgeries(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "alpha")
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	p := w.publish("package")
	d := osaka.stateOf("package", 1)
	_, thief, _ := ed25519.GenerateKey(nil)
	good := wire.Attestation{Channel: "package", Nonce: d.Nonce, Release: d.Release, At: time.Now().Unix(), Files: 1, Bytes: 5}
	good.Tree = p.Tree

	// Another key on this site's own connection: nothing is committed.
	own := osaka.key
	osaka.key = thief
	_, _, err := osaka.report(1, osaka.events(ledger.RunID{1}, d, nil, &wire.Finished{Verdict: "verified"}, &good))
	osaka.key = own
	mustRefuse(t, err, "forged")
	w.untilIncident("forged")
	w.untilDeed("refused report", "forged")
	if runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"}); err != nil || len(runs) != 0 {
		t.Fatalf("a forged report made runs: %+v, %v", runs, err)
	}

	// Attestations that lie.
	tokyoD := tokyo.stateOf("package", 1)
	lies := map[string]func(a *wire.Attestation){
		"another nonce":   func(a *wire.Attestation) { a.Nonce = make([]byte, 16) },
		"another's nonce": func(a *wire.Attestation) { a.Nonce = tokyoD.Nonce },
		"another tree":    func(a *wire.Attestation) { a.Tree[0] ^= 1 },
		"another release": func(a *wire.Attestation) { a.Release[0] ^= 1 },
		"another channel": func(a *wire.Attestation) { a.Channel = "driver" },
		"nothing at all":  nil,
		"another's key":   func(*wire.Attestation) {},
	}
	for what, lie := range lies {
		var run ledger.RunID
		rand.Read(run[:])
		at := good
		sent := &at
		if lie == nil {
			sent = nil
		} else {
			lie(&at)
		}
		if what == "another's key" {
			osaka.key = thief
		}
		events := osaka.events(run, d, nil, &wire.Finished{Verdict: "verified"}, sent)
		osaka.key = own
		osaka.deliver(events)
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs {
			if r.ID == run && r.State != "failed" {
				t.Errorf("%s: the run counts as %s", what, r.State)
			}
		}
		if sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"}); err != nil || sites[0].Channels[0].Holds != 0 {
			t.Errorf("%s: the site counts as holding release %d, %v", what, sites[0].Channels[0].Holds, err)
		}
	}
	w.untilIncident("attestation")

	// Another site's run.
	var run ledger.RunID
	rand.Read(run[:])
	osaka.deliver(osaka.events(run, d, nil, &wire.Finished{Verdict: "verified"}, &good))
	_, _, err = tokyo.report(1, tokyo.events(run, tokyoD, nil, &wire.Finished{Verdict: "failed"}, nil))
	mustRefuse(t, err, "forged")
	if sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"}); err != nil || sites[0].Channels[0].State != "current" {
		t.Errorf("%+v, %v", sites, err)
	}

	// A gap is named; after a restore, one that the site insists on is accepted and is an incident.
	next := osaka.next
	problem, err := wire.Encode(&wire.Problem{Kind: "disk", Text: "no space at D:\\"})
	if err != nil {
		t.Fatal(err)
	}
	ev := []wire.Event{{At: time.Now().UnixMilli(), Kind: wire.ProblemEvent, Body: problem}}
	if n, ack, err := osaka.report(next+5, ev); err != nil || ack.Want != next || n != next-1 {
		t.Fatalf("a gap: %d, %+v, %v", n, ack, err)
	}
	osaka.deliver(ev)
	if text := w.untilIncident("site-disk"); !strings.Contains(text, "no space") {
		t.Error(text)
	}

	// A protocol of the future.
	b, err := trust.Sign(osaka.key, trust.Subject{Kind: "beat", Version: wire.Version + 1, Repo: osaka.token.Repo, Scope: osaka.at.String()}, []byte{0, 0x80})
	if err != nil {
		t.Fatal(err)
	}
	osaka.raw(wire.VerbBeat, b)
	mustRefuse(t, osaka.answer(wire.VerbState, &wire.State{}), "version")
	if text := w.untilIncident("protocol"); !strings.Contains(text, fmt.Sprint("version ", wire.Version)) || !strings.Contains(text, fmt.Sprint(wire.Version+1)) {
		t.Errorf("both versions should be named: %s", text)
	}
	// A protocol of the past is no attack.
	if b, err = trust.Sign(osaka.key, trust.Subject{Kind: "beat", Version: wire.Version - 1, Repo: osaka.token.Repo, Scope: osaka.at.String()}, []byte{0, 0x80}); err != nil {
		t.Fatal(err)
	}
	osaka.raw(wire.VerbBeat, b)
	mustRefuse(t, osaka.answer(wire.VerbState, &wire.State{}), "version")
	// What is not a message at all, and one that nobody knows.
	osaka.raw(wire.VerbHello, []byte("garbage"))
	mustRefuse(t, osaka.answer(wire.VerbState, &wire.State{}), "forged")
	osaka.raw("dance", []byte("garbage"))
	mustRefuse(t, osaka.answer(wire.VerbState, &wire.State{}), "forged")
	w.untilIncident("malformed")
	// A clock that is off.
	osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().Add(-time.Hour).UnixMilli(), Trust: 1, Revision: 1 << 30, Epoch: 1 << 30})
	w.untilIncident("clock")
}

// TestOrders: a domain's revocation, a halt and a reload reach whom they
// concern, and nobody else.
func TestOrders(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "alpha")
	osaka, berlin := w.join("osaka"), w.join("berlin")
	w.publish("package")
	osaka.stateOf("package", 1)
	osaka.connected()
	began := time.Now()
	sites, err := w.core.Enrolment.RevokeDomain(core.WithActor(t.Context(), "alice"), "apac", "the key was copied")
	if err != nil || len(sites) != 1 {
		t.Fatal(sites, err)
	}
	if d := osaka.mustBeCut().Sub(began); d > busy {
		t.Errorf("it took %s to cut the domain", d)
	}
	berlin.hello() // was not cut
	w.join("osaka")

	// A halt given by other means comes along with the state.
	r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := r.Halts().Put(t.Context(), w.release, func(o *halt.Orders) error {
		o.Add(halt.Order{ID: halt.NewID(), Scope: halt.Site, Value: "berlin", Reason: "test", By: "alice", At: time.Now().Unix()})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.until("the halt to arrive", func() bool {
		var st wire.State
		if err := berlin.answer(wire.VerbState, &st); err != nil {
			t.Fatal(err)
		}
		s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, st.Halt)
		return err == nil && s.Subject.Number == epoch
	})

	// A bad configuration is refused whole.
	bad := *testFleet(w.source, w.dir)
	bad.Sites = append(bad.Sites[:2:2], fleet.Site{Name: "zurich", Domain: "nowhere", Region: "emea", Zone: "UTC", Location: time.UTC})
	settings := w.settings
	settings.Fleet = &bad
	if err := w.core.Reload(t.Context(), settings); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Fatalf("a bad configuration: %v", err)
	}
	if all, err := w.core.Query.Sites(t.Context(), fleet.Scope{}); err != nil || len(all) != 3 {
		t.Fatalf("%d sites, %v", len(all), err)
	}
	// A good one is a new state, at once.
	good := testFleet(w.source, w.dir)
	good.Sites[0].Placements[1].Rate = 12345
	settings.Fleet = good
	_, old := berlin.hello()
	if err := w.core.Reload(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	st, number := berlin.hello()
	if number <= old || st.Desired[1].Rate != 12345 {
		t.Errorf("revision %d after %d: %+v", number, old, st.Desired)
	}

	// A guard stops a publish: recorded, an incident, and over with the next.
	for i := range 10 {
		w.write(fmt.Sprintf("f%d", i), "x")
	}
	w.publish("package")
	if err := os.RemoveAll(w.source); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.source, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); err == nil {
		t.Fatal("an empty source was published")
	}
	w.untilIncident("publish")
	w.until("the log of the refused publish", func() bool {
		for name, text := range w.logs() {
			if strings.HasPrefix(name, "core/package/") && strings.Contains(text, `"end":"refused"`) {
				return true
			}
		}
		return false
	})
}

// TestRevokedTokens: who is revoked does not come back by a token that was given
// out before.
func TestRevokedTokens(t *testing.T) {
	w := newWorld(t, nil)
	tokens := map[string]string{}
	for _, n := range []string{"osaka", "tokyo", "berlin"} {
		issued, err := w.core.Enrolment.Token(t.Context(), n, 0)
		if err != nil {
			t.Fatal(err)
		}
		tokens[n] = issued.Text
	}
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "lost in the post"); err != nil {
		t.Fatal(err)
	}
	w.mustBeUnwelcome(tokens["osaka"])
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "again"); err == nil {
		t.Error("there was nothing left to revoke")
	}
	if _, err := w.core.Enrolment.RevokeDomain(t.Context(), "apac", "test"); err != nil {
		t.Fatal(err)
	}
	w.mustBeUnwelcome(tokens["tokyo"])
	w.untilDeed("revoke", "1 unused tokens")
	// A new token is good, and so are those of other domains.
	if _, err := w.enrol(tokens["berlin"], nil); err != nil {
		t.Error(err)
	}
	w.join("tokyo").hello()
}
