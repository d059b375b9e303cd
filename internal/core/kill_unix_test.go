//go:build unix

package core_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// childEnv makes this test binary a Core that is killed.
const childEnv = "NIGHTFERRY_TEST_CORE"

// childCore is what the child needs to know to be the world's Core.
type childCore struct {
	Data, StoreURL, Addr, Source, Dir string
	Master                            string
	Windows                           string // of osaka's packages
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := beCore(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func beCore(text string) error {
	var o childCore
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	master, err := vault.ParseMaster([]byte(o.Master))
	if err != nil {
		return err
	}
	ctx := context.Background()
	f := testFleet(o.Source, o.Dir)
	f.Site("osaka").Placement("package").Windows = o.Windows
	c, err := core.Open(ctx, core.Options{Data: o.Data, Master: master, StoreURL: o.StoreURL, Addr: o.Addr, Version: "test", Now: time.Now, Beat: 2 * time.Second},
		core.Settings{Fleet: f, Retention: ledger.Retention{Logs: 30 * 24 * time.Hour, Runs: 400 * 24 * time.Hour}})
	if err != nil {
		return err
	}
	go func() {
		<-c.Ready()
		fmt.Println("ready")
	}()
	return errors.Join(c.Run(ctx), c.Close())
}

// TestKilledWhileRendering kills a Core between the commit of a run's end and
// its log, and in the middle of that: afterwards there is one log of each run,
// and it is whole.
func TestKilledWhileRendering(t *testing.T) {
	w := newWorld(t, nil)
	const files = 1500
	for i := range files {
		w.write(fmt.Sprintf("d%d/%d.txt", i%7, i), "x")
	}
	w.publish("package")
	osaka := w.join("osaka")
	d := osaka.stateOf("package", 1)
	w.stop()
	child := w.child()
	outcomes := make([]wire.File, files)
	for i := range outcomes {
		outcomes[i] = wire.File{Outcome: runs.FileChanged, Ordinal: uint64(i), Held: 1}
	}
	rng := mrand.New(mrand.NewPCG(20260301, 1))
	rounds, early := 8, 0
	ids := map[string]bool{}
	for range rounds {
		kill := w.startChild(child)
		osaka.back()
		var run ledger.RunID
		rand.Read(run[:])
		ids[run.String()] = true
		osaka.deliver(osaka.events(run, d, outcomes, &wire.Finished{Verdict: "stopped", Error: "test", Totals: runs.Totals{Counts: runs.Counts{Changed: files}}}, nil))
		<-time.After(time.Duration(rng.IntN(120)) * time.Millisecond) // somewhere before, in or after the rendering
		kill()
		if len(w.logsOf(run.String())) == 0 {
			early++
		}
	}
	if early == 0 {
		t.Errorf("in %d rounds the log was always there before the kill", rounds)
	}
	t.Logf("%d of %d kills came before the log was there", early, rounds)
	w.start()
	w.untilRendered()
	runs, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
	if err != nil || len(runs) != rounds {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	if s := w.strays(); len(s) > 0 {
		t.Errorf("left over: %v", s)
	}
	for _, r := range runs {
		found := w.logsOf(r.ID.String())
		if !ids[r.ID.String()] || len(found) != 1 || r.Late != 0 {
			t.Errorf("run %s: %d logs, %d late events", r.ID, len(found), r.Late)
			continue
		}
		lines := strings.Split(strings.TrimSuffix(found[0], "\n"), "\n")
		if len(lines) != files+2 || !strings.Contains(lines[0], "nightferry_log") || !strings.Contains(lines[files+1], `"end"`) {
			t.Errorf("run %s: a log of %d lines, want %d: %s … %s", r.ID, len(lines), files+2, lines[0], lines[len(lines)-1])
		}
	}
}

// child describes the world's Core, for a process of its own.
func (w *world) child() childCore {
	return childCore{Data: w.options.Data, StoreURL: w.options.StoreURL, Addr: w.options.Addr, Source: w.source, Dir: w.dir, Master: hexOf(w.options.Master.Reveal())}
}

// startChild starts a Core as a process and returns what kills it, as SIGKILL
// does.
func (w *world) startChild(o childCore) (kill func()) {
	w.t.Helper()
	env, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		w.t.Fatalf("%q, %v, %s", line, err, &complaint)
	}
	return func() {
		w.t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			w.t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
}

// strays lists the files that are no logs.
func (w *world) strays() (all []string) {
	w.t.Helper()
	for name := range w.logs() {
		if !strings.HasSuffix(name, ".jsonl") {
			all = append(all, name)
		}
	}
	return all
}
