package core_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/wire"
)

// TestFleet goes the whole way: token, enrolment, publish, convergence through
// lent URLs, outcomes in the log, a change, a restart in between, revocation.
func TestFleet(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		name := "plain"
		var key []byte
		if encrypted {
			name, key = "encrypted", bytes.Repeat([]byte{7}, 32)
		}
		t.Run(name, func(t *testing.T) { wholeWay(t, key) })
	}
}

func wholeWay(t *testing.T, key []byte) {
	w := newWorld(t, key)
	w.write("a.txt", "alpha")
	w.write("sub/b.bin", strings.Repeat("beta ", 50_000))
	w.write("sub/c.txt", "gamma")
	osaka := w.join("osaka")
	p := w.publish("package")
	if p.Number != 1 || p.Files != 3 || p.Sites != 3 {
		t.Fatalf("published %+v", p)
	}
	d := osaka.stateOf("package", 1)
	run, events := osaka.converge(d)
	osaka.deliver(events)
	// The same again, as after a lost acknowledgement, doubles nothing.
	if n, _, err := osaka.report(1, events); err != nil || n != uint64(len(events)) {
		t.Fatalf("acknowledged %d, %v", n, err)
	}
	checkRun(t, w, run, 3)
	if b, err := os.ReadFile(filepath.FromSlash(d.Target) + "/sub/c.txt"); err != nil || string(b) != "gamma" {
		t.Fatalf("%q, %v", b, err)
	}

	// A change, published by other means, reaches the site; the Core is another process by then.
	w.write("sub/c.txt", "delta")
	w.write("sub/new.txt", "epsilon")
	if err := os.Remove(filepath.Join(w.source, "a.txt")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	osaka.back()
	w.publish("package")
	d = osaka.stateOf("package", 2)
	run, events = osaka.converge(d)
	osaka.deliver(events[:1])
	w.restart() // in the middle of a report
	osaka.back()
	osaka.stateOf("package", 2)
	osaka.deliver(events[1:])
	checkRun(t, w, run, 3)
	places, err := w.core.Query.Where(t.Context(), "package", "sub/c.txt")
	if err != nil || len(places) != 3 || !places[1].Current || places[1].Site != "osaka" || places[1].Verified.IsZero() || places[0].Present {
		t.Fatalf("%+v, %v", places, err)
	}
	osaka.hello() // it has been heard of late
	sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
	if err != nil || len(sites) != 1 || sites[0].Channels[0].State != "current" || !sites[0].Connected {
		t.Fatalf("%+v, %v", sites, err)
	}

	// An order to start now is a newer state, with a nonce of its own.
	orders, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Region: "ap"}, Rehash: true})
	if err != nil || len(orders) != 2 || orders[0].Start == 0 {
		t.Fatalf("%+v, %v", orders, err)
	}
	var again wire.Desired
	w.until("the state with the order", func() bool { // states that were sent before it may come first
		again = osaka.stateOf("package", 2)
		return again.Start == orders[0].Start
	})
	if !again.Rehash || bytes.Equal(again.Nonce, d.Nonce) {
		t.Fatalf("%+v", again)
	}

	// Revoked: cut at once, and not welcome again.
	osaka.connected()
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "stolen"); err != nil {
		t.Fatal(err)
	}
	osaka.mustBeCut()
	w.checkSecrets(osaka)
}

// checkRun compares a run in the ledger, its log file and all its files.
func checkRun(t *testing.T, w *world, id ledger.RunID, files int) {
	t.Helper()
	var run ledger.Run
	w.until("the log of run "+id.String(), func() bool {
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.ID == id && !r.Rendered.IsZero() {
				run = r
				return true
			}
		}
		return false
	})
	if run.State != "verified" || run.Attestation.IsZero() || run.Late != 0 {
		t.Fatalf("%+v", run)
	}
	logs := w.logs()
	log := ""
	for name, text := range logs {
		if strings.HasSuffix(name, id.String()+".jsonl") {
			log = text
		}
	}
	acted := run.Totals.Added + run.Totals.Changed + run.Totals.Deleted + run.Totals.Moved + run.Totals.Repaired
	if lines := int64(strings.Count(log, "\n")) - 2; lines != acted {
		t.Fatalf("%d lines of files, the ledger counts %d:\n%s", lines, acted, log)
	}
	seen := map[string]int{}
	count := 0
	if err := w.core.Query.RunShow(t.Context(), id.String()[:12], true, func(query.RunDetail) error { return nil }, func(f record.File) error {
		seen[f.Path]++
		if f.SHA256 != "" {
			count++
		}
		if seen[f.Path] > 1 {
			t.Errorf("%s stands there %d times", f.Path, seen[f.Path])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if count != files {
		t.Fatalf("%d files of the release are accounted for, want %d: %v", count, files, seen)
	}
}

// checkSecrets looks for secrets in all that was written down.
func (w *world) checkSecrets(s *wireSite) {
	w.t.Helper()
	secrets := map[string][]byte{
		"the token's seed": s.token.Seed, "the token's JWT": []byte(s.token.JWT), "the site's JWT": []byte(s.grant.JWT),
		"the release key": w.release.Seed(), "the root key": w.root.Seed(), "the S3 secret": []byte(w.bucket.SecretKey),
		"a URL's signature": []byte("X-Amz-Signature"),
	}
	if w.repoKey != nil {
		secrets["the repository's key"] = w.repoKey
	}
	w.stop()
	texts := map[string]string{"the process's log": w.log.String()}
	for name, text := range w.logs() {
		texts[name] = text
	}
	for _, name := range []string{"ledger.db", "ledger.db-wal"} {
		if b, err := os.ReadFile(filepath.Join(w.options.Data, name)); err == nil {
			texts[name] = string(b)
		}
	}
	for where, text := range texts {
		for what, secret := range secrets {
			for form, b := range map[string][]byte{"raw": secret, "hex": []byte(hexOf(secret)), "base64": []byte(base64Of(secret))} {
				if bytes.Contains([]byte(text), b) {
					w.t.Errorf("%s holds %s (%s)", where, what, form)
				}
			}
		}
	}
	if len(texts) < 4 {
		w.t.Errorf("only %d texts were looked at", len(texts))
	}
}
