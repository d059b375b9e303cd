package core_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// TestAgents runs real agents against a real Core: they enrol, converge, are
// stopped in the middle, follow a change, and are revoked.
func TestAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const files = 300
	for i := range files {
		w.write(fmt.Sprintf("d%02d/file-%d.bin", i%17, i), strings.Repeat(fmt.Sprintf("content %d ", i), 1+i*7))
	}
	names := []string{"berlin", "osaka", "tokyo"}
	stops := map[string]func(){}
	for _, n := range names {
		stops[n] = w.runAgent(n, true)
	}
	w.publish("package")
	w.untilCurrent(1, names...)

	// Everything is in a log once, and the ledger counts the same.
	w.untilRendered()
	w.checkLogs(files)

	// One is stopped while a change comes; it catches up.
	stops["osaka"]()
	for i := range 40 {
		w.write(fmt.Sprintf("d%02d/file-%d.bin", i%17, i), fmt.Sprintf("changed %d", i))
	}
	if err := os.Rename(filepath.Join(w.source, "d16"), filepath.Join(w.source, "moved")); err != nil {
		t.Fatal(err)
	}
	w.publish("package")
	w.untilCurrent(2, "berlin", "tokyo")
	w.restart()
	stops["osaka"] = w.runAgent("osaka", false)
	w.untilCurrent(2, names...)
	w.untilRendered()
	w.checkLogs(files)
	for _, n := range names {
		if b, err := os.ReadFile(filepath.Join(w.dir, "sites", n, "package", "d03", "file-3.bin")); err != nil || string(b) != "changed 3" {
			t.Errorf("%s: %.40q, %v", n, b, err)
		}
	}

	// An order to start is obeyed, dry.
	w.until("all to be connected", func() bool {
		s, err := w.core.Query.Status(t.Context())
		return err == nil && s.Connected == len(names)
	})
	orders, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: fleet.Scope{Site: "tokyo"}, DryRun: true})
	if err != nil || len(orders) != 1 || !orders[0].Connected {
		t.Fatalf("%+v, %v", orders, err)
	}
	w.until("the dry run", func() bool {
		runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "tokyo", Limit: 1})
		return err == nil && len(runs) == 1 && runs[0].DryRun && !runs[0].Finished.IsZero()
	})
	if err := w.core.Enrolment.RevokeSite(t.Context(), "tokyo", "test"); err != nil {
		t.Fatal(err)
	}
	w.untilIncident("denied")
	for _, stop := range stops {
		stop()
	}
}

// runAgent starts a real agent, which it enrols first if join is set, and
// returns what stops it.
func (w *world) runAgent(name string, join bool) func() {
	w.t.Helper()
	state := filepath.Join(w.dir, "agents", name)
	if join {
		allow := filepath.Join(w.dir, "sites", name)
		if err := os.MkdirAll(allow, 0o755); err != nil {
			w.t.Fatal(err)
		}
		token, err := w.core.Enrolment.Token(w.t.Context(), name, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := agent.Enrol(w.t.Context(), token.Text, agent.EnrolOptions{StateDir: state, Allow: []string{allow}, Version: "test", Now: time.Now}); err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{StateDir: state, Version: "test", Now: time.Now, Retry: 200 * time.Millisecond, AckWait: 2 * time.Second, Spread: 500 * time.Millisecond,
			Log: func(n agent.Note) { w.note(fmt.Sprintf("agent %s: %s %s %v", name, n.Channel, n.Text, n.Err)) }})
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("agent %s: %v", name, err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// untilCurrent waits until sites have proven that they hold a release.
func (w *world) untilCurrent(number trust.ReleaseNumber, names ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("release %d at %v", number, names), func() bool {
		for _, n := range names {
			s, err := w.core.Query.Sites(w.t.Context(), fleet.Scope{Site: n, Channel: "package"})
			if err != nil {
				w.t.Fatal(err)
			}
			if ch := s[0].Channels[0]; ch.Holds != number || ch.State != "current" {
				return false
			}
		}
		return true
	})
}

func (w *world) untilRendered() {
	w.t.Helper()
	w.until("all logs", func() bool {
		runs, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range runs {
			if !r.Finished.IsZero() && r.Rendered.IsZero() {
				return false
			}
		}
		return true
	})
}

// checkLogs: each file of a release has exactly one outcome in each run, and the
// log counts what the ledger does.
func (w *world) checkLogs(files int) {
	w.t.Helper()
	list, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{})
	if err != nil {
		w.t.Fatal(err)
	}
	checked := 0
	for _, r := range list {
		if r.Site == "" || r.State != "verified" {
			continue
		}
		checked++
		seen, counted := map[string]int{}, runs.Counts{}
		ofRelease := 0
		err := w.core.Query.RunShow(w.t.Context(), r.ID.String(), true, func(query.RunDetail) error { return nil }, func(f record.File) error {
			if seen[f.Path]++; seen[f.Path] > 1 {
				w.t.Errorf("run %s: %s has two outcomes", r.ID, f.Path)
			}
			counted.Add(f.Outcome)
			if f.SHA256 != "" {
				ofRelease++
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if ofRelease != files {
			w.t.Errorf("run %s at %s: %d files of the release are accounted for, want %d", r.ID, r.Site, ofRelease, files)
		}
		if counted.Extra = r.Totals.Extra; counted != r.Totals.Counts { // a run names only some of the site's own files
			w.t.Errorf("run %s at %s: the lines say %+v, the ledger counts %+v", r.ID, r.Site, counted, r.Totals.Counts)
		}
	}
	if checked < 3 {
		w.t.Errorf("only %d runs were checked", checked)
	}
}
