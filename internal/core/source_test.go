package core_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/trust"
)

// afterPublish makes do happen between a publish of the Core and the measurement
// of its source.
func afterPublish(do *func()) func(*world) {
	return func(w *world) {
		w.options.OnEvent = func(e core.Event) {
			if e.Kind == core.RunEnded && e.Site == "" && e.Ended.Trigger == "publish" && *do != nil {
				(*do)()
			}
			w.hear(e)
		}
	}
}

// keepStat changes a file of the source and gives it its old time back.
func (w *world) keepStat(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.source, filepath.FromSlash(name))
	st, err := os.Stat(path)
	if err == nil {
		err = errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime()))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// measures lists the runs that measured a source, the newest first.
func (w *world) measures() (out []ledger.Run) {
	w.t.Helper()
	runs, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Core: true})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range runs {
		if r.Trigger == "measure" {
			out = append(out, r)
		}
	}
	return out
}

// untilMeasured waits until the newest release of a channel is measured, and
// returns what was found.
func (w *world) untilMeasured(channel string, number trust.ReleaseNumber) (m ledger.Measurement) {
	w.t.Helper()
	w.until(fmt.Sprintf("release %d to be measured", number), func() bool {
		s, err := w.core.Query.Status(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, m = range s.Measured {
			if m.Channel == channel && m.Number == number {
				run, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Core: true, Open: true})
				return err == nil && len(run) == 0
			}
		}
		return false
	})
	return m
}

// TestSourceIsMeasured: each release is measured once, also over a restart; what
// people edit meanwhile is no incident, and there is a log of it.
func TestSourceIsMeasured(t *testing.T) {
	t.Parallel()
	for name, key := range map[string][]byte{"plain": nil, "encrypted": bytes.Repeat([]byte{7}, 32)} {
		t.Run(name, func(t *testing.T) { measuredOnce(t, key) })
	}
}

func measuredOnce(t *testing.T, key []byte) {
	var edit func()
	w := newWorldWith(t, key, afterPublish(&edit))
	w.write("a.sys", "alpha")
	w.write("net/b.inf", "beta")
	w.write("net/c.cat", "gamma")
	osaka := w.join("osaka")
	p := w.publish("package")
	m := w.untilMeasured("package", 1)
	if m.Tree != p.Tree || m.Files != 3 || m.Bytes != p.Bytes || m.Same != 4 || m.Moved+m.Damaged+m.Unreadable != 0 || m.SourceFiles != 3 {
		t.Errorf("%+v", m)
	}
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	if ch := w.channel("osaka", "package"); ch.State != "current" || ch.Measured == nil || ch.Measured.Run != m.Run {
		t.Errorf("%+v", ch)
	}
	w.publish("package") // nothing new, nothing to be measured
	w.restart()
	osaka.back()

	edit = func() {
		w.write("a.sys", "edited since")
		w.write("new", "new")
		w.remove("net/c.cat")
	}
	w.write("net/b.inf", "second")
	p = w.publish("package")
	m = w.untilMeasured("package", 2)
	if m.Moved != 3 || m.Same != 2 || m.Damaged+m.Unreadable != 0 || m.Tree != p.Tree || m.Files != 3 {
		t.Errorf("%+v", m)
	}
	runs := w.measures()
	if len(runs) != 2 || runs[0].State != "moved-on" || runs[1].State != "same" || runs[1].Number != 1 {
		t.Fatalf("%+v", runs)
	}
	w.untilRendered()
	var lines []string
	err := w.core.Query.RunShow(t.Context(), runs[0].ID.String(), false, func(d query.RunDetail) error {
		if !strings.HasPrefix(d.Log, "core/package/") {
			t.Errorf("its log is %q", d.Log)
		}
		return nil
	}, func(f record.File) error {
		lines = append(lines, string(f.Outcome)+" "+f.Path)
		return nil
	})
	if got := strings.Join(lines, ", "); err != nil || got != "changed a.sys, removed net/c.cat, added new" {
		t.Errorf("%s: %v", got, err)
	}
	// A site that holds what was published is right, whatever became of the source.
	_, events = osaka.converge(osaka.stateOf("package", 2))
	osaka.deliver(events)
	if ch := w.channel("osaka", "package"); ch.State != "current" || ch.Measured == nil || ch.Measured.Moved != 3 || ch.Measured.New != 1 || ch.Measured.Changed != 1 || ch.Measured.Gone != 1 {
		t.Errorf("%+v", ch)
	}
	for _, kind := range []kinds.Kind{kinds.SourceDamage, kinds.Unmeasured, kinds.BadProof} {
		if w.has(string(kind)) {
			t.Errorf("%s: %q", kind, w.texts(string(kind)))
		}
	}
}

