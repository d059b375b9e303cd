package core_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// TestKeysRotateWithoutTouchingASite: each key and credential is replaced while
// real agents run, and they go on; what the old one signs counts for nothing.
func TestKeysRotateWithoutTouchingASite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.joined("osaka", nil)
	w.joined("berlin", nil)
	w.publish("package")
	w.untilCurrent(1, "osaka", "berlin")
	w.rotateRelease(t)
	w.rotateDomain(t)
	w.renewsBeforeTheEnd(t)
	w.renewsCertificate(t)
}

// change publishes something new, and waits until real agents hold it.
func (w *world) change(content string, number trust.ReleaseNumber, sites ...string) {
	w.t.Helper()
	w.write("a.txt", content)
	w.publish("package")
	w.untilCurrent(number, sites...)
}

// keys publishes the next trust document, as changed by edit.
func (w *world) keys(t *testing.T, edit func(*trust.Doc)) {
	t.Helper()
	r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := r.Trust().Current()
	next := trust.Doc{Keys: append([]trust.Key(nil), doc.Keys...)}
	edit(&next)
	if err := r.Trust().Put(t.Context(), w.root, &next); err != nil {
		t.Fatal(err)
	}
}

func (w *world) rotateRelease(t *testing.T) {
	_, fresh, _ := ed25519.GenerateKey(nil)
	file := trust.EncodeSecret("release", fresh)
	if err := w.core.MayRelease(t.Context(), file); err == nil {
		t.Error("a key that nobody vouches for may take the place of the release key")
	}
	// As nightferry trust rotate --keep-old, secret rotate, and trust rotate --new-key do.
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
	w.change("signed by the old key, vouched for by the new document", 2, "osaka", "berlin")
	if err := w.core.MayRelease(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if _, err := w.core.Vault().Rotate(t.Context(), core.SecretRelease, file); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.change("signed by the new key", 3, "osaka", "berlin")
	w.keys(t, func(d *trust.Doc) {
		for i := range d.Keys {
			if d.Keys[i].Public == repo.PublicOf(w.release) {
				d.Keys[i].Status, d.Keys[i].Since = trust.Retired, time.Now().Unix()
			}
		}
	})
	w.change("the old key is retired", 4, "osaka", "berlin")
	w.restart()
	w.change("by another process", 5, "osaka", "berlin")
	for _, k := range []string{"site-control", "forged", "denied", "store"} {
		if w.open(k) {
			t.Errorf("an incident of kind %s", k)
		}
	}
	// A Core that goes on with a retired key says so.
	if _, err := w.core.Vault().Rotate(t.Context(), core.SecretRelease, trust.EncodeSecret("release", w.release)); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "the configuration in force stays") {
		t.Errorf("a retired key is taken: %v", err)
	}
	if _, err := w.core.Vault().Rotate(t.Context(), core.SecretRelease, file); err != nil {
		t.Fatal(err)
	}
}

// open reports whether there is an incident of a kind.
func (w *world) open(kind string) bool {
	list, err := w.core.Query.Incidents(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range list {
		if i.Kind == kind {
			return true
		}
	}
	return false
}

func (w *world) rotateDomain(t *testing.T) {
	stopped := w.joined("tokyo", nil)
	w.untilCurrent(5, "tokyo")
	stopped() // away while the key changes
	seed, err := bus.NewDomainSeed()
	if err != nil {
		t.Fatal(err)
	}
	before := w.credential("osaka")
	if _, err := w.core.Vault().Rotate(t.Context(), "domain/apac/signing", seed); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("osaka's new credential", func() bool { return w.credential("osaka") != before })
	before = w.credential("tokyo")
	w.agent(filepath.Join(w.dir, "agents", "tokyo"), nil)
	w.until("tokyo's new credential", func() bool { return w.credential("tokyo") != before })
	// The old key goes: whoever stole it makes no further user, and no site is cut off.
	if _, err := w.core.Vault().Prune(t.Context(), "domain/apac/signing", 1); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.change("without the domain's old key", 6, "osaka", "berlin", "tokyo")
}

// credential is what a site shows to the bus.
func (w *world) credential(site string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "agents", site, "user.jwt"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}

// renewsBeforeTheEnd gives a site a credential of seconds: it is renewed when a
// third is left, and the bus, which cuts the old one, takes the new one.
func (w *world) renewsBeforeTheEnd(t *testing.T) {
	state, err := w.enter("osaka", func(o *agent.EnrolOptions) { o.StateDir = filepath.Join(w.dir, "agents", "short"); o.Replace = true })
	if err != nil {
		t.Fatal(err)
	}
	state = filepath.Join(filepath.Dir(state), "short")
	path := filepath.Join(state, "user.jwt")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	grant, err := bus.ReadGrant(string(bytes.TrimSpace(b)))
	if err != nil {
		t.Fatal(err)
	}
	const life = 20 * time.Second // a third of it, and beats of 2 s, leave 5 for the renewal
	short, err := w.authority(t).User("apac", "osaka", grant.Public, life, time.Now())
	if err == nil {
		err = os.WriteFile(path, []byte(short+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(life)
	w.agent(state, nil)
	w.until("the new credential", func() bool {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := bus.ReadGrant(string(bytes.TrimSpace(b)))
		return err == nil && time.Until(g.Expires) > 80*24*time.Hour
	})
	if time.Now().After(end) {
		t.Error("it was renewed after its end")
	}
	w.until("the old one's end", func() bool { return time.Now().After(end.Add(time.Second)) })
	w.change("after the old credential's end", 7, "osaka")
}

// authority is the Core's own.
func (w *world) authority(t *testing.T) *bus.Authority {
	t.Helper()
	kept := func(name string) []byte {
		s, _, err := w.core.Vault().Get(t.Context(), name, "test")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSpace(s.Reveal())
	}
	a, err := bus.OpenAuthority(bus.AuthorityOptions{Domains: map[string][][]byte{"apac": {kept("domain/apac/signing")}},
		Seeds: bus.Seeds{Account: string(kept("bus/account")), Operator: kept("bus/operator"), Enrol: kept("bus/enroll"), Core: kept("bus/core")}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// renewsCertificate lets two months pass at the Core.
func (w *world) renewsCertificate(t *testing.T) {
	shown := func() time.Time {
		c, err := tls.Dial("tcp", w.core.Addr(), &tls.Config{InsecureSkipVerify: true}) // what is shown is looked at
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // it was only looked at
		return c.ConnectionState().PeerCertificates[0].NotAfter
	}
	before := shown()
	w.ahead.Store(int64(59 * 24 * time.Hour))
	w.upkeep()
	if shown() != before {
		t.Error("it was renewed before a third of its life was left")
	}
	w.ahead.Store(int64(61 * 24 * time.Hour))
	w.upkeep()
	if after := shown(); after.Sub(before) < 60*24*time.Hour {
		t.Errorf("the certificate ends on %s, before on %s", after, before)
	}
	// It is one that a site of that day takes.
	w.stopAgents()
	w.agent(filepath.Join(w.dir, "agents", "berlin"), func(o *agent.Options) { o.Now = w.now })
	w.until("berlin under the new certificate", func() bool { return w.said("agent berlin:  connected") })
}

// stopAgents lets the running agents end, and forgets what was said.
func (w *world) stopAgents() {
	for _, stop := range w.agents {
		stop()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Reset()
}
