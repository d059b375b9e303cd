package core_test

import (
	"errors"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/incarnation"
	"nightferry/internal/ledger"
	"nightferry/internal/testbed"
	"nightferry/internal/wire"
)

// copyData copies the data folder of a Core that is stopped.
func (w *world) copyData(to string) {
	w.t.Helper()
	if out, err := exec.CommandContext(w.t.Context(), "cp", "-a", w.options.Data, to).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
}

// beside returns a second Core on the same store, with its own copy of the data folder and its own
// address. It is not started.
func (w *world) beside(data string) *world {
	w.t.Helper()
	b := &world{t: w.t, dir: w.dir, source: w.source, bucket: w.bucket, store: w.store, root: w.root, release: w.release, repoKey: w.repoKey,
		options: w.options, settings: w.settings, more: make(chan struct{}, 1)}
	b.options.Data, b.options.OnEvent, b.options.BusLog = data, b.hear, nil
	for _, addr := range []*string{&b.options.Addr, &b.options.WebSocketAddr} {
		var err error
		if *addr, err = testbed.Address(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(func() {
		if b.stop != nil {
			b.stop()
		}
	})
	return b
}

// isOlder reports whether a Core does nothing that only the newer of two may do.
func (w *world) isOlder(err error) bool {
	return err != nil && strings.Contains(err.Error(), "another Core")
}

// forgetSent drops all messages that the Core has sent so far.
func (s *wireSite) forgetSent() {
	s.w.t.Helper()
	if _, err := s.ask("format"); err != nil { // its answer comes after them
		s.w.t.Fatal(err)
	}
	s.forget()
}

// stated sends a hello and waits for a desired state. A Core that has not read the store yet answers with halt
// orders, and sends the state when it has.
func (s *wireSite) stated() (*wire.State, uint64) {
	s.w.t.Helper()
	st, n := s.hello()
	for n == 0 {
		var err error
		st = &wire.State{}
		if n, err = s.answerNumber(wire.VerbState, st); err != nil {
			s.w.t.Fatal(err)
		}
	}
	return st, n
}

// TestTwoCores: a restored copy is started beside the original, and later the original is restarted. The
// Core that was started last acts. The other one opens an incident, publishes, signs, purges and
// states nothing, and its halt orders work.
func TestTwoCores(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	desired := osaka.stateOf("package", 1)
	w.stop()
	data := w.options.Data + "-copy"
	w.copyData(data)
	w.start()
	osaka.back()
	_, seen := osaka.hello()
	w.write("a.txt", "two")
	w.publish("package")

	copied := w.beside(data)
	copied.start()
	if text := w.untilIncident("other-core"); !strings.Contains(text, "incarnation") {
		t.Error(text)
	}
	w.begun()
	purges := w.purges()
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); !w.isOlder(err) {
		t.Errorf("the older Core publishes: %v", err)
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka"}}); !w.isOlder(err) {
		t.Errorf("the older Core orders a run: %v", err)
	}
	if _, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: fleet.Scope{Site: "osaka"}, Rate: "1MB"}); !w.isOlder(err) {
		t.Errorf("the older Core changes a rate: %v", err)
	}
	if _, err := w.core.Upkeep.Held(t.Context()); !w.isOlder(err) {
		t.Errorf("the older Core lets gc run: %v", err)
	}
	if err := w.core.Upkeep.Purge(t.Context()); !w.isOlder(err) || w.purges() != purges {
		t.Errorf("the older Core purges: %v", err)
	}
	var run ledger.RunID
	run[0] = 1
	if n, ack, err := osaka.report(osaka.next, osaka.events(run, desired, nil, &wire.Finished{Verdict: "verified"}, nil)); err != nil || n != 0 || !ack.Full {
		t.Errorf("the older Core keeps a report, which the other one never gets: %d, %v, %v", n, ack, err)
	}
	osaka.forgetSent()
	if st, n := osaka.hello(); n != 0 || len(st.Desired) > 0 {
		t.Errorf("the older Core states revision %d: %+v", n, st.Desired)
	}
	halted, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "both must stop"})
	if err != nil {
		t.Fatal(err)
	}
	osaka.forgetSent()
	if st, _ := osaka.hello(); len(st.Halt) == 0 {
		t.Error("the halt order of the older Core does not reach its site")
	}
	copied.until("the newer Core to obey", func() bool { return copied.halts()[halted.Orders[0]].Reason == "both must stop" })
	if _, err := copied.core.Halts.Resume(t.Context(), "", halt.All, ""); err != nil {
		t.Fatal(err)
	}
	copied.write("a.txt", "three")
	copied.until("the newer Core to publish", func() bool {
		p, err := copied.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{})
		return err == nil && p.Number == 3
	})
	if copied.has("other-core") {
		t.Error("the newer Core takes itself for the older one")
	}

	// An administrator decides: a restart takes over, with the newest release.
	w.restart()
	copied.untilIncident("other-core")
	osaka.back()
	osaka.forgetSent() // the older Core's
	if st, n := osaka.stated(); n <= seen || st.Desired[0].Number != 3 {
		t.Errorf("revision %d after %d: %+v", n, seen, st.Desired)
	}
	w.until("the incident to be over", func() bool { return !w.has("other-core") })
	w.write("a.txt", "four")
	w.until("the original to publish", func() bool {
		p, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{})
		return err == nil && p.Number == 4
	})
	if _, err := copied.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); !copied.isOlder(err) {
		t.Errorf("the copy publishes: %v", err)
	}
}

