package core_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestMessagesThatDoNotParse: a site's own key signs nonsense under each of its
// verbs. It is refused, named and recorded, nothing of it is kept, and the
// site is heard again as soon as it makes sense.
func TestMessagesThatDoNotParse(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	osaka.stateOf("package", 1)
	_, before := osaka.hello()

	// A zstd frame whose blocks of four bytes are 128 KiB of zeros each.
	const block = 128 << 10
	bomb := []byte{1, 0x28, 0xb5, 0x2f, 0xfd, 0, 0x38}
	for n := 0; n <= wire.MaxInflated; n += block {
		bomb = append(bomb, 0x02, 0x00, 0x10, 0)
	}
	bomb[len(bomb)-4] |= 1 // the last
	nested := append([]byte{0}, bytes.Repeat([]byte{0x81}, 10_000)...)
	kinds := map[string]string{wire.VerbHello: "helo", wire.VerbBeat: "beat", wire.VerbProgress: "prog", wire.VerbReport: "rept",
		wire.VerbAsk: "asku", wire.VerbRenew: "renw", wire.VerbStopped: "stpd"}
	for verb, kind := range kinds { // audited once a minute, so that a flood does not fill the ledger
		for name, payload := range map[string][]byte{
			"nothing": {}, "no such form": {7}, "an empty list": {0, 0x80}, "a text": {0, 0x61, 'x'}, "a map": {0, 0xa0}, "a broken frame": {1, 2, 3},
			"a bomb": bomb, "nested without end": nested, "a list without its end": {0, 0x9f, 0x01},
		} {
			b, err := trust.Sign(osaka.key, trust.Subject{Kind: kind, Version: wire.Version, Repo: osaka.token.Repo, Scope: osaka.at.String()}, payload)
			if err != nil {
				t.Fatal(err)
			}
			osaka.raw(verb, b)
			var no wire.Refusal
			if err := osaka.answer(wire.VerbRefuse, &no); err != nil || no.Of != verb || no.Why == "" {
				t.Errorf("%s of %s: %+v, %v", name, verb, no, err)
			}
		}
	}
	if text := w.untilIncident("malformed"); !strings.Contains(text, "osaka") {
		t.Error(text)
	}

	// Good to look at, and nonsense within: an event that is none.
	beyond, err := wire.Encode(&wire.Started{Number: 1 << 63})
	if err != nil {
		t.Fatal(err)
	}
	parent, err := wire.Encode(&wire.Started{Number: 1, Parent: 1 << 63})
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]wire.Event{
		"an unknown kind":         {Run: make([]byte, 16), Channel: "package", At: 1, Kind: 99, Body: []byte{0x80}},
		"a body that is none":     {Run: make([]byte, 16), Channel: "package", At: 1, Kind: wire.StartedEvent, Body: []byte{0xff}},
		"a run's id of one byte":  {Run: []byte{1}, Channel: "package", At: 1, Kind: wire.StartedEvent, Body: []byte{0x80}},
		"a number beyond all":     {Run: append(make([]byte, 15), 1), Channel: "package", At: 1, Kind: wire.StartedEvent, Body: beyond},
		"a parent beyond all":     {Run: append(make([]byte, 15), 1), Channel: "package", At: 1, Kind: wire.StartedEvent, Body: parent},
		"outcomes that are noise": {Run: make([]byte, 16), Channel: "package", At: 1, Kind: wire.OutcomesEvent, Body: []byte("noise")},
	} {
		osaka.deliver([]wire.Event{e}) // it is acknowledged, or the site would send it for ever
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs {
			if r.State == "verified" {
				t.Errorf("%s: it made a run %+v", name, r)
			}
		}
	}
	if s, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"}); err != nil || s[0].Channels[0].Holds != 0 {
		t.Errorf("%+v, %v", s, err)
	}

	st, after := osaka.hello()
	if after < before || len(st.Desired) != 1 {
		t.Errorf("revision %d after %d, %+v", after, before, st.Desired)
	}
	_, events := osaka.converge(osaka.stateOf("package", 1))
	for i := range events {
		events[i].At = 1 << 48 // the year 10889: its log has a folder all the same
	}
	osaka.deliver(events)
	w.untilRendered()
	if got := append(w.texts("log"), w.texts("ledger")...); len(got) > 0 {
		t.Errorf("one site's nonsense is an incident of the Core: %q", got)
	}
	w.until("osaka to be current", func() bool { return w.channel("osaka", "package").Holds == 1 })
}

