package core_test

import (
	"testing"
	"time"

	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestStalledRun: a site that is connected reports a run, and then nothing moves in it, as when its share hangs. The Core says so,
// also one that was restarted since, until something moves or the run ends. A run that waits is not stalled.
func TestStalledRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	run, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events[:1])
	beat := func(waits ...wire.Wait) {
		osaka.say(wire.VerbBeat, 0, &wire.Beat{Instance: osaka.instance, At: w.right().UnixMilli(), Waits: waits})
	}
	why := func() string { return w.channel("osaka", "package").Why }
	progress := func(done int64) {
		osaka.say(wire.VerbProgress, 0, &wire.Progress{Run: run[:], Channel: "package", Progress: runs.Progress{Phase: "fetch", BytesDone: done, BytesTotal: 9}})
	}
	progress(1)
	osaka.settled()
	w.ahead.Add(int64(20 * time.Minute))
	beat(wire.Wait{Channel: "package", Why: wire.WhyRate})
	osaka.settled()
	if w.has("stalled") || why() == "stalled" {
		t.Error("a run that waits counts as stalled")
	}
	w.until("the stalled run", func() bool { beat(); return w.has("stalled") && why() == "stalled" })
	osaka.settled()
	progress(2)
	w.until("the end of it", func() bool { return !w.has("stalled") && why() != "stalled" })

	w.restart()
	osaka.back()
	osaka.hello()
	w.upkeep()
	w.ahead.Add(int64(20 * time.Minute))
	w.until("the stalled run, after a restart of the Core", func() bool { beat(); return w.has("stalled") })
	osaka.deliver(events[1:])
	progress(2) // it arrives after the end
	w.ahead.Add(int64(20 * time.Minute))
	beat()
	osaka.settled()
	if w.until("the end of it", func() bool { beat(); return !w.has("stalled") }); why() == "stalled" {
		t.Error("a run that has ended is stalled")
	}
}