// TestRestoredWithoutStore: a Core starts from an older copy of its data while its store is dark. It
// changes its configuration as often as the lost Core did, so its revisions would repeat. It halts
// sites and states nothing until it has read the store; then its revision is above all that sites have
// seen, with the newest release.
func TestRestoredWithoutStore(t *testing.T) {
	t.Parallel()
	var dark atomic.Bool
	w := refusingStore(t, func(*http.Request) bool { return dark.Load() })
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	osaka.stateOf("package", 1)
	w.stop()
	yesterday := w.options.Data + "-yesterday"
	w.copyData(yesterday)
	w.start()
	osaka.back()
	w.write("a.txt", "two")
	w.publish("package")
	osaka.stateOf("package", 2)
	_, seen := osaka.hello()
	w.stop()

	w.options.Data = yesterday
	dark.Store(true)
	w.start()
	osaka.back()
	osaka.forget() // all that the lost Core has sent
	for i := range 8 {
		w.apart().Site("osaka").Placement("package").Rate = int64(1000 + i)
		if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); err == nil {
		t.Error("it publishes although it has not read the store")
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{}); !errors.Is(err, incarnation.ErrNone) {
		t.Errorf("it takes an order that sites would ignore: %v", err)
	}
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "bad package"})
	if err != nil {
		t.Fatal(err)
	}
	osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().UnixMilli(), Revision: seen, Trust: osaka.chain.Number, Instance: osaka.instance})
	for {
		var st wire.State
		n, err := osaka.answerNumber(wire.VerbState, &st)
		if err != nil {
			t.Fatal(err)
		}
		if n != 0 || len(st.Desired) > 0 {
			t.Fatalf("it states revision %d after %d: %+v", n, seen, st.Desired)
		}
		if len(st.Halt) > 0 {
			break
		}
	}
	dark.Store(false)
	if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	if st, n := osaka.stated(); n <= seen || len(st.Desired) != 1 || st.Desired[0].Number != 2 {
		t.Errorf("revision %d after %d: %+v", n, seen, st.Desired)
	}
	w.untilDeed("incarnation", "copy")
	w.write("a.txt", "three")
	if p := w.publish("package"); p.Number != 3 {
		t.Errorf("release %d", p.Number)
	}
}

