package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// away is the repository as an operator on call sees it, who changes keys and halt orders while the Core is gone.
func (w *world) away() *repo.Repo {
	w.t.Helper()
	r, err := repo.Open(w.t.Context(), w.store, repo.Options{Now: time.Now})
	w.try(err)
	return r
}

// newKey makes a release key, vouched for by the next trust document.
func (w *world) newKey() ed25519.PrivateKey {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	w.try(err)
	w.changeKeys(w.root, func(d *trust.Doc) {
		d.Keys = append(d.Keys, trust.Key{Public: repo.PublicOf(key), Roles: trust.AllRoles, Since: time.Now().Unix()})
	})
	return key
}

// revokeCores revokes the Core's key by the next trust document. Another key signs the head again.
func (w *world) revokeCores(key ed25519.PrivateKey) {
	w.t.Helper()
	_, err := w.away().Publisher(key).Resign(w.t.Context(), "package")
	w.try(err)
	w.changeKeys(w.root, func(d *trust.Doc) { d.Find(repo.PublicOf(w.key)).Status = trust.Revoked })
}

func (w *world) changeKeys(root ed25519.PrivateKey, change func(*trust.Doc)) {
	w.t.Helper()
	doc, _ := w.away().Trust().Current()
	next := trust.Doc{Keys: append([]trust.Key(nil), doc.Keys...)}
	change(&next)
	w.try(w.away().Trust().Put(w.t.Context(), root, &next))
}

// merge changes the halt orders in the store.
func (w *world) merge(key ed25519.PrivateKey, change func(*halt.Orders)) (epoch uint64) {
	w.t.Helper()
	epoch, err := w.away().Halts().Put(w.t.Context(), key, func(o *halt.Orders) error { change(o); return nil })
	w.try(err)
	return epoch
}

func (w *world) haltAll(key ed25519.PrivateKey) uint64 {
	return w.merge(key, func(o *halt.Orders) {
		o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "bad package", By: "on call", At: time.Now().Unix()})
	})
}

func (w *world) liftAll(key ed25519.PrivateKey) uint64 {
	return w.merge(key, func(o *halt.Orders) { o.Active = nil })
}

// put writes an object as an attacker with write access to the bucket does.
func (w *world) put(key string, b []byte) {
	w.t.Helper()
	_, err := w.store.Put(w.t.Context(), key, bucket.Bytes(b), bucket.Cond{})
	w.try(err)
}

// coreless is a site that moves content while its Core is gone.
type coreless struct {
	*world
	let   func()
	dir   string
	base  string
	said  notes
	agent *daemon
}

// keyFault changes the answers to reads of trust documents.
type keyFault struct{ is atomic.Int32 }

const (
	keysAsTheyAre = iota
	keysHidden    // a missing object is refused, as S3 does without the right to list
	keysUnread    // no trust document can be read
)

func (f *keyFault) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/trust/") && r.Method == http.MethodGet && r.URL.Query().Has("X-Amz-Expires") { // presigned
			switch f.is.Load() {
			case keysUnread:
				s3test.S3Error(rw, http.StatusServiceUnavailable, "ServiceUnavailable", "down for the test")
				return
			case keysHidden:
				rw = &hideMissing{ResponseWriter: rw}
			}
		}
		next.ServeHTTP(rw, r)
	})
}

// hideMissing answers 403 in place of 404.
type hideMissing struct {
	http.ResponseWriter
	hidden bool
}

func (h *hideMissing) WriteHeader(status int) {
	if h.hidden = status == http.StatusNotFound; h.hidden {
		s3test.S3Error(h.ResponseWriter, http.StatusForbidden, "AccessDenied", "Access Denied")
		return
	}
	h.ResponseWriter.WriteHeader(status)
}

func (h *hideMissing) Write(b []byte) (int, error) {
	if h.hidden {
		return len(b), nil
	}
	return h.ResponseWriter.Write(b)
}

