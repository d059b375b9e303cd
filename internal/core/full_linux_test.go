package core_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/alert"
	"nightferry/internal/core"
	"nightferry/internal/disktest"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestFullLedger: the ledger's volume fills up. The Core stops accepting and
// says why, sites keep what they report, and all goes on when there is space.
func TestFullLedger(t *testing.T) {
	small := t.TempDir()
	disktest.Volume(t, small, 64<<20)
	w := newWorldWith(t, nil, func(w *world) {
		w.options.Logs = filepath.Join(w.dir, "logs")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", w.options.Data, small).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.options.Data = filepath.Join(small, "core")
	})
	const files = 100
	for i := range files {
		w.write(fmt.Sprintf("d%d/%d.txt", i%7, i), fmt.Sprintf("content %d", i))
	}
	w.publish("package")
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	run, events := osaka.converge(d)
	w.runAgent("berlin", true)()

	ballast := filepath.Join(small, "ballast")
	disktest.Fill(t, ballast)
	// Batches until one does not fit: the last pages of the ledger's files take some.
	var acked uint64
	fat := make([]wire.File, 500)
	for i := range fat {
		fat[i] = wire.File{Outcome: runs.FileFailed, Path: fmt.Sprintf("x/%d", i), Cause: strings.Repeat("c", 500)}
	}
	all := append([]wire.Event{}, events[:1]...)
	for range 40 {
		body, err := wire.EncodeOutcomes(fat)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, wire.Event{Run: run[:], Channel: "package", At: 1, Kind: wire.OutcomesEvent, Body: body})
	}
	all = append(all, events[1:]...)
	next, full := 0, false
	for ; next < len(all) && !full; next++ {
		n, ack, err := osaka.report(uint64(next)+1, all[next:next+1])
		if err != nil {
			t.Fatal(err)
		}
		if full = ack.Full; !full {
			acked = n
			if n != uint64(next)+1 {
				t.Fatalf("acknowledged %d, want %d", n, next+1)
			}
		}
	}
	if !full {
		t.Fatal("the volume never became full")
	}
	if text := w.untilIncident("ledger-full"); !strings.Contains(text, "sites keep what they report") {
		t.Error(text)
	}
	if h := w.core.Health(t.Context()); !h.Live || h.Ready {
		t.Errorf("%+v", h)
	}
	osaka.hello()                                  // it is still answered
	if _, err := osaka.ask("format"); err != nil { // and lent what it needs
		t.Error(err)
	}
	// An agent goes on working, and keeps what it has to tell.
	w.runAgent("berlin", false)
	w.until("berlin to hold the release", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "sites", "berlin", "package", "d3", "3.txt"))
		return err == nil
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for i, e := range all[acked:] {
		if n, ack, err := osaka.report(acked+uint64(i)+1, []wire.Event{e}); err != nil || n != acked+uint64(i)+1 {
			t.Fatalf("event %d of %d: %d, %+v, %v", acked+uint64(i)+1, len(all), n, ack, err)
		}
	}
	w.until("the incident to be over", func() bool { return len(w.texts("ledger-full")) == 0 })
	w.untilRendered()
	w.untilCurrent(1, "berlin")
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || len(runs) != 1 || runs[0].State != "verified" || runs[0].Late != 0 {
		t.Errorf("%+v, %v", runs, err)
	}
}

// TestFullLedgerIsTold: people hear that the ledger's disk is full, though the
// vault, which can record nothing, gives no secret. What they set anew counts.
func TestFullLedgerIsTold(t *testing.T) {
	const token = "hook-token"
	hook := newHook(t, token)
	small := t.TempDir()
	disktest.Volume(t, small, 64<<20)
	w := newWorldWith(t, nil, func(w *world) {
		w.options.Logs = filepath.Join(w.dir, "logs")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", w.options.Data, small).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.options.Data = filepath.Join(small, "core")
		w.settings.Alerts = core.Alerts{Rules: alert.Rules{Webhook: true}}
	})
	osaka := w.join("osaka")
	if _, err := w.core.Vault().Set(t.Context(), core.SecretWebhook, []byte(hook.URL+" "+token)); err != nil {
		t.Fatal(err)
	}
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	disktest.Fill(t, filepath.Join(small, "ballast"))
	w.until("the ledger to be full", func() bool {
		n, ack, err := osaka.report(osaka.next, []wire.Event{{Run: append(make([]byte, 15), 7), Channel: "package", At: 1, Kind: wire.OutcomesEvent, Body: make([]byte, 20_000)}})
		if err != nil {
			t.Fatal(err)
		}
		osaka.next = max(osaka.next, n+1)
		return ack.Full
	})
	hook.until(w, "opened ledger-full")
}

