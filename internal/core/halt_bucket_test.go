package core_test

import (
	"context"
	"errors"
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

	"nightferry/internal/bucket"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/query"
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
	stored, err := w.others().Halts().Read(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return stored.Orders.Active, stored.Epoch
}

// halts lists the Core's active orders by ID.
func (w *world) halts() map[halt.ID]core.HaltView {
	w.t.Helper()
	list, err := w.core.Halts.List(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[halt.ID]core.HaltView{}
	for _, v := range list {
		m[v.Order] = v
	}
	return m
}

// obeys reports whether a site has confirmed an order.
func (w *world) obeys(site string, order halt.ID) func() bool {
	return func() bool {
		return slices.ContainsFunc(w.halts()[order].Sites, func(s core.HaltSite) bool { return s.Site == site && !s.Stopped.IsZero() })
	}
}

// elsewhere gives an order by the store, as a program without a Core does.
func (w *world) elsewhere(scope, value, reason string) halt.ID {
	w.t.Helper()
	o := halt.Order{ID: halt.NewID(), Scope: scope, Value: value, Reason: reason, By: "on call", At: time.Now().Unix()}
	if _, err := w.others().Halts().Put(w.t.Context(), w.release, func(orders *halt.Orders) error {
		orders.Add(o)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return o.ID
}

// TestTwoOrdersAtOnce: a program without the Core and the Core give an order at
// once. Both are in force here, in the bucket and at the sites, and each is
// lifted by itself.
func TestTwoOrdersAtOnce(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Poll = time.Hour }) // it looks when it starts, and not again
	w.runAgent("osaka", true)
	w.runAgent("berlin", true)
	theirs := w.elsewhere(halt.Region, "ap", "typhoon")
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "ours"})
	if err != nil || done.Store != "" || len(done.Orders) != 1 || done.Orders[0] == theirs {
		t.Fatalf("order %+v beside %s: %v", done, theirs, err)
	}
	ours := done.Orders[0]
	w.until("all to obey", func() bool {
		return w.obeys("osaka", theirs)() && w.obeys("osaka", ours)() && w.obeys("berlin", ours)()
	})
	if m := w.halts(); len(m) != 2 || m[theirs].Reason != "typhoon" || m[theirs].Scope != halt.Region || m[ours].Reason != "ours" || m[ours].Scope != halt.All {
		t.Errorf("%+v", m)
	}
	if active, epoch := w.inBucket(); len(active) != 2 || epoch != done.Epoch {
		t.Errorf("the bucket holds %+v, epoch %d", active, epoch)
	}
	if _, err := w.core.Halts.Resume(t.Context(), ours.Short(), "", ""); err != nil {
		t.Fatal(err)
	}
	if active, _ := w.inBucket(); len(active) != 1 || active[0].ID != theirs || len(w.halts()) != 1 {
		t.Errorf("the bucket holds %+v", active)
	}
	if _, err := w.core.Halts.Resume(t.Context(), theirs.String(), "", ""); err != nil {
		t.Fatal(err)
	}
	if active, _ := w.inBucket(); len(active) != 0 || len(w.halts()) != 0 {
		t.Errorf("the bucket holds %+v", active)
	}
}

// TestResumeAll: scope all lifts every order, whatever it was given for.
func TestResumeAll(t *testing.T) {
	w := newWorld(t, nil)
	for _, r := range []core.HaltRequest{{Scope: halt.All}, {Scope: halt.Site, Value: "osaka"}, {Scope: halt.Channel, Value: "driver"}} {
		if _, err := w.core.Halts.Halt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	done, err := w.core.Halts.Resume(t.Context(), "", halt.All, "")
	if err != nil || len(done.Orders) != 3 || len(w.halts()) != 0 {
		t.Errorf("%+v, %v; in force are %+v", done, err, w.halts())
	}
	if _, err := w.core.Halts.Resume(t.Context(), "", halt.All, ""); !errors.Is(err, core.ErrNoOrder) {
		t.Errorf("nothing is lifted: %v", err)
	}
}

// TestHaltGivenUp: a halt whose caller has given up before its turn is not
// carried out.
func TestHaltGivenUp(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Until: time.Now().Add(-time.Second)}); !errors.Is(err, core.ErrLate) {
		t.Errorf("error is %v", err)
	}
	if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Until: time.Now().Add(time.Minute)}); err != nil {
		t.Error(err)
	}
	if m := w.halts(); len(m) != 1 {
		t.Errorf("%+v", m)
	}
}

// refusingStore is a Core whose store refuses the requests for which refused returns true.
func refusingStore(t *testing.T, refused func(*http.Request) bool) *world {
	return newWorldWith(t, nil, func(w *world) {
		b, _ := s3test.Through(t, w.bucket, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if refused(r) {
					s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "down for the test")
					return
				}
				next.ServeHTTP(rw, r)
			})
		})
		w.options.StoreURL = b.URL("")
	})
}

// haltAway is a Core in whose bucket the halt object can be neither read nor
// written while away is true.
func haltAway(t *testing.T) (w *world, away *atomic.Bool) {
	away = new(atomic.Bool)
	return refusingStore(t, func(r *http.Request) bool { return away.Load() && strings.HasSuffix(r.URL.Path, "/halt") }), away
}