func newCoreless(t *testing.T) (*coreless, *keyFault) {
	t.Helper()
	f := new(keyFault)
	w, let := slowWorld(t, f.fault)
	c := &coreless{world: w, let: let, base: t.TempDir()}
	c.dir = w.enrolled(c.base)
	c.start()
	w.publish(big, filepath.Join(c.base, "p"))
	w.fetching()
	w.silence(true)
	return c, f
}

func (c *coreless) start() {
	c.agent = c.world.start(c.dir, func(o *Options) {
		log := o.Log
		o.HaltEvery, o.Log = 500*time.Millisecond, func(n Note) { c.said.log(n); log(n) }
	})
}

// halted waits until the site obeys a halt order, and checks that this order stopped it.
func (c *coreless) halted() {
	c.t.Helper()
	c.said.await(c.t, "release 1: stopped")
	if !c.said.have("bad package") || c.said.have(errNoHaltPath.Error()) {
		c.t.Errorf("the order has not stopped it: %q", c.said.all)
	}
}

// resumed waits until the site has its content.
func (c *coreless) resumed() {
	c.t.Helper()
	c.let()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(c.base, "p", "big")); err == nil && string(b) == big["big"] {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("it stays stopped: %q", c.said.all[max(0, len(c.said.all)-20):])
		}
	}
}

// TestKeyMadeWhileTheCoreIsGone: the key of a halt order is made while the Core is gone. The order itself stops the
// site, and the key lifts it. When the Core is back, it and the site agree.
func TestKeyMadeWhileTheCoreIsGone(t *testing.T) {
	for name, fault := range map[string]int32{"with the right to list": keysAsTheyAre, "without": keysHidden} {
		t.Run(name, func(t *testing.T) {
			c, f := newCoreless(t)
			f.is.Store(fault)
			c.newKey()
			key := c.newKey()
			c.haltAll(key)
			c.halted()
			c.liftAll(key)
			c.resumed()
			c.silence(false)
			c.want(func(*wire.State) {})
			c.await("a verified run", func() bool { return c.ended("verified") })
			c.mu.Lock()
			for _, kind := range []string{ProblemControl, ProblemRepository, ProblemLine} {
				if c.had(kind) {
					t.Errorf("an incident of kind %s", kind)
				}
			}
			c.mu.Unlock()
		})
	}
}

// TestRevokedKeyLiftsNothing: a key is revoked while the Core is gone. Its holder can write to the bucket, and neither
// lifts the order in force nor hides it.
func TestRevokedKeyLiftsNothing(t *testing.T) {
	c, _ := newCoreless(t)
	key := c.newKey()
	epoch := c.haltAll(key)
	c.halted()
	c.revokeCores(key)
	c.put(haltKey, c.orders(c.key, epoch+100))
	c.said.await(t, "is revoked")
	c.let()
	c.put(haltKey, c.orders(key, epoch+1)) // the operator lifts it
	c.resumed()
	c.silence(false)
}

// TestRevokedKeyHidesNoOrder: the order is hidden by an empty object of a key that is revoked while the Core is gone.
// The object does not count, and the site stops.
func TestRevokedKeyHidesNoOrder(t *testing.T) {
	c, _ := newCoreless(t)
	key := c.newKey()
	c.revokeCores(key)
	c.put(haltKey, c.orders(c.key, 100))
	c.said.await(t, "is revoked")
	c.said.await(t, "release 1: stopped")
	c.haltAll(key)
	c.liftAll(key)
	c.resumed() // epoch 100 did not count either
	c.silence(false)
}

