package core_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestHeld: gc is told of what sites hold, of what they should hold, and of what
// they are about to hold.
func TestHeld(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	for _, text := range []string{"two", "three", "four"} {
		w.write("a.txt", text)
		w.publish("package")
		if text == "three" { // begun, not ended
			_, events := osaka.converge(osaka.stateOf("package", 3))
			osaka.deliver(events[:1])
		}
	}
	held, err := w.core.Upkeep.Held(t.Context())
	if got := slices.Sorted(maps.Keys(held["package"])); err != nil || !slices.Equal(got, []trust.ReleaseNumber{1, 3, 4}) {
		t.Errorf("%v, %v", held, err)
	}
}

// TestWhoHoldsNothing: a site that was revoked, is configured no more, or was not heard
// for a month pins nothing in the bucket; what holds a release is named.
func TestWhoHoldsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	w.write("a.txt", "two")
	w.publish("package")
	holders := func() []string {
		t.Helper()
		held, err := w.core.Upkeep.Held(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return held["package"][1]
	}
	if got := holders(); !slices.Contains(got, "site osaka") {
		t.Fatalf("%q", got)
	}
	w.ahead.Store(int64(31 * 24 * time.Hour))
	if got := holders(); slices.Contains(got, "site osaka") {
		t.Errorf("not heard for a month: %q", got)
	}
	w.untilIncident("absent")
	w.ahead.Store(0)
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "a test"); err != nil {
		t.Fatal(err)
	}
	if got := holders(); slices.Contains(got, "site osaka") {
		t.Errorf("revoked: %q", got)
	}
}

// TestPurgeTellsWhatItRemoved: logs and what hangs on them go after one time,
// summaries of runs after another, both as configured; the audit and the
// daemon's log say how much of each.
func TestPurgeTellsWhatItRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const day = 24 * time.Hour
	if w.settings.Retention != (ledger.Retention{Logs: 30 * day, Runs: 400 * day}) {
		t.Fatalf("%+v", w.settings.Retention)
	}
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	d := osaka.stateOf("package", 1)
	run, events := osaka.converge(d)
	osaka.deliver(events)
	failed := osaka.events(ledger.RunID{7}, d, []wire.File{{Outcome: runs.FileFailed, Path: "a.txt", Cause: "a test"}}, &wire.Finished{Verdict: "failed", Totals: runs.Totals{Counts: runs.Counts{Failed: 1}}}, nil)
	osaka.deliver(failed)
	measured := func(n int) { // the Core's own look at what it has published, in the background
		w.until("the measurement", func() bool {
			list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Core: true})
			if err != nil {
				t.Fatal(err)
			}
			done := 0
			for _, r := range list {
				if r.Trigger == "measure" && !r.Finished.IsZero() {
					done++
				}
			}
			return done == n
		})
		w.untilRendered()
	}
	measured(1)
	const all = 4 // the publish, its measurement, and two runs of the site
	var bytes int
	for _, text := range w.logs() {
		bytes += len(text)
	}
	if len(w.logs()) != all {
		t.Fatalf("%d logs", len(w.logs()))
	}
	runs := func() int {
		t.Helper()
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	told := func(parts ...string) {
		t.Helper()
		deeds, err := w.core.Query.Deeds(t.Context(), ledger.DeedFilter{What: "purge"})
		if err != nil || len(deeds) == 0 {
			t.Fatal(deeds, err)
		}
		newest := deeds[0]
		for _, e := range deeds {
			if e.At.After(newest.At) {
				newest = e
			}
		}
		for _, p := range parts {
			if !strings.Contains(newest.Detail, p) || !w.said(p) {
				t.Errorf("it does not tell %q: %s", p, newest.Detail)
			}
		}
	}
	w.pass(29 * day)
	if told("0 log files of 0 bytes", " 0 runs"); len(w.logs()) != all {
		t.Error("too early")
	}
	w.pass(31 * day)
	told(fmt.Sprintf("%d log files of %d bytes", all, bytes), "1 exceptions", " 0 runs")
	if len(w.logs()) != 0 || runs() != all {
		t.Errorf("%d logs, %d runs", len(w.logs()), runs())
	}
	if r, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", Limit: 10}); err != nil || !slices.ContainsFunc(r, func(x ledger.Run) bool { return x.ID == run && x.State == "verified" }) {
		t.Errorf("the summary: %+v, %v", r, err)
	}
	w.pass(399 * day)
	w.pass(401 * day)
	if told(fmt.Sprint(all, " runs")); runs() != 0 {
		t.Errorf("%d runs are left", runs())
	}
	// As it is configured.
	w.settings.Retention = ledger.Retention{Logs: 2 * day, Runs: 5 * day}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	w.write("a.txt", "two")
	w.publish("package")
	measured(1)
	w.pass(402 * day)
	w.pass(404 * day)
	if told("2 log files"); len(w.logs()) != 0 || runs() != 2 {
		t.Errorf("%d logs, %d runs", len(w.logs()), runs())
	}
}

