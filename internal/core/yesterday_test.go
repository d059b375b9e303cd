package core_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestYesterday restores the whole data folder of yesterday: ledger, vault and
// what was remembered. Since then two releases were published, a site was
// halted, one revoked, the domain's signing key rotated, and the release key
// replaced and retired. No site goes back, none is told anything old, the halt
// holds, and what the administrator has to do is what docs/operations.md says.
func TestYesterday(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	stop := w.runAgent("osaka", true)
	thief := w.runAgent("tokyo", true)
	berlin := w.join("berlin")
	w.publish("package")
	_, events := berlin.converge(berlin.stateOf("package", 1))
	berlin.deliver(events)
	w.untilCurrent(1, "osaka", "tokyo")
	w.untilRendered()
	data := w.options.Data
	copied := func(from, to string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.stop()
	copied(data, data+"-yesterday")
	w.start()

	// What happens since.
	w.change("two", 2, "osaka", "tokyo")
	_, events = berlin.converge(berlin.stateOf("package", 2))
	berlin.deliver(events)
	w.sync("osaka")
	if err := w.core.Enrolment.RevokeSite(t.Context(), "tokyo", "stolen"); err != nil {
		t.Fatal(err)
	}
	ordered, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "berlin", Reason: "wrong package"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("the halt to be in the bucket", func() bool {
		r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := r.Halts().Read(t.Context())
		return err == nil && stored.Orders.Find(halt.Subject{Site: "berlin"}) != nil
	})
	credential := w.credential("osaka")
	seed, err := bus.NewDomainSeed()
	if err == nil {
		_, err = w.core.Vault().Rotate(t.Context(), "domain/apac/signing", seed)
	}
	if err := errors.Join(err, w.core.Refresh(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.until("osaka's new credential", func() bool { return w.credential("osaka") != credential })
	fresh := w.newReleaseKey(t, func() { w.change("three", 3, "osaka") })
	berlin.stateOf("package", 3)
	berlin.forget()
	_, seen := berlin.hello()
	w.stop()

	// The disaster.
	if err := os.Rename(data, data+"-lost"); err != nil {
		t.Fatal(err)
	}
	copied(data+"-yesterday", data)

	// The key in that vault is retired: no Core starts with it, and says why.
	if c, err := core.Open(t.Context(), w.options, w.settings); err == nil || !strings.Contains(err.Error(), "release key") || !strings.Contains(err.Error(), "retired") {
		if err == nil {
			_ = c.Close()
		}
		t.Fatalf("a Core with a retired key: %v", err)
	}
	w.giveReleaseKey(t, fresh)
	restored := time.Now()
	w.start()

	// berlin: told nothing old, and still halted.
	berlin.back()
	berlin.forget()
	berlin.say(wire.VerbHello, 0, &wire.Hello{Generation: berlin.generation, Version: "test", At: time.Now().UnixMilli(), Revision: seen, Trust: berlin.chain.Number,
		Holds: []wire.Held{{Channel: "package", Number: 2}}})
	var st wire.State
	var revision uint64
	for revision <= seen { // what comes under an older one, before the Core has learnt of it, a site drops
		st = wire.State{}
		if revision, err = berlin.answerNumber(wire.VerbState, &st); err != nil {
			t.Fatalf("told nothing newer than revision %d: %v", seen, err)
		}
	}
	for _, d := range st.Desired {
		if d.Channel == "package" && d.Number != 3 {
			t.Errorf("told to hold release %d", d.Number)
		}
	}
	signed, err := trust.Parse(halt.Kind, halt.Version, halt.Max, st.Halt)
	if err != nil || signed.Subject.Number < ordered.Epoch {
		t.Errorf("the halt came with epoch %d, want %d: %v", signed.Subject.Number, ordered.Epoch, err)
	}
	w.until("the Core to know of the halt", func() bool {
		list, err := w.core.Halts.List(t.Context(), false)
		return err == nil && len(list) == 1 && list[0].Value == "berlin" && list[0].Reason == "wrong package"
	})

	// tokyo: the ledger has forgotten that it was revoked. Its old credential is good until it is revoked again.
	thief()
	back := w.runAgent("tokyo", false)
	w.untilCurrent(3, "tokyo")
	if err := w.core.Enrolment.RevokeSite(t.Context(), "tokyo", "stolen, as the mail of yesterday says"); err != nil {
		t.Fatal(err)
	}
	w.until("tokyo to be cut", func() bool { return w.said("agent tokyo:  the Core does not let this site in") || w.open("denied") })
	back()

	// osaka: its domain's key of today is in no vault. It keeps what it has, and enrols again.
	w.untilIncident("denied")
	if b, err := os.ReadFile(filepath.Join(w.folder("osaka"), "package", "a.txt")); err != nil || string(b) != "three" {
		t.Errorf("osaka holds %q, %v", b, err)
	}
	stop()
	if _, err := w.enter("osaka", func(o *agent.EnrolOptions) { o.Replace = true }); err != nil {
		t.Fatal(err)
	}
	w.runAgent("osaka", false)
	w.untilCurrent(3, "osaka")
	w.change("four", 4, "osaka")

	// Nobody was ever sent back.
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if r.Started.After(restored) && r.Number < 3 {
			t.Errorf("a run to release %d at %q after the restore", r.Number, r.Site)
		}
	}
	// The halt is lifted by the restored Core, under an epoch that no site has seen.
	if _, err := w.core.Halts.Resume(t.Context(), ordered.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.until("berlin to be told", func() bool {
		berlin.say(wire.VerbHello, 0, &wire.Hello{Generation: berlin.generation, Version: "test", At: time.Now().UnixMilli(), Revision: revision, Trust: berlin.chain.Number})
		var st wire.State
		if _, err := berlin.answerNumber(wire.VerbState, &st); err != nil {
			t.Fatal(err)
		}
		s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, st.Halt)
		return err == nil && s.Subject.Number > ordered.Epoch
	})
}

// forget drops what was said and not listened to.
func (s *wireSite) forget() {
	for len(s.in) > 0 {
		<-s.in
	}
}

// newReleaseKey replaces the release key as the three steps of trust rotate do,
// and returns its file.
func (w *world) newReleaseKey(t *testing.T, publish func()) []byte {
	t.Helper()
	_, fresh, _ := ed25519.GenerateKey(nil)
	w.keys(t, func(d *trust.Doc) {
		d.Keys = append(d.Keys, trust.Key{Public: repo.PublicOf(fresh), Roles: trust.AllRoles, Since: time.Now().Unix()})
	})
	r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	if err == nil {
		_, err = r.Halts().Put(t.Context(), fresh, func(*halt.Orders) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	file := trust.EncodeSecret("release", fresh)
	_, err = w.core.Vault().Rotate(t.Context(), core.SecretRelease, file)
	if err := errors.Join(err, w.core.Refresh(t.Context())); err != nil {
		t.Fatal(err)
	}
	publish() // the head is by the new key
	w.keys(t, func(d *trust.Doc) {
		for i := range d.Keys {
			if d.Keys[i].Public == repo.PublicOf(w.release) {
				d.Keys[i].Status, d.Keys[i].Since = trust.Retired, time.Now().Unix()
			}
		}
	})
	return file
}

// giveReleaseKey is nightferry secret rotate repository/release, with no Core
// running; a key that the repository does not know is refused.
func (w *world) giveReleaseKey(t *testing.T, file []byte) {
	t.Helper()
	f, err := core.OpenOffline(t.Context(), w.options.Data, w.options.Master, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckStore(t.Context(), w.options); !errors.As(err, new(*trust.EndedKeyError)) {
		t.Errorf("core check passes a vault whose release key was retired: %v", err)
	}
	_, foreign, _ := ed25519.GenerateKey(nil)
	if err := f.MayRelease(t.Context(), w.options, trust.EncodeSecret("release", foreign)); err == nil {
		t.Error("a key that nobody vouches for may be given")
	}
	err = f.MayRelease(t.Context(), w.options, file)
	if err == nil {
		_, err = f.Vault.Rotate(t.Context(), core.SecretRelease, file)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestRenewalMeetsRotation: a site asks for a new credential at the moment in
// which its domain's key is replaced. What the old key has signed never comes
// after what the new one has: else the site would keep it, and be locked out
// when the old key goes.
func TestRenewalMeetsRotation(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	held, hold := make(chan struct{}), make(chan struct{})
	w := newWorldWith(t, nil, func(w *world) {
		w.options.Beat = time.Minute // the site is there, though it says little
		w.options.Now = func() time.Time {
			if armed.Load() && calledBy("enrolment.(*Service).Renew") && armed.Swap(false) {
				close(held) // the renewal has read its key, and takes its time
				<-hold
			}
			return w.now()
		}
	})
	osaka := w.join("osaka")
	osaka.hello()
	osaka.forget()
	seed, err := bus.NewDomainSeed()
	if err == nil {
		_, err = w.core.Vault().Rotate(t.Context(), "domain/apac/signing", seed)
	}
	if err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	osaka.say(wire.VerbRenew, 0, &wire.Renew{At: time.Now().UnixMilli()})
	<-held
	done := make(chan error, 1)
	go func() { done <- w.core.Refresh(t.Context()) }()
	select { // it waits for the renewal, or has passed it by: then what follows fails
	case err := <-done:
		done <- err
	case <-time.After(2 * time.Second):
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := osaka.ask("format"); err != nil { // comes after all that was said before
		t.Fatal(err)
	}
	last, n := "", 0
	for len(osaka.in) > 0 {
		if h := <-osaka.in; h.verb == wire.VerbRenewed {
			var v wire.Renewed
			if err := osaka.openDown(h, &v); err != nil {
				t.Fatal(err)
			}
			last = v.JWT
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d credentials came, want that of the renewal and that of the rotation", n)
	}
	// It is good when the old key has gone.
	if _, err := w.core.Vault().Prune(t.Context(), "domain/apac/signing", 1); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := w.dial(osaka.token, last, osaka.seed, nil)
	if err != nil {
		t.Fatalf("what the site heard last is not good: %v", err)
	}
	c.Close()
}

// calledBy reports whether a function of that name is on the stack.
func calledBy(name string) bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}