// TestReportsAreBounded: a few bytes that name much, or what the Core would have
// to look for, cost it little.
func TestReportsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	var looked atomic.Int64
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/releases/77") {
				looked.Add(1)
			}
			next.ServeHTTP(rw, r)
		})
	})
	for i := range 600 { // some pages
		w.write(fmt.Sprintf("%d/%03d-%s", i%3, i, strings.Repeat("x", 200)), fmt.Sprint(i))
	}
	osaka := w.join("osaka")
	w.publish("package")
	d := osaka.stateOf("package", 1)
	failed := make([]wire.File, wire.MaxOutcomes)
	for i := range failed {
		failed[i] = wire.File{Outcome: runs.FileFailed, Ordinal: uint64(i % 600)}
	}
	run := osaka.events(ledger.RunID{7}, d, failed, &wire.Finished{Verdict: "failed"}, nil)

	var many []wire.Event
	for range wire.MaxReported/wire.MaxOutcomes + 1 {
		many = append(many, run[1])
	}
	_, _, err := osaka.report(osaka.next, many)
	mustRefuse(t, err, "forged")
	_, _, err = osaka.report(osaka.next, make([]wire.Event, wire.MaxEvents+1))
	mustRefuse(t, err, "forged")

	// A release that nobody has published is looked for once.
	d.Number = 77
	unknown := osaka.events(ledger.RunID{8}, d, failed, &wire.Finished{Verdict: "failed"}, nil)
	osaka.deliver(unknown)
	if n := looked.Load(); n != 1 {
		t.Errorf("for one report, a release was looked for %d times", n)
	}

	// What is good is named, each page read once, and all of it taken.
	osaka.deliver(append(run[:1:1], many[1:]...))
	found, err := w.core.Exceptions(t.Context(), ledger.RunID{7})
	reported := int64(0)
	for _, x := range found {
		reported += x.Count
	}
	if err != nil || len(found) != 600 || reported != wire.MaxReported || strings.HasPrefix(found[0].Path, "entry") {
		t.Errorf("%d outcomes of %d files were kept, %v", reported, len(found), err)
	}
	var order []uint64
	for i := range uint64(600) {
		order = append(order, i)
	}
	pages, err := w.core.PagesRead(t.Context(), "package", 1, osaka.stateOf("package", 1).Release, order)
	if err != nil || pages < 2 || pages > 10 {
		t.Errorf("%d pages were read for 600 names: %v", pages, err)
	}
	order = order[:0]
	for range 2000 { // whoever wants it to be as hard as can be
		order = append(order, 0, 599)
	}
	if pages, err = w.core.PagesRead(t.Context(), "package", 1, osaka.stateOf("package", 1).Release, order); err == nil || pages > 1025 {
		t.Errorf("%d pages were read for one report: %v", pages, err)
	}
}

// TestLentUntilTheCredentialEnds: what is lent is said to be good for as long as
// the credential that has signed it, and for the next one's time when it was
// renewed.
func TestLentUntilTheCredentialEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	osaka.stateOf("package", 1)
	u, err := osaka.ask("format")
	if err != nil || time.Until(time.Unix(u.Until, 0)) < 12*time.Hour {
		t.Fatalf("by a key without an end: %v, %v", time.Unix(u.Until, 0), err)
	}

	w.stop()
	lease := w.bucket.Lease(t, time.Now().Add(20*time.Minute))
	w.options.Env = func(name string) string { return map[string]string{"AWS_PROFILE": "the machine's role"}[name] } // comes before the vault
	w.start()
	osaka.back()
	osaka.stateOf("package", 1)
	lent := func() {
		t.Helper()
		u, err := osaka.ask("format", "channels/package/head")
		until, end := time.Unix(u.Until, 0), lease.End()
		if err != nil || len(u.Lent) != 3 || until.After(end) || until.Before(end.Add(-5*time.Minute)) {
			t.Errorf("lent until %s, the credential ends %s: %v", until, end, err)
		}
	}
	lent()
	lease.Renew(time.Now().Add(6 * time.Hour))
	if err := w.core.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	lent()
}
