package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/record"
)

// writeLog writes a run's log as the Core does.
func writeLog(t *testing.T, dir, site string, files []record.File) {
	t.Helper()
	logs, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := logs.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := logs.Prepare(map[string]record.Access{"lab": {}}); err != nil {
		t.Fatal(err)
	}
	run := strings.Repeat("a", 32)
	w, err := logs.Create(record.Place{Domain: "lab", Site: site, Channel: simChannel, Date: time.Unix(0, 0), Run: run}, record.Header{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := w.Line(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(record.End{State: "verified"}); err != nil {
		t.Fatal(err)
	}
}

func TestCountLogsSeesWhatIsLostOrDoubled(t *testing.T) {
	dir := t.TempDir()
	sizes := []int64{10, 20, 30}
	line := func(name string, n int64) record.File {
		return record.File{Path: name, Outcome: "added", Size: n, Fetched: n}
	}
	a, b, c := line("file-00000.cab", 10), line("file-00001.cab", 20), line("file-00002.cab", 30)
	writeLog(t, dir, "whole", []record.File{a, b, c})
	writeLog(t, dir, "lost", []record.File{a, c})
	writeLog(t, dir, "doubled", []record.File{a, b, b, c})
	writeLog(t, dir, "wrong", []record.File{a, b, line("file-00002.cab", 31)})
	writeLog(t, dir, "cut", []record.File{a, b, c})
	cut, err := filepath.Glob(filepath.Join(dir, "lab", "cut", simChannel, "*", "*.jsonl"))
	if err != nil || len(cut) != 1 {
		t.Fatalf("the log to cut: %v, %v", cut, err)
	}
	text, err := os.ReadFile(cut[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.TrimSuffix(string(text), "\n")
	if err := os.WriteFile(cut[0], []byte(whole[:strings.LastIndex(whole, "\n")+1]), 0o640); err != nil {
		t.Fatal(err)
	}
	got, err := countLogs(dir, simChannel, sizes)
	if err != nil {
		t.Fatal(err)
	}
	for site, want := range map[string]int64{"whole": 3, "lost": 2, "doubled": 2, "wrong": 2, "cut": 0} {
		if got[site] != want {
			t.Errorf("%s: %d files told once, want %d", site, got[site], want)
		}
	}
}

func TestRelayCountsBothWays(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 5)
			_, _ = io.ReadFull(c, b)
			_, _ = c.Write([]byte("answer"))
			_ = c.Close()
		}
	}()
	r, err := startRelay(t.Context(), server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "answer" {
			t.Errorf("through the relay: %q, %v", b, err)
		}
		c.Close()
	}
	if up, down := r.up.Load(), r.down.Load(); up != 15 || down != 18 {
		t.Errorf("counted %d up and %d down, want 15 and 18", up, down)
	}
	// A connection that neither side closes must not keep the relay from
	// closing.
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

func TestFleetTargetsAreJudgedByTheirNumbers(t *testing.T) {
	for _, w := range fleetTargets(nil) {
		if w.measured != "" {
			t.Errorf("%s, %s: measured %q where nothing was", w.work, w.target, w.measured)
		}
	}
	good := fleetResult{
		Outcomes: 20_000, OutcomeWall: time.Second, OutcomeUp: 200_000, ChangeP99: time.Second, CorePeak: 300 << 20,
		Reals: 70, Identical: 70, Converge: time.Minute, AgentRSS: 40 << 20, AgentCPU: 0.001, IdleWire: 200,
	}
	bad := []fleetResult{good, good, good, good, good, good, good}
	bad[0].Lost = 1
	bad[1].ChangeP99++
	bad[2].CorePeak++
	bad[3].OutcomeUp = 200_001
	bad[4].Identical--
	bad[5].AgentCPU = 0.0011
	bad[6].IdleWire = 200.1
	for i, w := range fleetTargets(&good) {
		if !w.ok {
			t.Errorf("%s, %s: missed by %s", w.work, w.target, w.measured)
		}
		if w := fleetTargets(&bad[i])[i]; w.ok {
			t.Errorf("%s, %s: met by %s", w.work, w.target, w.measured)
		}
	}
}