// TestSeveralOrdersAtOnce: the Core cannot reach the halt object, gives two
// orders and lifts one that the bucket has; others, who can, give one or two. All
// that is not lifted is in force when the bucket is back.
func TestSeveralOrdersAtOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint("theirs: ", n), func(t *testing.T) {
			w, away := haltAway(t)
			w.runAgent("osaka", true)
			before, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "to be lifted"})
			if err != nil {
				t.Fatal(err)
			}
			away.Store(true)
			for _, reason := range []string{"ours, first", "ours, second"} {
				if done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Channel, Value: "driver", Reason: reason}); err != nil || done.Store == "" {
					t.Fatalf("%+v, %v", done, err)
				}
			}
			if _, err := w.core.Halts.Resume(t.Context(), before.Orders[0].String(), "", ""); err != nil {
				t.Fatal(err)
			}
			var theirs []halt.ID
			for i := range n {
				theirs = append(theirs, w.elsewhere(halt.All, "", fmt.Sprint("theirs, ", i)))
			}
			away.Store(false)
			w.until("all to be in the bucket", func() bool { active, _ := w.inBucket(); return len(active) == 2+n })
			w.until("the Core to show it", func() bool {
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
				if v := w.halts()[o.ID]; v.Reason != o.Reason || o.ID == before.Orders[0] {
					t.Errorf("the bucket holds %+v, the Core %+v", o, v)
				}
			}
			for _, id := range theirs {
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
	done, err := w.core.Halts.Halt(gone, core.HaltRequest{Scope: halt.All, Reason: "now"})
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

// TestRestoredCoreAndHalts: data folder and bucket are put back to before three
// orders to stop. The site that obeys them stays stopped; the Core learns them
// from it, shows them, and what it orders is newer.
func TestRestoredCoreAndHalts(t *testing.T) {
	t.Parallel()
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
		done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "of yesterday's tomorrow"})
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
	w.until("the Core to learn what only osaka knows", func() bool { return len(w.halts()) == 3 })
	w.until("osaka to be seen to obey", func() bool {
		for id, v := range w.halts() {
			if v.Reason != "of yesterday's tomorrow" || !w.obeys("osaka", id)() {
				return false
			}
		}
		return true
	})
	w.until("the bucket to have them again", func() bool { active, _ := w.inBucket(); return len(active) == 3 })
	w.write("a.txt", "two")
	w.publish("package")
	if _, err := w.core.Halts.Resume(t.Context(), halt.NewID().String(), "", ""); !errors.Is(err, core.ErrNoOrder) {
		t.Errorf("an order that was never given is lifted: %v", err)
	}
	other, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Channel, Value: "driver", Reason: "of today"})
	if err != nil || other.Epoch <= seen {
		t.Fatalf("epoch %d, and %d was seen: %v", other.Epoch, seen, err)
	}
	if _, err := w.core.Halts.Resume(t.Context(), "", halt.Site, "osaka"); err != nil {
		t.Fatal(err)
	}
	w.untilCurrent(2, "osaka")
	if m := w.halts(); len(m) != 1 {
		t.Errorf("%+v", m)
	}
}

// TestRestoredCoreResumes: as before, and the order is lifted while the bucket,
// which still has it, cannot be read. It does not come back from there.
func TestRestoredCoreResumes(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	w := refusingStore(t, func(r *http.Request) bool {
		return away.Load() && strings.HasSuffix(r.URL.Path, "/halt") && !strings.Contains(r.UserAgent(), "agent")
	})
	w.write("a.txt", "one")
	w.runAgent("osaka", true)
	w.stop()
	yesterday := filepath.Join(w.dir, "yesterday")
	for _, name := range []string{"ledger.db", "state"} {
		copyPath(t, filepath.Join(w.options.Data, name), filepath.Join(yesterday, name))
	}
	w.start()
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "forgotten"})
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
	w.until("the Core to learn what only osaka knows", func() bool { return len(w.halts()) == 1 })
	lifted, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", "")
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
	lifted, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "lifted again"})
	if err != nil {
		t.Fatal(err)
	}
	one := w.object("halt")
	if _, err := w.core.Halts.Resume(t.Context(), lifted.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	kept, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "berlin", Reason: "in force"})
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
			stored, err := w.others().Halts().Read(t.Context())
			return err == nil && stored.Epoch >= least && len(stored.Orders.Active) == 1 && stored.Orders.Active[0].ID == kept.Orders[0]
		})
		_, least = w.inBucket()
		if m := w.halts(); len(m) != 1 || m[kept.Orders[0]].Reason != "in force" {
			t.Errorf("%s: in force are %+v", x.name, m)
		}
	}
	list, err := w.core.Query.Incidents(t.Context(), true)
	if err != nil || !slices.ContainsFunc(list, func(i query.Incident) bool {
		return i.Kind == string(kinds.Store) && strings.Contains(i.Text, "stored again")
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
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "lost on the way"})
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
