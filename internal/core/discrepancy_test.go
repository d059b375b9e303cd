package core_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/query"
	"nightferry/internal/scan"
	"nightferry/internal/window"
)

// random is content that no compression makes smaller.
func random(seed uint64, n int) string {
	r, b := rand.New(rand.NewPCG(seed, 1)), make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// at is where a file of channel package lies at a site.
func (w *world) at(site, name string) string {
	return filepath.Join(w.dir, "sites", site, "package", filepath.FromSlash(name))
}

// flip changes one byte of a file at a site, and neither size nor time.
func (w *world) flip(site, name string) {
	w.t.Helper()
	path := w.at(site, name)
	info, err := os.Stat(path)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, info.Size()/2); err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b, info.Size()/2)
	}
	if cerr := f.Close(); err != nil || cerr != nil {
		w.t.Fatal(err, cerr)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		w.t.Fatal(err)
	}
}

// asPublished reports whether a site's file is the source's.
func (w *world) asPublished(site, name string) bool {
	have, err := os.ReadFile(w.at(site, name))
	want, serr := os.ReadFile(filepath.Join(w.source, filepath.FromSlash(name)))
	return err == nil && serr == nil && string(have) == string(want)
}

// discrepancy returns the newest incident about a site's files, nil: there was
// none.
func (w *world) discrepancy(site string) *query.Incident {
	w.t.Helper()
	list, err := w.core.Query.Incidents(w.t.Context(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range list {
		for _, m := range list[i].Members {
			if list[i].Kind == string(kinds.Discrepancy) && m.Site == site {
				return &list[i]
			}
		}
	}
	return nil
}

// runs lists a site's runs of channel package that were started so, the newest
// first, as far as they have ended.
func (w *world) runs(site, trigger string) (out []ledger.Run) {
	w.t.Helper()
	list, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: site, Channel: "package"})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range list {
		if r.Trigger == trigger && !r.Finished.IsZero() {
			out = append(out, r)
		}
	}
	return out
}

// scrubbed makes a world whose sites read every byte that often.
func scrubbed(t *testing.T, every time.Duration, rate int64) *world {
	return newWorldWith(t, nil, func(w *world) {
		for i := range w.settings.Fleet.Sites {
			s := &w.settings.Fleet.Sites[i]
			for j := range s.Placements {
				p := &s.Placements[j]
				p.Scrub, p.ScrubRate, p.ReportOnly = every, rate, s.Name == "osaka"
			}
		}
	})
}