// TestStartWithoutReserve: the volume is full to the last byte, and the reserve is gone. A Core starts all the same, after
// a clean stop and after another start like that: it shows the order in force, takes another, and lifts it. When there is
// room, what the last one did with the vault is in the audit.
func TestStartWithoutReserve(t *testing.T) {
	small := t.TempDir()
	disktest.Volume(t, small, 64<<20)
	w := newWorldWith(t, nil, func(w *world) {
		w.options.Logs = filepath.Join(w.dir, "logs")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", w.options.Data, small).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.options.Data = filepath.Join(small, "core")
	})
	w.runAgent("osaka", true)
	first, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "before"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("osaka to obey", w.obeys("osaka", first.Orders[0]))
	audited := func() int {
		list, err := w.core.Query.Deeds(t.Context(), ledger.DeedFilter{What: "vault open"})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := audited()
	for start := range 3 {
		w.stop()
		reserve, err := filepath.Glob(filepath.Join(small, "core", "reserve.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range reserve {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		disktest.Fill(t, filepath.Join(small, fmt.Sprint("ballast", start)))
		w.start()
		w.untilIncident("ledger-full")
		if v := w.halts()[first.Orders[0]]; v.Reason != "before" {
			t.Errorf("start %d: %+v", start, v)
		}
		if _, err := w.core.Query.Status(t.Context()); err != nil {
			t.Error(err)
		}
		w.until("osaka to be seen to obey again", w.obeys("osaka", first.Orders[0]))
		done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Site, Value: "osaka", Reason: "full"})
		if err != nil || done.Store != "" {
			t.Fatalf("%+v, %v", done, err)
		}
		if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].Short(), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	for start := range 3 {
		if err := os.Remove(filepath.Join(small, fmt.Sprint("ballast", start))); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the incident to be over", func() bool { return len(w.texts("ledger-full")) == 0 })
	w.until("the audit to be whole", func() bool { return audited() > before })
}

// TestHaltOnAFullDisk: the Core's volume is full to the last byte. An order is
// given, confirmed and shown; a Core that starts there has it, and lifts it; and
// the one after that knows that it was lifted.
func TestHaltOnAFullDisk(t *testing.T) {
	small := t.TempDir()
	disktest.Volume(t, small, 64<<20)
	w := newWorldWith(t, nil, func(w *world) {
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", w.options.Data, small).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.options.Data = filepath.Join(small, "core")
	})
	w.runAgent("osaka", true)
	berlin := w.join("berlin")
	full := func() {
		disktest.Fill(t, filepath.Join(small, "ballast"+fmt.Sprint(len(w.halts()))))
		w.until("the ledger to be full", func() bool {
			n, ack, err := berlin.report(berlin.next, []wire.Event{{Run: append(make([]byte, 15), 7), Channel: "package", At: 1, Kind: wire.OutcomesEvent, Body: make([]byte, 20_000)}})
			if err != nil {
				t.Fatal(err)
			}
			berlin.next = max(berlin.next, n+1)
			return ack.Full
		})
	}
	full()
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "full"})
	if err != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	id := done.Orders[0]
	w.until("osaka to obey", w.obeys("osaka", id))
	w.restart()
	w.untilIncident("ledger-full") // a start on the full disk finds out by itself
	if v := w.halts()[id]; v.Reason != "full" {
		t.Errorf("after a start on the full disk: %+v", v)
	}
	w.until("osaka to be seen to obey again", w.obeys("osaka", id))
	if _, err := w.core.Query.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.core.Halts.Resume(t.Context(), id.Short(), "", ""); err != nil {
		t.Fatal(err)
	}
	if m := w.halts(); len(m) != 0 {
		t.Errorf("%+v", m)
	}
	disktest.Fill(t, filepath.Join(small, "more"))
	w.restart()
	if m := w.halts(); len(m) != 0 {
		t.Errorf("what was lifted is back: %+v", m)
	}
	w.untilIncident("ledger-full")
	for _, name := range []string{"ballast0", "more"} {
		if err := os.Remove(filepath.Join(small, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the incident to be over", func() bool { return len(w.texts("ledger-full")) == 0 })
}
