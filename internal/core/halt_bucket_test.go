package core_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/bucket"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// others is the repository as somebody without a Core sees it.
func (w *world) others() *repo.Repo {
	w.t.Helper()
	r, err := repo.Open(w.t.Context(), w.store, repo.Options{Key: w.repoKey, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// inBucket reads the orders that the bucket holds.
func (w *world) inBucket() ([]halt.Order, uint64) {
	w.t.Helper()
	orders, epoch, _, err := w.others().Halts(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return orders.Active, epoch
}

// halts lists the Core's active orders by number.
func (w *world) halts() map[uint64]core.HaltView {
	w.t.Helper()
	list, err := w.core.Halts(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[uint64]core.HaltView{}
	for _, v := range list {
		m[v.Order] = v
	}
	return m
}

// obeys reports whether a site has confirmed an order.
func (w *world) obeys(site string, order uint64) func() bool {
	return func() bool {
		return slices.ContainsFunc(w.halts()[order].Sites, func(s core.HaltSite) bool { return s.Site == site && !s.Stopped.IsZero() })
	}
}

// TestMergeHalts: what others have ordered in the bucket stays, what was lifted
// here does not come back, and of two with one number ours gets another.
func TestMergeHalts(t *testing.T) {
	a, b, c := halt.Order{ID: 2, Scope: halt.Site, Value: "a"}, halt.Order{ID: 3, Scope: halt.Site, Value: "b"}, halt.Order{ID: 3, Scope: halt.All, By: "another"}
	with := func(o halt.Order, id uint64) halt.Order { o.ID = id; return o }
	none := func(halt.Order) bool { return false }
	for _, x := range []struct {
		name         string
		ours, theirs []halt.Order
		lifted       func(halt.Order) bool
		want         []halt.Order
		same         bool
	}{
		{"theirs is older", []halt.Order{a, b}, []halt.Order{a}, none, []halt.Order{a, b}, true},
		{"they know one more", []halt.Order{a}, []halt.Order{a, c}, none, []halt.Order{a, c}, false},
		{"lifted here", nil, []halt.Order{a}, func(o halt.Order) bool { return o == a }, nil, true},
		{"another of that number was lifted here", nil, []halt.Order{c}, func(o halt.Order) bool { return o == b }, []halt.Order{c}, false},
		{"one number", []halt.Order{a, b}, []halt.Order{a, c}, none, []halt.Order{a, c, with(b, 9)}, false},
		{"two numbers", []halt.Order{a, b}, []halt.Order{with(c, 2), c}, none, []halt.Order{with(c, 2), c, with(b, 8), with(a, 9)}, false},
	} {
		got, same := core.MergeHalts(x.ours, x.theirs, x.lifted, 9)
		if d := cmp.Diff(x.want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(halt.Order{})); d != "" || same != x.same {
			t.Errorf("%s: same is %t\n%s", x.name, same, d)
		}
	}
}

// TestTwoOrdersOfOneNumber: somebody without the Core and the Core order at
// once, under the same number. Both are in force, each under its own, here, in
// the bucket and at the sites, and each is lifted by itself.
func TestTwoOrdersOfOneNumber(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Poll = time.Hour }) // it looks when it starts, and not again
	w.runAgent("osaka", true)
	w.runAgent("berlin", true)
	theirs, err := w.others().PutHalt(t.Context(), w.release, func(o *halt.Orders, epoch uint64) error {
		o.Active = append(o.Active, halt.Order{ID: epoch, Scope: halt.Region, Value: "ap", Reason: "typhoon", By: "somebody", At: time.Now().Unix()})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "ours"})
	if err != nil || done.Store != "" || len(done.Orders) != 1 || done.Orders[0] == theirs {
		t.Fatalf("order %+v beside %d: %v", done, theirs, err)
	}
	ours := done.Orders[0]
	w.until("all to obey", func() bool {
		return w.obeys("osaka", theirs)() && w.obeys("osaka", ours)() && w.obeys("berlin", ours)()
	})
	if m := w.halts(); len(m) != 2 || m[theirs].Reason != "typhoon" || m[theirs].Scope != halt.Region || m[ours].Reason != "ours" || m[ours].Scope != halt.All {
		t.Errorf("%+v", m)
	}
	if active, epoch := w.inBucket(); len(active) != 2 || active[0].Reason != "typhoon" || active[1].ID != ours || epoch != done.Epoch {
		t.Errorf("the bucket holds %+v, epoch %d", active, epoch)
	}
	if _, err := w.core.Resume(t.Context(), ours, "", ""); err != nil {
		t.Fatal(err)
	}
	if active, _ := w.inBucket(); len(active) != 1 || active[0].ID != theirs || len(w.halts()) != 1 {
		t.Errorf("the bucket holds %+v", active)
	}
	if _, err := w.core.Resume(t.Context(), theirs, "", ""); err != nil {
		t.Fatal(err)
	}
	if active, _ := w.inBucket(); len(active) != 0 || len(w.halts()) != 0 {
		t.Errorf("the bucket holds %+v", active)
	}
}

// haltAway is a Core in whose bucket the halt object can be neither read nor
// written while away is true.
func haltAway(t *testing.T) (w *world, away *atomic.Bool) {
	away = new(atomic.Bool)
	return newWorldWith(t, nil, func(w *world) {
		b, _ := s3test.Through(t, w.bucket, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if away.Load() && strings.HasSuffix(r.URL.Path, "/halt") {
					s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "down for the test")
					return
				}
				next.ServeHTTP(rw, r)
			})
		})
		w.options.StoreURL = b.URL("")
	}), away
}

