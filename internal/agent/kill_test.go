package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/wire"
)

// Environment of the child that TestMain becomes.
const (
	childDir   = "NIGHTFERRY_TEST_AGENT_DIR"
	childPoint = "NIGHTFERRY_TEST_AGENT_KILL"
	childAhead = "NIGHTFERRY_TEST_AGENT_AHEAD" // of its clock, as a time.Duration
)

// killer ends this process, as SIGKILL does, before the n-th operation after
// one that matches.
type killer struct {
	match func(durable.Op) bool
	after int
	seen  bool
}

func (k *killer) Before(op durable.Op) error {
	k.seen = k.seen || k.match(op)
	if !k.seen {
		return nil
	}
	if k.after--; k.after >= 0 {
		return nil
	}
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // until it has happened
}

const state = manifest.StateDir

// points are where the agent is killed: every moment at which apply's journal,
// the target and the spool disagree.
func points() map[string]func() *killer {
	at := func(after int, match func(durable.Op) bool) func() *killer {
		return func() *killer { return &killer{match: match, after: after} }
	}
	journal := func(op durable.Op) bool { return op.Kind == durable.Rename && op.To == state+"/journal" }
	placed := func(op durable.Op) bool {
		return op.Kind == durable.Rename && !strings.HasPrefix(op.To, state) && strings.HasPrefix(op.Name, state)
	}
	forget := func(op durable.Op) bool { return op.Kind == durable.Remove && op.Name == state+"/journal" }
	return map[string]func() *killer{
		"intended, no journal": at(0, journal),
		"journal, no change":   at(2, journal),
		"the first file":       at(1, placed),
		"in the burst":         at(40, placed),
		"before the record":    at(0, func(op durable.Op) bool { return op.Kind == durable.Rename && op.To == state+"/catalogue" }),
		"settled, a journal":   at(0, forget),
		"no journal":           at(1, forget),
		"staging": at(20, func(op durable.Op) bool {
			return strings.HasPrefix(op.Name, state+"/stage/") && op.Kind == durable.Create
		}),
	}
}

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	o := options(dir, func(f string, v ...any) { fmt.Fprintf(os.Stderr, f+"\n", v...) })
	if ahead, err := time.ParseDuration(os.Getenv(childAhead)); err == nil {
		o.Now = func() time.Time { return time.Now().Add(ahead) }
	}
	all := points()
	all["in a large file"] = func() *killer {
		return &killer{match: func(op durable.Op) bool {
			return op.Kind == durable.Write && strings.HasPrefix(op.Name, state+"/stage/")
		}, after: 100}
	}
	if k := all[os.Getenv(childPoint)]; k != nil {
		o.Observer = k()
	}
	if err := Run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// TestKilledAgentKeepsItsCount: the bytes that a killed attempt has fetched count in the run's end.
func TestKilledAgentKeepsItsCount(t *testing.T) {
	const size = 24 << 20
	w := newWorld(t)
	base := t.TempDir()
	target, dir := filepath.Join(base, "package"), w.enrolled(base)
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	image := map[string]string{"image.iso": string(content)}
	w.publish(image, target)
	w.killed(dir, "in a large file")
	d := w.start(dir, nil)
	w.await("end of the run", func() bool { return w.finished(0) != nil })
	d.end()
	w.same(target, image)
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.finished(0); f.Fetched < size-3*recordEvery || f.Held > 3*recordEvery {
		t.Errorf("fetched %d and found %d of %d bytes", f.Fetched, f.Held, size)
	}
}

// killed runs an agent that is killed at a point.
func (w *world) killed(dir, point string) {
	w.t.Helper()
	child := exec.CommandContext(w.t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir, childPoint+"="+point)
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 3 || exit.ExitCode() == 0 {
		w.t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// TestKilledAgentCountsEveryFileOnce kills a real agent at each point of its
// second run, starts it again, and looks at what the Core has been told.
func TestKilledAgentCountsEveryFileOnce(t *testing.T) {
	for name := range points() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			base := t.TempDir()
			target := filepath.Join(base, "package")
			dir := w.enrolled(base)
			first := tree(60, "one")
			d := w.start(dir, nil)
			w.publish(first, target)
			w.await("first run", func() bool { return w.finished(0) != nil })
			d.end()
			w.mu.Lock()
			before := len(w.events)
			w.mu.Unlock()

			second := tree(100, "one") // 40 added, and
			for i := range 30 {        // 30 changed, and
				f := fmt.Sprintf("d%d/f%03d.inf", i%7, i)
				second[f] = "two: " + second[f]
			}
			for i := 50; i < 60; i++ { // 10 deleted
				delete(second, fmt.Sprintf("d%d/f%03d.inf", i%7, i))
			}
			w.publish(second, target)
			w.killed(dir, name)
			d = w.start(dir, nil)
			w.await("end of the run", func() bool { return w.finished(1) != nil })
			d.end()
			w.same(target, second)

			w.mu.Lock()
			defer w.mu.Unlock()
			f := w.finished(1)
			if f.Verdict != "verified" || f.Added != 40 || f.Changed != 30 || f.Deleted != 10 || f.Repaired+f.Moved+f.Failed+f.Locked != 0 || f.Unchanged != 20+7 {
				t.Errorf("the run ends as %s: added %d, changed %d, deleted %d, repaired %d, unchanged %d, error %q",
					f.Verdict, f.Added, f.Changed, f.Deleted, f.Repaired, f.Unchanged, f.Error)
			}
			runs, seen := map[string]int{}, map[string]int{}
			for _, e := range w.events[before:] {
				runs[hex.EncodeToString(e.Run)]++
				if e.Kind != wire.OutcomesEvent {
					continue
				}
				all, err := wire.DecodeOutcomes(e.Body)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range all {
					seen[o.Path+"#"+strconv.FormatUint(o.Ordinal, 10)]++
				}
			}
			if len(runs) != 1 {
				t.Errorf("%d runs, want the one that was begun: %v", len(runs), runs)
			}
			for name, n := range seen {
				if n != 1 {
					t.Errorf("%s has %d outcomes", name, n)
				}
			}
			if len(seen) != 80 {
				t.Errorf("%d files have an outcome, want 80", len(seen))
			}
		})
	}
}
