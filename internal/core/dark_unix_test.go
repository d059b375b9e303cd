//go:build unix

package core_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/trust"
)

// TestWindowOpensWithTheCoreGone kills a real Core, and restarts the agent,
// between the publication of a release and the window in which a site may take
// it: the site takes it all the same, in its window and not before, and the
// Core learns all of it, once, when it is back.
func TestWindowOpensWithTheCoreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const files, changed = 60, 40 // of 1 MiB: more than a pack
	rng := rand.NewChaCha8([32]byte{4})
	write := func(i int) {
		b := make([]byte, 1<<20)
		if _, err := rng.Read(b); err != nil {
			t.Fatal(err)
		}
		w.write(fmt.Sprintf("d%02d/file-%d.bin", i%7, i), string(b))
	}
	for i := range files {
		write(i)
	}
	stop := w.runAgent("osaka", true)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	w.untilRendered()
	stop()

	// Release 2 comes while the window is closed, and the Core is a process.
	opens := time.Now().UTC().Add(45 * time.Second).Truncate(time.Minute).Add(time.Minute)
	windows := opens.Format("15:04") + "-" + opens.Add(3*time.Hour).Format("15:04")
	w.apart().Site("osaka").Placement("package").Windows = windows
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	for i := range changed {
		write(i)
	}
	w.publish("package")
	w.stop()
	child := w.child()
	child.Windows = windows
	kill := w.startChild(child)
	log, stop := w.nightAgent("osaka", time.Now)
	w.until("what the run needs to be at hand", func() bool { return strings.Contains(log(), "is ready for its window") })
	if strings.Contains(log(), "release 2 begins") {
		t.Fatal("the run began outside its window")
	}
	kill()
	stop()
	if text := log(); strings.Contains(text, "X-Amz-Signature") {
		t.Errorf("a URL was logged: %s", text)
	}
	state := filepath.Join(w.dir, "agents", "osaka")
	for _, name := range []string{"agent.db", "agent.db-wal"} {
		if info, err := os.Stat(filepath.Join(state, name)); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s, which holds URLs, has mode %v", name, info.Mode())
		} else if err != nil && name == "agent.db" {
			t.Error(err)
		}
	}

	// The window opens: by the site's clock, and with nobody there to ask.
	ahead := time.Until(opens) + time.Second
	log, stop = w.nightAgent("osaka", func() time.Time { return time.Now().Add(ahead) })
	defer stop()
	w.until("release 2 at the site", func() bool { return strings.Contains(log(), "release 2: verified") })
	for _, f := range []string{"d00/file-0.bin", "d05/file-12.bin", "d03/file-59.bin"} {
		want, err := os.ReadFile(filepath.Join(w.source, filepath.FromSlash(f)))
		got, err2 := os.ReadFile(filepath.Join(w.dir, "sites", "osaka", "package", filepath.FromSlash(f)))
		if err := errors.Join(err, err2); err != nil || string(got) != string(want) {
			t.Errorf("%s differs, %v", f, err)
		}
	}
	s, err := agent.ReadStatus(t.Context(), state, time.Now)
	if err != nil || s.Spooled == 0 {
		t.Errorf("%d events wait for the Core, %v", s.Spooled, err)
	}

	w.start()
	w.untilCurrent(2, "osaka")
	w.untilRendered()
	w.onlyOnce("osaka", 2, files, changed)
}

// onlyOnce checks that the ledger and the log have one run of a release, with
// one outcome of each file.
func (w *world) onlyOnce(site string, number trust.ReleaseNumber, files, changed int) {
	w.t.Helper()
	all, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: site})
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, r := range all {
		if r.Number != number {
			continue
		}
		n++
		if r.State != "verified" || r.Late != 0 || r.Totals.Changed != int64(changed) {
			w.t.Errorf("run %s is %s: %+v", r.ID, r.State, r)
		}
		seen := map[string]int{}
		if err := w.core.Query.RunShow(w.t.Context(), r.ID.String(), true, func(query.RunDetail) error { return nil }, func(f record.File) error {
			if f.SHA256 != "" {
				seen[f.Path]++
			}
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
		if len(seen) != files {
			w.t.Errorf("run %s accounts for %d files of %d", r.ID, len(seen), files)
		}
		for path, k := range seen {
			if k != 1 {
				w.t.Errorf("run %s has %d outcomes of %s", r.ID, k, path)
			}
		}
	}
	if n != 1 {
		w.t.Errorf("the Core knows %d runs of release %d at %s", n, number, site)
	}
}

// nightAgent starts a real agent with a clock of its own. It returns what it has
// logged so far, and what stops it.
func (w *world) nightAgent(name string, now func() time.Time) (log func() string, stop func()) {
	w.t.Helper()
	var mu sync.Mutex
	var text strings.Builder
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{StateDir: filepath.Join(w.dir, "agents", name), Version: "test", Now: now, Retry: 200 * time.Millisecond, AckWait: 2 * time.Second,
			Log: func(n agent.Note) {
				line := fmt.Sprintf("agent %s: %s %s %v", name, n.Channel, n.Text, n.Err)
				w.note(line)
				mu.Lock()
				defer mu.Unlock()
				text.WriteString(line + "\n")
			}})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("agent %s: %v", name, err)
		}
	})
	w.t.Cleanup(stop)
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}, stop
}

// TestLentToTheEndOfTheNextWindow: a site whose window opens in days is lent
// URLs that are still good when it ends.
func TestLentToTheEndOfTheNextWindow(t *testing.T) {
	w := newWorldWith(t, nil, func(w *world) {
		day := strings.ToLower(time.Now().UTC().AddDate(0, 0, 4).Format("Mon"))
		w.settings.Fleet.Site("osaka").Placement("package").Windows = day + " 20:00-23:00"
	})
	w.write("a.txt", "alpha")
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	w.publish("package")
	osaka.stateOf("package", 1)
	tokyo.stateOf("package", 1)
	ends := time.Now().UTC().AddDate(0, 0, 4).Truncate(24 * time.Hour).Add(23 * time.Hour)
	until := func(s *wireSite) time.Time {
		t.Helper()
		u, err := s.ask("format")
		if err != nil || len(u.Lent) == 0 {
			t.Fatalf("%+v, %v", u, err)
		}
		return time.Unix(u.Until, 0)
	}
	if until := until(osaka); until.Before(ends) || until.After(time.Now().Add(7*24*time.Hour)) {
		t.Errorf("lent until %s, its next window ends on %s", until.UTC(), ends)
	}
	if until := until(tokyo); until.After(time.Now().Add(25 * time.Hour)) {
		t.Errorf("a site without windows is lent until %s", until.UTC())
	}
}