// TestForgedTrustDocument: a trust document of another root key vouches for the key of a halt order. Neither counts.
func TestForgedTrustDocument(t *testing.T) {
	c, _ := newCoreless(t)
	_, root, _ := ed25519.GenerateKey(nil)
	_, key, _ := ed25519.GenerateKey(nil)
	payload, err := (&trust.Doc{Keys: []trust.Key{{Public: repo.PublicOf(key), Roles: trust.AllRoles}}}).Encode()
	c.try(err)
	subject := trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: c.repo.ID(), Number: 2}
	forged, err := trust.Sign(root, subject, payload)
	c.try(err)
	c.put(repo.TrustKey(2), forged)
	c.put(haltKey, c.orders(key, 7))
	c.said.await(t, "not by the root key")
	c.said.await(t, "release 1: stopped") // by the fail-safe: the orders in force are unknown
	if !c.said.have(errNoHaltPath.Error()) {
		t.Errorf("a forged order counts: %q", c.said.all)
	}
	// A good document in the place of another one does not count either.
	subject.Number = 3
	moved, err := trust.Sign(c.root, subject, payload)
	c.try(err)
	c.put(repo.TrustKey(2), moved)
	c.said.await(t, "trust document 3 is in the place of document 2")
	c.silence(false)
}

// TestUnreadableTrustDocuments: no trust document can be read. A known key still stops the site, but lifts nothing,
// because it may have been revoked.
func TestUnreadableTrustDocuments(t *testing.T) {
	c, f := newCoreless(t)
	f.is.Store(keysUnread)
	c.haltAll(c.key)
	c.halted()
	c.liftAll(c.key)
	c.said.await(t, "cannot be read (1)")
	f.is.Store(keysAsTheyAre)
	c.resumed()
	c.silence(false)
}

// TestKeysUntilTheBound: the site follows as many new trust documents as the Core has presigned. A halt order by a
// later key stops it by the fail-safe.
func TestKeysUntilTheBound(t *testing.T) {
	for _, made := range []int{wire.MaxNext, wire.MaxNext + 1} {
		t.Run(fmt.Sprint(made), func(t *testing.T) {
			c, _ := newCoreless(t)
			var key ed25519.PrivateKey
			for range made {
				key = c.newKey()
			}
			c.haltAll(key)
			if made <= wire.MaxNext {
				c.halted()
			} else {
				c.said.await(t, "release 1: stopped ")
				if !c.said.have(errNoHaltPath.Error()) || !c.said.have("is not one that the repository's root vouches for") {
					t.Errorf("stopped otherwise: %q", c.said.all)
				}
			}
			c.silence(false)
		})
	}
}

// TestNextTrustURLs: the URLs of the next trust documents are kept with that of the halt object. They are used when the
// Core does not answer, and a refusal by the store means that there is no such document.
func TestNextTrustURLs(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const key = "trust/2"
	var u *urls
	u = newURLs(func(q wire.Ask) error {
		u.Answer(&wire.URLs{ID: q.ID, Until: now.Add(time.Hour).Unix(), Lent: []wire.URL{{Key: "packs/x", URL: "https://store/x"}, {Key: haltKey, URL: "https://store/halt"}},
			Next: []wire.URL{{Key: key, URL: "https://store/2"}, {Key: "trust/3", URL: "https://store/3"}}})
		return nil
	}, func() time.Time { return now }, time.Millisecond)
	lent, err := u.keepPresigned(t.Context(), []string{"packs/x", haltKey}, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	later := newURLs(func(wire.Ask) error { return nil }, func() time.Time { return now }, time.Millisecond)
	later.restoreKept(lent, key)
	for _, silent := range []bool{true, false} { // silent: the Core is not even asked
		later.setSilent(silent)
		if raw, err := later.Lend(t.Context(), key, ""); err != nil || raw != "https://store/2" {
			t.Errorf("%q, %v", raw, err)
		}
		if _, err := later.Lend(t.Context(), key, "https://store/2"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("refused by the store: %v", err)
		}
	}
	if later.hasNext("trust/4") || !later.hasNext("trust/3") {
		t.Error("other documents than the kept ones can be read")
	}
	if raw, err := later.Lend(t.Context(), haltKey, ""); err != nil || raw != "https://store/halt" {
		t.Errorf("%q, %v", raw, err)
	}
	now = now.Add(time.Hour)
	if later.hasNext(key) {
		t.Error("its URL has expired")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := later.Lend(ctx, key, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a URL: %v", err)
	}
}