// TestUnreadHead: a Core starts from a copy of before release 2 of a channel, while that channel's head cannot
// be read, or is damaged. It states the other channels, and halts sites from its first second. Sites keep what
// they have of that channel until the head can be read; then they get release 2.
func TestUnreadHead(t *testing.T) {
	t.Parallel()
	for _, damaged := range []bool{false, true} {
		t.Run(map[bool]string{false: "refused", true: "damaged"}[damaged], func(t *testing.T) {
			t.Parallel()
			var away atomic.Bool
			w := refusingStore(t, func(r *http.Request) bool { return away.Load() && strings.HasSuffix(r.URL.Path, "package/head") })
			w.write("a.txt", "one")
			w.publish("package")
			berlin := w.join("berlin")
			berlin.stateOf("package", 1)
			w.stop()
			yesterday := w.options.Data + "-yesterday"
			w.copyData(yesterday)
			w.start()
			berlin.back()
			w.write("a.txt", "two")
			w.publish("package")
			berlin.stateOf("package", 2)
			_, seen := berlin.hello()
			w.stop()

			w.options.Data = yesterday
			head := w.object("channels/package/head")
			if damaged {
				w.putObject("channels/package/head", head[:len(head)/2])
			} else {
				away.Store(true)
			}
			w.start()
			berlin.back()
			berlin.forget() // all that the lost Core has sent
			if text := w.untilIncident("behind"); !strings.Contains(text, "package") {
				t.Error(text)
			}
			st, n := berlin.stated()
			if n <= seen || len(st.Desired) != 1 || st.Desired[0].Channel != "driver" || !slices.Equal(st.Withheld, []string{"package"}) {
				t.Errorf("revision %d after %d: %+v", n, seen, st)
			}
			// It still pulls release 2, which this Core does not know yet.
			if urls, err := berlin.ask(testbed.Keys(t, w.store, "packs/")...); err != nil || len(urls.Refused) == 0 {
				t.Errorf("%+v, %v", urls, err)
			}
			if _, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "bad package"}); err != nil {
				t.Fatal(err)
			}
			for st := (wire.State{}); len(st.Halt) == 0; {
				if err := berlin.answer(wire.VerbState, &st); err != nil {
					t.Fatal(err)
				}
			}

			away.Store(false)
			w.putObject("channels/package/head", head)
			for {
				var st wire.State
				if err := berlin.answer(wire.VerbState, &st); err != nil {
					t.Fatal(err)
				}
				if len(st.Withheld) > 0 {
					continue
				}
				if len(st.Desired) != 2 || st.Desired[1].Number != 2 {
					t.Errorf("%+v", st.Desired)
				}
				break
			}
			w.until("the incident to be over", func() bool { return !w.has("behind") })
			if w.has("ask") {
				t.Error("a site is blamed for the Core's loss")
			}
		})
	}
}

// TestNumberLostEverywhere: ledger and bucket are restored, so that both have lost the number. A site that
// has followed it reports this, and gets a newer state; a number that no Core can have had is refused.
func TestNumberLostEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	osaka.stateOf("package", 1)
	w.stop()
	yesterday, then := w.options.Data+"-yesterday", w.object(incarnation.Key)
	w.copyData(yesterday)
	for range 3 {
		w.start()
		osaka.back()
		osaka.stateOf("package", 1)
		w.stop()
	}
	w.start()
	osaka.back()
	osaka.forgetSent()
	_, seen := osaka.hello()
	w.stop()

	w.options.Data = yesterday
	w.putObject(incarnation.Key, then)
	w.start()
	osaka.back()
	osaka.forgetSent()
	osaka.stated() // it has a number
	osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().UnixMilli(), Revision: seen, Trust: osaka.chain.Number, Instance: osaka.instance})
	for n := uint64(0); n <= seen; {
		var err error
		if n, err = osaka.answerNumber(wire.VerbState, &wire.State{}); err != nil {
			t.Fatal(err)
		}
	}
	osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().UnixMilli(), Revision: 1 << 61, Trust: osaka.chain.Number, Instance: osaka.instance})
	if text := w.untilIncident("malformed"); !strings.Contains(text, "incarnation") {
		t.Error(text)
	}
}