// TestDamagedSource: bytes that changed under an unchanged size and time are an
// incident that names the file, until it is whole again. Sites are not blamed.
func TestDamagedSource(t *testing.T) {
	var edit func()
	w := newWorldWith(t, nil, afterPublish(&edit))
	w.write("net/b.inf", "beta beta")
	w.write("a.sys", "alpha")
	osaka := w.join("osaka")
	edit = func() { w.keepStat("net/b.inf", "beta!beta") }
	w.publish("package")
	text := w.untilIncident(string(kinds.SourceDamage))
	m := w.untilMeasured("package", 1)
	if !strings.Contains(text, "net/b.inf") || !strings.Contains(text, "1 file has") || strings.Contains(text, "a.sys") || m.Damaged != 1 || m.Moved != 0 {
		t.Errorf("%q, %+v", text, m)
	}
	if runs := w.measures(); len(runs) != 1 || runs[0].State != "damaged" || runs[0].Totals.Differs != 1 {
		t.Errorf("%+v", runs)
	}
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	if ch := w.channel("osaka", "package"); ch.State != "current" || w.has(string(kinds.BadProof)) {
		t.Errorf("%+v, %q", ch, w.texts(string(kinds.BadProof)))
	}
	w.restart() // still open, and not measured again for that
	osaka.back()
	if !w.has(string(kinds.SourceDamage)) || len(w.measures()) != 1 {
		t.Errorf("after a restart: %q, %d measurements", w.texts(string(kinds.SourceDamage)), len(w.measures()))
	}
	edit = nil
	w.keepStat("net/b.inf", "beta beta")
	w.publish("package") // finds nothing new
	w.untilOver(string(kinds.SourceDamage))
	if m := w.untilMeasured("package", 1); m.Damaged != 0 || m.Same != 3 {
		t.Errorf("%+v", m)
	}
}

// TestContradicted: a site whose statement is not what the Core itself has
// measured is not verified, whichever of the two came first.
func TestContradicted(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.sys", "alpha")
	w.write("b.sys", "beta")
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	w.publish("package")
	m := w.untilMeasured("package", 1)
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)

	// It came before: the holding is compared when the measurement is there.
	bad := m
	bad.Files, bad.Bytes = 3, m.Bytes+7
	if err := w.core.CompareWith(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	text := w.untilIncident(string(kinds.BadProof))
	if !strings.Contains(text, "2 files, 9 bytes") || !strings.Contains(text, "measured 3, 16") || !strings.Contains(text, "osaka") {
		t.Errorf("%q", text)
	}
	if ch := w.channel("osaka", "package"); ch.State != "contradicted" {
		t.Errorf("%+v", ch)
	}
	// It comes after: it is refused.
	run, events := tokyo.converge(tokyo.stateOf("package", 1))
	tokyo.deliver(events)
	if r, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "tokyo"}); err != nil || len(r) != 1 || r[0].ID != run || r[0].State != "failed" || !strings.Contains(r[0].Cause, "measured 3, 16") {
		t.Errorf("%+v, %v", r, err)
	}
	if ch := w.channel("tokyo", "package"); ch.Holds != 0 {
		t.Errorf("%+v", ch)
	}
	if err := w.core.CompareWith(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	_, events = tokyo.converge(tokyo.stateOf("package", 1))
	tokyo.deliver(events)
	w.untilOver(string(kinds.BadProof))
	for _, site := range []string{"osaka", "tokyo"} {
		if ch := w.channel(site, "package"); ch.State != "current" {
			t.Errorf("%s: %+v", site, ch)
		}
	}
}

// TestMeasuringObeys: a halt stops a measurement, and so does the Core's end;
// it is begun anew, and once.
func TestMeasuringObeys(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, func(w *world) {
		for i := range w.settings.Fleet.Channels {
			w.settings.Fleet.Channels[i].MeasureRate = 256 << 10
		}
	})
	w.noise("big", 4<<20, 1) // 16 s at that rate
	w.publish("package")
	underWay := func() bool {
		r := w.measures()
		return len(r) > 0 && r[0].Finished.IsZero()
	}
	w.until("a measurement", underWay)
	order, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.Channel, Value: "package", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("its stop", func() bool { return !underWay() })
	if r := w.measures()[0]; r.State != "stopped" || r.Totals.Held >= 4<<20 {
		t.Errorf("%+v", r)
	}
	// While it is in force others are measured, and this one is not.
	for n, text := range []string{"one", "two"} {
		if err := errors.Join(os.MkdirAll(w.source+"-driver", 0o755), os.WriteFile(filepath.Join(w.source+"-driver", "a"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		w.publish("driver")
		w.untilMeasured("driver", trust.ReleaseNumber(n+1))
	}
	if n := len(w.measures()); n != 3 {
		t.Errorf("%d measurements, want one that was stopped and two of driver", n)
	}
	if _, err := w.core.Halts.Resume(t.Context(), order.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.until("another measurement", underWay)
	w.stop()
	for i := range w.settings.Fleet.Channels {
		w.settings.Fleet.Channels[i].MeasureRate = 0
	}
	w.start()
	m := w.untilMeasured("package", 1)
	if m.Same != 1 || len(w.measures()) != 5 || w.has(string(kinds.Unmeasured)) {
		t.Errorf("%+v, %d measurements, %q", m, len(w.measures()), w.texts(string(kinds.Unmeasured)))
	}
}

// TestUnmeasured: a source that is not there is an incident, over with its
// return.
func TestUnmeasured(t *testing.T) {
	var edit func()
	w := newWorldWith(t, nil, afterPublish(&edit))
	w.write("a.sys", "alpha")
	away := w.source + ".away"
	edit = func() {
		if err := os.Rename(w.source, away); err != nil {
			t.Error(err)
		}
	}
	w.publish("package")
	text := w.untilIncident(string(kinds.Unmeasured))
	if !strings.Contains(text, "is it mounted") {
		t.Errorf("%q", text)
	}
	if err := os.Rename(away, w.source); err != nil {
		t.Fatal(err)
	}
	w.restart() // else it waits a quarter of an hour
	w.untilOver(string(kinds.Unmeasured))
	if s, err := w.core.Query.Sites(t.Context(), fleet.Scope{}); err != nil || len(s) != 3 {
		t.Errorf("%v, %v", s, err)
	}
}