// TestPain15_OneFileChangedAtASite: one byte changed under an unchanged size and
// time is found by the site itself, told with its path, repaired by fetching
// only what is wrong, and closed. Where a site only reports, it stays open until
// somebody orders the repair.
func TestPain15_OneFileChangedAtASite(t *testing.T) {
	t.Parallel()
	w := scrubbed(t, 2*time.Second, 0)
	for i := range 40 {
		w.write(fmt.Sprintf("d%d/f%02d.bin", i%5, i), random(uint64(i), 3000))
	}
	const image = "images/base.wim"
	w.write(image, random(77, 12<<20))
	w.runAgent("tokyo", true)
	w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo", "osaka")

	w.flip("tokyo", image)
	w.until("an incident that names the file, and ends", func() bool {
		i := w.discrepancy("tokyo")
		return i != nil && !i.Resolved.IsZero()
	})
	i := w.discrepancy("tokyo")
	if !strings.Contains(i.Text, image+" (hash: ") || !strings.Contains(i.Text, "1 path is not as release 1 says") {
		t.Errorf("the incident says %q", i.Text)
	}
	if !w.asPublished("tokyo", image) {
		t.Error("the file is not repaired")
	}
	repaired := false
	for _, r := range w.runs("tokyo", "scrub") {
		if r.Totals.Repaired == 1 {
			repaired = true
			if r.State != "verified" || r.Totals.Fetched == 0 || r.Totals.Fetched >= 1<<20 {
				t.Errorf("the repair ended %s and fetched %d bytes", r.State, r.Totals.Fetched)
			}
		}
	}
	if !repaired {
		t.Error("no run of a scrub has repaired it")
	}

	// The other one reports, and changes nothing.
	w.flip("osaka", image)
	if err := os.Remove(w.at("osaka", "d3/f03.bin")); err != nil {
		t.Fatal(err)
	}
	w.until("osaka to tell of both", func() bool {
		for _, r := range w.runs("osaka", "scrub") {
			if r.State == "different" && r.Totals.Differs == 2 {
				return true
			}
		}
		return false
	})
	w.until("its incident", func() bool { i := w.discrepancy("osaka"); return i != nil && i.Resolved.IsZero() })
	if w.asPublished("osaka", image) || w.asPublished("osaka", "d3/f03.bin") {
		t.Error("it was repaired, although nobody has ordered that")
	}
	if s := w.channel("osaka", "package"); s.State != "different" || s.Holds != 1 {
		t.Errorf("what is known to differ counts as %s", s.State)
	}
	verify := func(r core.VerifyRequest) ledger.Run {
		t.Helper()
		r.Scope = fleet.Scope{Site: "osaka", Channel: "package"}
		before := len(w.runs("osaka", "verify"))
		if _, err := w.core.Orders.Verify(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		w.until("the check", func() bool { return len(w.runs("osaka", "verify")) > before })
		return w.runs("osaka", "verify")[0]
	}
	// What was found is not forgotten by a look at names, sizes and times.
	if r := verify(core.VerifyRequest{}); r.State != "different" || r.Totals.Differs != 2 {
		t.Errorf("a quick check: %s, %+v", r.State, r.Totals)
	}
	if i := w.discrepancy("osaka"); !i.Resolved.IsZero() || !slices.ContainsFunc(i.Members, func(m ledger.Member) bool {
		return m.Site == "osaka" && strings.Contains(m.Text, "d3/f03.bin (missing: ")
	}) {
		t.Errorf("%+v", i)
	}
	if r := verify(core.VerifyRequest{Repair: true}); r.State != "verified" || r.Totals.Repaired != 2 || r.Totals.Fetched >= 1<<20 {
		t.Errorf("the repair: %s, %+v, %s", r.State, r.Totals, r.Cause)
	}
	w.until("its end", func() bool { return !w.discrepancy("osaka").Resolved.IsZero() })
	if !w.asPublished("osaka", image) || !w.asPublished("osaka", "d3/f03.bin") {
		t.Error("it is not repaired")
	}
	if r := verify(core.VerifyRequest{Full: true}); r.State != "verified" || r.Totals.Unchanged < 41 {
		t.Errorf("a full check of what is right: %s, %+v, %s", r.State, r.Totals, r.Cause)
	}
	if len(w.texts(string(kinds.Discrepancy))) != 0 {
		t.Error("a discrepancy is open")
	}
	// A folder that is gone with all that was known of it.
	before := w.discrepancy("tokyo").ID
	if err := os.Rename(filepath.Dir(w.at("tokyo", ".nightferry")), filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Fatal(err)
	}
	w.untilIncident("target-emptied") // it is filled anew only by an order
	w.until("tokyo to be unproven", func() bool { return w.channel("tokyo", "package").State == "unproven" })
	if s := w.channel("tokyo", "package"); !s.Verified.IsZero() || s.Why != "target emptied" {
		t.Errorf("a site without its target: %+v", s)
	}
	places, err := w.core.Query.Where(t.Context(), "package", image)
	if n := slices.IndexFunc(places, func(p query.Place) bool { return p.Site == "tokyo" }); err != nil || n < 0 ||
		places[n].State != "unproven" || places[n].Current || !places[n].Verified.IsZero() || places[n].Cause == "" {
		t.Errorf("a file of a target that is gone: %+v, %v", places, err)
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "tokyo"}, Adopt: true}); err != nil {
		t.Fatal(err)
	}
	w.untilOver("target-emptied")
	if i := w.discrepancy("tokyo"); i.ID != before || !w.asPublished("tokyo", image) {
		t.Errorf("the ordered change is reported as %q", i.Text)
	}
}

// checks reads what a site keeps of its checks.
func (w *world) checks(site string) (c struct {
	Began, Done int64
	Cursor      string
}) {
	b, err := os.ReadFile(w.at(site, ".nightferry/checks.json"))
	if err == nil {
		_ = json.Unmarshal(b, &c) // half a file is none
	}
	return c
}