// TestHeldByConfiguration: keep and keep_within of a channel bind every gc that
// asks the Core.
func TestHeldByConfiguration(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.settings.Fleet.Channels[1].Keep = 2 })
	for n := range 5 {
		w.write("a.txt", fmt.Sprint("number ", n))
		w.publish("package")
	}
	held := func(want trust.ReleaseNumber) {
		t.Helper()
		all, err := w.core.Upkeep.Held(t.Context())
		if got := slices.Sorted(maps.Keys(all["package"])); err != nil || len(got) == 0 || got[0] != want {
			t.Errorf("%v, %v; want from %d on", got, err, want)
		}
	}
	held(4)
	w.settings.Fleet = testFleet(w.source, w.dir)
	w.settings.Fleet.Channels[1].Keep, w.settings.Fleet.Channels[1].KeepWithin = 2, time.Hour
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	held(1)
	w.ahead.Store(int64(2 * time.Hour))
	held(4)
	w.write("a.txt", "another")
	w.publish("package")
	held(5) // it was the newest until just now
}

// TestUpkeepVouchesOnlyForWhatIsAdopted: heads are signed again daily where they
// name the release that the Core has adopted. What a revoked key has signed stays
// refused, or a day would undo every revocation; what was pushed elsewhere waits
// until it is adopted, and is no incident.
func TestUpkeepVouchesOnlyForWhatIsAdopted(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) { w.options.Poll = time.Hour }) // it looks when it begins
	ctx := t.Context()
	w.begun()
	restart := func() {
		t.Helper()
		w.restart()
		w.begun()
	}
	w.write("a.txt", "one")
	one := w.publish("package")
	fresh := w.succeed(trust.Revoked)
	if _, err := w.others().Publisher(fresh).Resign(ctx, "package"); err != nil {
		t.Fatal(err)
	}
	restart()
	at := repo.HeadKey("package")
	upkeep := func() (signed bool) {
		t.Helper()
		before := testbed.ReadObject(t, w.store, at)
		w.ahead.Add(int64(24 * time.Hour))
		w.upkeep()
		return !bytes.Equal(before, testbed.ReadObject(t, w.store, at))
	}
	if !upkeep() {
		t.Error("a head that names what was adopted was not signed again")
	}
	good := testbed.ReadObject(t, w.store, at)
	// By who has the revoked key, and can write to the bucket.
	for _, number := range []uint64{1, 7} {
		testbed.WriteObject(t, w.store, at, w.head(w.release, number, one.Digest))
		if upkeep() {
			t.Errorf("the Core has signed a head of a revoked key, which names release %d", number)
		}
		w.untilIncident("store")
	}
	testbed.WriteObject(t, w.store, at, good)
	restart() // it looks again
	w.untilOver("store")
	testbed.WriteObject(t, w.store, at, w.head(fresh, 7, one.Digest))
	if upkeep() || !w.said("it names release 7") || w.has("store") {
		t.Errorf("a head that waits to be adopted: incidents %q", w.texts("store"))
	}
}

// TestHeadThatCannotBeSigned: what keeps a head from being signed again is an
// incident until it is signed, though everything else of the store works; it is
// tried again before the next day.
func TestHeadThatCannotBeSigned(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	at := repo.HeadKey("package")
	var denied atomic.Bool
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if denied.Load() && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, at) {
				rw.Header().Set("Content-Type", "application/xml")
				rw.WriteHeader(http.StatusForbidden)
				_, _ = rw.Write([]byte("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"))
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	hours := func(n time.Duration) {
		w.ahead.Add(int64(n * time.Hour))
		w.upkeep()
	}
	w.begun()
	before := testbed.ReadObject(t, w.store, at)
	denied.Store(true)
	hours(24)
	if text := w.untilIncident("store"); !strings.Contains(text, "channel package: its head could not be signed again") {
		t.Errorf("%q", text)
	}
	if err := w.core.Reload(t.Context(), w.settings); err != nil { // it looks at the store
		t.Fatal(err)
	}
	hours(1)
	if !w.has("store") {
		t.Error("a look at the store has ended it")
	}
	denied.Store(false)
	hours(1)
	w.untilOver("store")
	if bytes.Equal(before, testbed.ReadObject(t, w.store, at)) {
		t.Error("it is not signed")
	}
}