// TestSeveralOrdersOfOneNumber: the Core cannot reach the halt object and gives
// two orders; others, who can, give one or two. All are in force when the bucket
// is back, theirs under the numbers that they were told.
func TestSeveralOrdersOfOneNumber(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint("theirs: ", n), func(t *testing.T) {
			w, away := haltAway(t)
			w.runAgent("osaka", true)
			away.Store(true)
			for _, reason := range []string{"ours, first", "ours, second"} {
				if done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.Channel, Value: "driver", Reason: reason}); err != nil || done.Store == "" {
					t.Fatalf("%+v, %v", done, err)
				}
			}
			theirs := map[uint64]string{}
			for i := range n {
				reason := fmt.Sprint("theirs, ", i)
				id, err := w.others().PutHalt(t.Context(), w.release, func(o *halt.Orders, epoch uint64) error {
					o.Active = append(o.Active, halt.Order{ID: epoch, Scope: halt.All, Reason: reason, By: "on call", At: time.Now().Unix()})
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				theirs[id] = reason
			}
			away.Store(false)
			w.until("all to be in the bucket", func() bool { active, _ := w.inBucket(); return len(active) == 2+n })
			w.until("the Core to say so", func() bool {
				m := w.halts()
				for _, v := range m {
					if v.Unstored {
						return false
					}
				}
				return len(m) == 2+n
			})
			active, _ := w.inBucket()
			for _, o := range active {
				if v := w.halts()[o.ID]; v.Reason != o.Reason || theirs[o.ID] != "" && theirs[o.ID] != o.Reason {
					t.Errorf("the bucket holds %+v under that number, the Core %+v, and others gave %q", o, v, theirs[o.ID])
				}
			}
			for id := range theirs {
				w.until("osaka to obey what others ordered", w.obeys("osaka", id))
			}
		})
	}
}

// TestHaltWithoutTheStore: the halt object can be neither read nor written. The
// control plane alone stops the sites; the answer says what the bucket lacks,
// and so does the list; a Core that is restarted remembers both; and the bucket
// gets it when it is back. Whoever gave the order need not stay.
func TestHaltWithoutTheStore(t *testing.T) {
	w, away := haltAway(t)
	w.runAgent("osaka", true)
	away.Store(true)
	gone, leave := context.WithCancel(t.Context())
	leave()
	done, err := w.core.Halt(gone, core.HaltRequest{Scope: halt.All, Reason: "now"})
	if err != nil || !strings.Contains(done.Store, "put the orders to stop into the store") {
		t.Fatalf("%+v, %v", done, err)
	}
	order := done.Orders[0]
	w.until("osaka to obey", w.obeys("osaka", order))
	if active, _ := w.inBucket(); len(active) != 0 || !w.halts()[order].Unstored {
		t.Errorf("the bucket holds %+v, and the Core says %+v", active, w.halts()[order])
	}
	w.restart()
	if v := w.halts()[order]; v.Reason != "now" || !v.Unstored {
		t.Errorf("after a restart: %+v", v)
	}
	away.Store(false)
	w.until("the bucket to have it", func() bool { active, _ := w.inBucket(); return len(active) == 1 && active[0].ID == order })
	w.until("the Core to say so", func() bool { return !w.halts()[order].Unstored })
	w.restart()
	if v := w.halts()[order]; v.Reason != "now" || v.Unstored {
		t.Errorf("after a second restart: %+v", v)
	}
}