// TestScrubGoesOn: a scrub that is stopped, or that a new release comes into,
// goes on where it was, with the Core away, and reads nothing twice but what
// was under way.
func TestScrubGoesOn(t *testing.T) {
	t.Parallel()
	const files, size = 120, 20 << 10
	w := scrubbed(t, 3*time.Second, 200<<10) // a pass takes 10 s
	for i := range files {
		w.write(fmt.Sprintf("d%02d/f%03d.bin", i%7, i), random(uint64(i), size))
	}
	stop := w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")
	w.until("a scrub that is some way", func() bool { return w.checks("tokyo").Began > 0 })
	w.write("d03/new.bin", "a new one")
	w.publish("package") // in the middle of it
	w.untilCurrent(2, "tokyo")
	c := w.checks("tokyo")
	if c.Began == 0 || c.Cursor == "" {
		t.Fatalf("the release has ended the pass: %+v", c)
	}
	w.until("it to go on", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(w.log.String(), fmt.Sprintf("the scrub continues after %q", c.Cursor))
	})
	stop()
	first := w.checks("tokyo")
	if first.Began != c.Began || first.Cursor < c.Cursor {
		t.Fatalf("from %+v to %+v", c, first)
	}
	w.stop() // the Core
	w.mu.Lock()
	w.log.Reset()
	w.mu.Unlock()
	stop = w.runAgent("tokyo", false)
	w.until("the pass to end", func() bool { n := w.checks("tokyo"); return n.Done == first.Began })
	stop()
	w.mu.Lock()
	log := w.log.String()
	w.mu.Unlock()
	if !strings.Contains(log, fmt.Sprintf("the scrub continues after %q", first.Cursor)) {
		t.Errorf("it did not go on after %q:\n%s", first.Cursor, log)
	}
	left := 0
	for i := range files {
		if fmt.Sprintf("d%02d/f%03d.bin", i%7, i) > first.Cursor {
			left++
		}
	}
	// What the second process read is what the first had not.
	if m := regexp.MustCompile(`the scrub has read (\d+) files`).FindStringSubmatch(log); m == nil || m[1] != strconv.Itoa(left) && m[1] != strconv.Itoa(left+1) {
		t.Errorf("%d files were left, and it read %q", left, m)
	}
	w.start()
	w.runAgent("tokyo", false)
	w.until("the run that tells of it", func() bool { return len(w.runs("tokyo", "scrub")) > 0 })
	if r := w.runs("tokyo", "scrub"); r[0].State != "verified" {
		t.Errorf("%+v", r[0])
	}
}

// TestScrubObeysHalts: a scrub reads nothing more once it is told to stop, and
// goes on when the order is lifted.
func TestScrubObeysHalts(t *testing.T) {
	t.Parallel()
	const files, size = 120, 20 << 10
	w := scrubbed(t, 3*time.Second, 300<<10) // a pass takes 8 s
	for i := range files {
		w.write(fmt.Sprintf("f%03d.bin", i), random(uint64(i), size))
	}
	w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")
	// Its place is durable while it reads: what a kill loses is seconds.
	w.until("a scrub that is some way", func() bool { c := w.checks("tokyo"); return c.Began > 0 && c.Cursor != "" })
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: "site", Value: "tokyo", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w.until("the site to confirm", func() bool {
		list, err := w.core.Halts.List(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return len(list) == 1 && len(list[0].Sites) == 1 && !list[0].Sites[0].Stopped.IsZero()
	})
	reading := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		log := w.log.String()
		return strings.Count(log, "the scrub continues after")+strings.Count(log, "a scrub begins") > strings.Count(log, "the scrub has read")
	}
	stopped := w.checks("tokyo")
	if stopped.Began == 0 {
		t.Fatal("the pass was over before the order")
	}
	if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "tokyo"}, Full: true}); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Second) // in which a scrub reads fifteen files
	w.until("some time to pass", func() bool { return time.Now().After(end) })
	if now := w.checks("tokyo"); now != stopped || reading() || len(w.runs("tokyo", "verify")) > 0 {
		t.Errorf("the scrub went on from %+v to %+v", stopped, now)
	}
	if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	w.until("both to be done", func() bool { return len(w.runs("tokyo", "verify")) > 0 && w.checks("tokyo").Done >= stopped.Began })
}