// TestFullHello: a Core is restored from a copy of before release 2, which a halted site holds. The site's
// hello corrects the view, without a run; the proof comes with the next one.
func TestFullHello(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	w.stop()
	yesterday := w.options.Data + "-yesterday"
	w.copyData(yesterday)
	w.start()
	w.write("a.txt", "two")
	w.publish("package")
	w.untilCurrent(2, "osaka")
	halted, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "bad package"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("osaka to obey", w.obeys("osaka", halted.Orders[0]))
	w.until("osaka to have reported all", func() bool {
		s, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
		return err == nil && s[0].Spooled == 0
	})
	w.stop()

	w.options.Data = yesterday
	w.start()
	w.until("the release that osaka holds", func() bool { return w.channel("osaka", "package").Holds == 2 })
	ch := w.channel("osaka", "package")
	if !ch.Verified.IsZero() || ch.State == "current" {
		t.Errorf("the ledger has no proof: %+v", ch)
	}
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || slices.ContainsFunc(runs, func(r ledger.Run) bool { return r.Number == 2 }) {
		t.Errorf("%+v, %v", runs, err)
	}
	if _, err := w.core.Halts.Resume(t.Context(), "", halt.All, ""); err != nil {
		t.Fatal(err)
	}
	w.untilCurrent(2, "osaka")
}

// TestUnsentEvents: a site that has not yet reported the run by which it holds a release is not corrected:
// the report will contain it.
func TestUnsentEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	beat := func(spooled int) {
		t.Helper()
		osaka.say(wire.VerbBeat, 0, &wire.Beat{At: time.Now().UnixMilli(), Trust: osaka.chain.Number, Instance: osaka.instance, Spooled: uint64(spooled), Holds: slices.Collect(maps.Values(osaka.holds))})
		if _, err := osaka.ask("format"); err != nil { // is handled after it
			t.Fatal(err)
		}
	}
	beat(len(events))
	if ch := w.channel("osaka", "package"); ch.Holds != 0 {
		t.Errorf("%+v", ch)
	}
	osaka.deliver(events)
	beat(0)
	if ch := w.channel("osaka", "package"); ch.State != "current" {
		t.Errorf("%+v", ch)
	}
	w.untilDeed("publish", "")
	if list, err := w.core.Query.Deeds(t.Context(), ledger.DeedFilter{What: "prove"}); err != nil || len(list) > 0 {
		t.Errorf("a proof was asked for: %+v, %v", list, err)
	}
}

// TestLimitUnderWrongClock: a Core starts with a clock that is a day ahead, while its store is dark. An operator's limit
// of two hours does not end by that clock.
func TestLimitUnderWrongClock(t *testing.T) {
	t.Parallel()
	var dark atomic.Bool
	w := refusingStore(t, func(*http.Request) bool { return dark.Load() })
	osaka := w.join("osaka")
	if _, err := w.core.Orders.Limit(t.Context(), core.LimitRequest{Scope: fleet.Scope{Site: "osaka"}, Rate: "1MB", For: ledger.Seconds(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	dark.Store(true)
	w.wrong.Store(int64(24 * time.Hour))
	w.start()
	w.stop()
	dark.Store(false)
	w.wrong.Store(0)
	w.start()
	osaka.back()
	osaka.forgetSent()
	if st, _ := osaka.stated(); st.Limit == "" {
		t.Errorf("the limit has ended: %+v", st)
	}
}

// TestProofWaits: a site holds a release that the ledger does not know it to hold, while an operator's request
// waits there. The Core asks for a proof after the site has obeyed that request, and does not replace it.
func TestProofWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	ordered, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "osaka"}, Adopt: true})
	if err != nil {
		t.Fatal(err)
	}
	osaka.holds["package"] = wire.Held{Channel: "package", Number: 1, Release: d.Release, Obeyed: d.Start}
	for range 3 {
		osaka.forgetSent()
		if st, _ := osaka.hello(); !st.Desired[0].Adopt || st.Desired[0].Start != ordered[0].Start {
			t.Fatalf("the operator's request was replaced: %+v", st.Desired)
		}
	}
	if ch := w.channel("osaka", "package"); ch.Holds != 1 {
		t.Errorf("%+v", ch)
	}
	osaka.holds["package"] = wire.Held{Channel: "package", Number: 1, Release: d.Release, Obeyed: ordered[0].Start}
	osaka.hello()
	w.untilDeed("prove", "unproven")
	osaka.forgetSent()
	if st, _ := osaka.hello(); st.Desired[0].Adopt || st.Desired[0].Start <= ordered[0].Start {
		t.Errorf("no proof was asked for: %+v", st.Desired)
	}
}