// succeed puts another release key in the place of the Core's own, whose status
// is changed, and returns it.
func (w *world) succeed(status trust.Status) ed25519.PrivateKey {
	w.t.Helper()
	ctx := w.t.Context()
	_, fresh, _ := ed25519.GenerateKey(nil)
	w.keys(w.t, func(d *trust.Doc) {
		d.Keys = append(d.Keys, trust.Key{Public: repo.PublicOf(fresh), Roles: trust.AllRoles, Since: time.Now().Unix()})
	})
	_, err := w.others().Halts().Put(ctx, fresh, func(*halt.Orders) error { return nil })
	if err == nil {
		_, err = w.core.Vault().Rotate(ctx, core.SecretRelease, trust.EncodeSecret("release", fresh))
	}
	if err == nil {
		err = w.core.Refresh(ctx)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.keys(w.t, func(d *trust.Doc) { d.Find(repo.PublicOf(w.release)).Status = status })
	return fresh
}

// head is a head of channel package.
func (w *world) head(key ed25519.PrivateKey, number uint64, release trust.ReleaseDigest) []byte {
	w.t.Helper()
	payload, err := (&trust.Head{Release: release, Expires: w.now().Add(time.Hour).Unix()}).Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := trust.Sign(key, trust.Subject{Kind: trust.HeadKind, Version: trust.HeadVersion, Repo: w.core.Repo(), Scope: "package", Number: number}, payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// TestWrongClockRemovesNothing: a Core whose clock is wrong for one round of the
// upkeep removes nothing and signs nothing, tells of it, and does its daily work
// again once the clock is right.
func TestWrongClockRemovesNothing(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]time.Duration{"ahead": 410 * 24 * time.Hour, "behind": -410 * 24 * time.Hour, "an hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, nil, func(w *world) { w.settings.Fleet.Channels[1].KeepWithin = time.Hour })
			w.write("a.txt", "one")
			osaka := w.join("osaka")
			w.publish("package")
			_, events := osaka.converge(osaka.stateOf("package", 1))
			osaka.deliver(events)
			w.untilRendered()
			w.begun()
			logs, purges := len(w.logs()), w.purges()
			head := testbed.ReadObject(t, w.store, repo.HeadKey("package"))

			w.wrong.Store(int64(wrong))
			w.core.UpkeepNow(t.Context())
			if text := w.untilIncident("clock"); !strings.Contains(text, "the Core: this machine's clock is") {
				t.Errorf("%q", text)
			}
			if err := w.core.Upkeep.Purge(t.Context()); err == nil {
				t.Error("a purge that a person asks for is not refused")
			}
			if _, err := w.core.Upkeep.Held(t.Context()); err == nil {
				t.Error("gc is told what is retained by a wrong clock")
			}
			runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
			if n := len(w.logs()); err != nil || n < logs || len(runs) != 1 || w.purges() != purges {
				t.Errorf("%d logs before, %d after; runs %+v, %v", logs, n, runs, err)
			}
			if !bytes.Equal(head, testbed.ReadObject(t, w.store, repo.HeadKey("package"))) {
				t.Error("a head was signed under a wrong clock")
			}

			w.wrong.Store(0)
			w.ahead.Add(int64(25 * time.Hour))
			w.untilOver("clock")
			w.core.UpkeepNow(t.Context())
			if w.purges() == purges || bytes.Equal(head, testbed.ReadObject(t, w.store, repo.HeadKey("package"))) {
				t.Error("the next day's work was not done")
			}
		})
	}
}

// TestBothClocksWrong: where the store's clock is wrong, too, or shows a time a
// year ahead as it comes back, a purge removes two days' worth at most.
func TestBothClocksWrong(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	w.untilRendered()
	w.begun()
	before := len(w.logs())
	for range 3 {
		w.ahead.Store(int64(410 * 24 * time.Hour))
		w.upkeep()
		w.ahead.Store(0)
		w.upkeep()
	}
	if after := len(w.logs()); after < before {
		t.Errorf("%d logs before, %d after", before, after)
	}
}

// TestPublishUnderAWrongClock: the store's time dates a release and its head.
func TestPublishUnderAWrongClock(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.wrong.Store(int64(40 * 24 * time.Hour))
	w.untilIncident("clock")
	rel := w.publish("package")
	r, err := repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	h, err := r.Head(t.Context(), "package")
	if err != nil {
		t.Fatal(err)
	}
	if good := time.Until(h.Expires); good > repo.HeadLife+time.Minute {
		t.Errorf("the head is good for %s", good)
	}
	stored, err := r.Release(t.Context(), "package", rel.Number, rel.Digest)
	if err != nil || time.Until(time.Unix(stored.Created, 0)) > time.Minute {
		t.Errorf("release %+v, %v", stored, err)
	}
}