// TestRestoredCoreAndHalts: data folder and bucket are put back to before an
// order to stop. The site that obeys it stays stopped; the Core takes its word
// for the epoch, so that what it orders is newer; and can lift what only the
// site knows, also by a bucket that holds it again later.
func TestRestoredCoreAndHalts(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	w.stop()
	yesterday := filepath.Join(w.dir, "yesterday")
	for _, name := range []string{"ledger.db", "state"} {
		copyPath(t, filepath.Join(w.options.Data, name), filepath.Join(yesterday, name))
	}
	then := w.object("halt")
	w.start()
	for range 3 {
		done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "of yesterday's tomorrow"})
		if err != nil {
			t.Fatal(err)
		}
		w.until("osaka to obey", w.obeys("osaka", done.Orders[0]))
	}
	_, seen := w.inBucket()
	w.stop()
	for _, name := range []string{"ledger.db", "ledger.db-wal", "ledger.db-shm", "state"} {
		if err := os.RemoveAll(filepath.Join(w.options.Data, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyPath(t, yesterday, w.options.Data)
	w.putObject("halt", then)
	w.start()
	w.until("the site's word", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(w.log.String(), fmt.Sprintf("nightferry resume %d", seen))
	})
	w.write("a.txt", "two")
	w.publish("package")
	if _, err := w.core.Resume(t.Context(), seen+1, "", ""); err == nil {
		t.Error("an order that nobody gave is lifted")
	}
	other, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.Channel, Value: "driver", Reason: "of today"})
	if err != nil || other.Orders[0] <= seen {
		t.Fatalf("an order under %d, and %d was seen: %v", other.Orders, seen, err)
	}
	// Newer than what osaka knew, and without it: what it was told is over.
	w.untilCurrent(2, "osaka")
	if m := w.halts(); len(m) != 1 {
		t.Errorf("%+v", m)
	}
}

// TestRestoredCoreResumes: as before, and the first thing that is done is to
// lift what the incident names, while the bucket cannot be read; what it holds
// under that number does not come back.
func TestRestoredCoreResumes(t *testing.T) {
	var away atomic.Bool
	w := newWorldWith(t, nil, func(w *world) {
		b, _ := s3test.Through(t, w.bucket, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if away.Load() && strings.HasSuffix(r.URL.Path, "/halt") && !strings.Contains(r.UserAgent(), "agent") {
					s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "down for the test")
					return
				}
				next.ServeHTTP(rw, r)
			})
		})
		w.options.StoreURL = b.URL("")
	})
	w.write("a.txt", "one")
	w.runAgent("osaka", true)
	w.stop()
	yesterday := filepath.Join(w.dir, "yesterday")
	for _, name := range []string{"ledger.db", "state"} {
		copyPath(t, filepath.Join(w.options.Data, name), filepath.Join(yesterday, name))
	}
	w.start()
	done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "forgotten"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("osaka to obey", w.obeys("osaka", done.Orders[0]))
	w.stop()
	for _, name := range []string{"ledger.db", "ledger.db-wal", "ledger.db-shm", "state"} {
		if err := os.RemoveAll(filepath.Join(w.options.Data, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyPath(t, yesterday, w.options.Data)
	away.Store(true)
	w.start()
	w.until("the site's word", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(w.log.String(), fmt.Sprintf("nightferry resume %d", done.Epoch))
	})
	lifted, err := w.core.Resume(t.Context(), done.Epoch, "", "")
	if err != nil || lifted.Epoch <= done.Epoch {
		t.Fatalf("%+v, %v", lifted, err)
	}
	away.Store(false)
	w.until("the bucket to know", func() bool { active, epoch := w.inBucket(); return len(active) == 0 && epoch > done.Epoch })
	w.publish("package")
	w.untilCurrent(1, "osaka")
}

// TestOldHaltPutBack: whoever puts an old halt object into the bucket, or
// removes it, lifts nothing and brings nothing back: the Core stores what is in
// force again, under no older epoch than any that was seen, and tells of it.
func TestOldHaltPutBack(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Poll = 50 * time.Millisecond })
	none := w.object("halt")
	lifted, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "lifted again"})
	if err != nil {
		t.Fatal(err)
	}
	one := w.object("halt")
	if _, err := w.core.Resume(t.Context(), lifted.Orders[0], "", ""); err != nil {
		t.Fatal(err)
	}
	kept, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "berlin", Reason: "in force"})
	if err != nil {
		t.Fatal(err)
	}
	least := kept.Epoch
	for _, x := range []struct {
		name string
		do   func()
	}{
		{"the one before any order", func() { w.putObject("halt", none) }},
		{"one with an order that was lifted", func() { w.putObject("halt", one) }},
		{"none at all", func() { w.removeObject("halt") }},
	} {
		x.do()
		w.until(x.name+": what is in force to be in the bucket again", func() bool {
			orders, epoch, _, err := w.others().Halts(t.Context())
			return err == nil && epoch >= least && len(orders.Active) == 1 && orders.Active[0].ID == kept.Orders[0]
		})
		_, least = w.inBucket()
		if m := w.halts(); len(m) != 1 || m[kept.Orders[0]].Reason != "in force" {
			t.Errorf("%s: in force are %+v", x.name, m)
		}
	}
	list, err := w.core.Incidents(t.Context(), true)
	if err != nil || !slices.ContainsFunc(list, func(i core.Incident) bool {
		return i.Kind == string(core.Store) && strings.Contains(i.Text, "stored again")
	}) {
		t.Errorf("nobody was told: %+v, %v", list, err)
	}
}