// TestStale: a site that still lacks a release when it should have it is an
// incident, until it has it.
func TestStale(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a", "alpha")
	stop := w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")
	stop()
	w.write("a", "beta")
	w.publish("package")
	w.ahead.Store(int64(25 * time.Hour))
	if text := w.untilIncident(string(kinds.Stale)); !strings.Contains(text, "it holds release 1, not release 2") {
		t.Errorf("%q", text)
	}
	w.ahead.Store(0)
	w.runAgent("tokyo", false)
	w.untilCurrent(2, "tokyo")
	w.until("its end", func() bool { return len(w.texts(string(kinds.Stale))) == 0 })
}

// TestOverdue: a release is late after the first window that began when it was
// there, and after a day in one that is open for longer.
func TestOverdue(t *testing.T) {
	at := func(day, hour int) time.Time { return time.Date(2026, 3, day, hour, 0, 0, 0, time.UTC) } // the 2nd is a Monday
	for _, x := range []struct {
		rule       string
		since, now time.Time
		want       string
	}{
		{"20:00-06:00", at(3, 12), at(4, 5), ""},
		{"20:00-06:00", at(3, 12), at(4, 7), "has closed at 2026-03-04 06:00 UTC"},
		{"20:00-06:00", at(3, 22), at(4, 7), ""}, // it came in the middle
		{"all", at(4, 12), at(5, 11), ""},
		{"all", at(4, 12), at(5, 13), "has been open since 2026-03-02 00:00 UTC"},
		{"all", at(8, 12), at(9, 13), ""}, // cut on Monday
		{"all", at(8, 12), at(10, 1), "has been open since 2026-03-09 00:00 UTC"},
		{"fri 20:00-06:00, sat-sun all", at(4, 12), at(7, 19), ""},
		{"fri 20:00-06:00, sat-sun all", at(4, 12), at(8, 7), "has been open since 2026-03-06 20:00 UTC"},
		{"never", at(2, 12), at(20, 12), ""},
	} {
		rule, err := window.ParseRule(x.rule)
		if err != nil {
			t.Fatal(err)
		}
		got, late := core.WindowOverdue(x.now, x.since, 10*time.Minute, window.Place{Zone: time.UTC}, rule)
		if got != x.want || late != (x.want != "") {
			t.Errorf("%s, published %v, at %v: %q, want %q", x.rule, x.since, x.now, got, x.want)
		}
	}
}

// TestForgedRecordIsNoProof: who changes a file and the site's own record of it
// does not pass a check.
func TestForgedRecordIsNoProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a", "alpha")
	w.write("b", "beta")
	w.runAgent("tokyo", true)
	w.publish("package")
	w.untilCurrent(1, "tokyo")
	w.flip("tokyo", "b")
	forged, err := os.ReadFile(w.at("tokyo", "b"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := durable.Open(filepath.Dir(w.at("tokyo", "b")), durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := scan.OpenCatalogue(root, ".nightferry/catalogue")
	if err != nil {
		t.Fatal(err)
	}
	h := old.Header()
	out, err := scan.CreateCatalogue(root, ".nightferry/catalogue")
	for err == nil {
		var rec *scan.Record
		if rec, err = old.Next(); err != nil {
			break
		}
		var e *manifest.Entry
		if e, err = rec.Entry(); err != nil {
			break
		}
		if e.Path == "b" {
			e.Digest = digest.Of(forged)
		}
		err = out.Add(scan.NewRecord(e, rec.Stat, rec.Checked))
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := errors.Join(old.Close(), out.Commit(h), root.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "tokyo"}, Full: true}); err != nil {
		t.Fatal(err)
	}
	w.until("the check", func() bool { return len(w.runs("tokyo", "verify")) > 0 })
	if r := w.runs("tokyo", "verify")[0]; r.State != "different" || !strings.Contains(r.Cause, "is not that of release 1") {
		t.Errorf("%s: %s", r.State, r.Cause)
	}
	if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: fleet.Scope{Site: "tokyo"}, Full: true, Repair: true}); err != nil {
		t.Fatal(err)
	}
	w.until("the repair", func() bool { return len(w.runs("tokyo", "verify")) > 1 })
	if r := w.runs("tokyo", "verify")[0]; r.State != "verified" || !w.asPublished("tokyo", "b") {
		t.Errorf("%s: %s", r.State, r.Cause)
	}
}