// TestHaltIsToldUntilItIsSeen: the message with an order is lost. Every sign of
// life that tells an older epoch gets it again; one that tells this, does not.
func TestHaltIsToldUntilItIsSeen(t *testing.T) {
	w := newWorld(t, nil)
	osaka := w.join("osaka")
	osaka.hello()
	done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "lost on the way"})
	if err != nil {
		t.Fatal(err)
	}
	var st wire.State
	beat := func(epoch uint64) uint64 {
		t.Helper()
		for len(osaka.in) > 0 {
			<-osaka.in // is lost
		}
		osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().UnixMilli(), Trust: osaka.chain.Number, Epoch: epoch})
		st = wire.State{}
		if err := osaka.answer(wire.VerbState, &st); err != nil {
			t.Fatal(err)
		}
		if len(st.Halt) == 0 {
			return 0
		}
		s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, st.Halt)
		if err != nil {
			t.Fatal(err)
		}
		return s.Subject.Number
	}
	for range 3 {
		if e := beat(0); e != done.Epoch {
			t.Fatalf("a beat gets epoch %d of the orders, want %d", e, done.Epoch)
		}
	}
	w.until("it to be told no more", func() bool { return beat(done.Epoch) == 0 })
}

// TestHaltCanBeReadAsLongAsContent: every answer that lends content lends the
// halt object with it, for no shorter time.
func TestHaltCanBeReadAsLongAsContent(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", strings.Repeat("package", 10_000))
	osaka := w.join("osaka")
	w.publish("package")
	osaka.stateOf("package", 1)
	keys := []string{"index/root", "channels/package/head", "channels/package/releases/1"}
	for k := range packs(t, w) {
		keys = append(keys, k)
	}
	for n := 1; n <= len(keys); n++ {
		u, err := osaka.ask(keys[:n]...)
		if err != nil || len(u.Lent) != n+1 {
			t.Fatalf("asked for %d objects: %v", n, err) // no URL in it
		}
		ends := map[string]time.Time{}
		for _, l := range u.Lent {
			ends[l.Key] = expiry(t, l.URL)
		}
		for k, end := range ends {
			if ends["halt"].Before(end) {
				t.Errorf("%s can be read until %v, the orders to stop until %v", k, end, ends["halt"])
			}
			if end.Before(time.Unix(u.Until, 0).Add(-time.Minute)) {
				t.Errorf("%s is said to last until %v, and ends at %v", k, time.Unix(u.Until, 0).UTC(), end)
			}
		}
	}
}

// expiry is when a lent URL ends; URLs are never printed.
func expiry(t *testing.T, raw string) time.Time {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal("a URL that does not parse")
	}
	at, err := time.Parse("20060102T150405Z", u.Query().Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Query().Get("X-Amz-Expires"))
	if err != nil {
		t.Fatal(err)
	}
	return at.Add(time.Duration(n) * time.Second)
}

// object reads an object of the bucket, and putObject puts it back.
func (w *world) object(key string) []byte {
	w.t.Helper()
	body, _, err := w.store.Get(w.t.Context(), key, 0, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err := body.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) putObject(key string, b []byte) {
	w.t.Helper()
	if _, err := w.store.Put(w.t.Context(), key, bucket.Bytes(b), bucket.Cond{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) removeObject(key string) {
	w.t.Helper()
	if err := w.store.Delete(w.t.Context(), key); err != nil {
		w.t.Fatal(err)
	}
}

func copyPath(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		list, err := os.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			copyPath(t, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
		return
	}
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, b, info.Mode().Perm())
	}
	if err != nil {
		t.Fatal(err)
	}
}
