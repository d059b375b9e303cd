package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets this test program act as the small process that spawn starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == spawnFlag {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestSpawnTellsWhatACommandUsed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark runs on Linux only: it needs wait4's figures and syncfs")
	}
	// Grow this process first: a command's peak must not include that of the process that measures it.
	ballast := make([]byte, 200<<20)
	for i := range ballast {
		ballast[i] = 1
	}
	u, err := spawn(t.Context(), command{args: []string{"sh", "-c", "x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done"}})
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU <= 0 || u.Wall <= 0 || u.RSS <= 0 || u.RSS > 100<<20 {
		t.Errorf("usage = %+v, want times above zero and a peak of a few MiB", u)
	}
	runtime.KeepAlive(ballast)
	_, err = spawn(t.Context(), command{args: []string{"sh", "-c", "echo no such bucket >&2; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "exit code 3") || !strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("a failed command gives %v, want its exit code and what it said", err)
	}
}

func TestCounterCountsByKindAndByte(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(r.URL.Path, "absent") {
			w.WriteHeader(http.StatusNotFound)
		}
		if strings.HasSuffix(r.URL.Path, "denied") {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprint(w, "0123456789")
	}))
	defer server.Close()
	c := &counter{requests: map[string]int64{}}
	addr, wait, err := c.serve(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/b/key", ""}, {"GET", "/b/absent", ""}, {"GET", "/b/denied", ""}, {"HEAD", "/b/key", ""},
		{"PUT", "/b/key", "12345"}, {"GET", "/b/?list-type=2&prefix=x", ""}, {"GET", "/b?prefix=", ""}, {"GET", "/", ""},
	} {
		q, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+addr+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	want := traffic{Requests: map[string]int64{"GET": 3, "HEAD": 1, "PUT": 1, "LIST": 3}, Up: 5, Down: 70, Failed: 1}
	if diff := cmp.Diff(want, c.read()); diff != "" {
		t.Errorf("traffic (-want +got):\n%s", diff)
	}
}

func TestCheckSeesEveryDifference(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{a, b} {
		write(dir, "same", "x")
		write(dir, "d/same", "x")
	}
	write(a, "stale", "1")
	write(b, "stale", "2") // of the same size
	write(a, "missing", "")
	write(b, "extra", "")
	want, err := sumTree(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sumTree(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	v := compareSums(want, got)
	if diff := cmp.Diff(verdict{Files: 4, Missing: 1, Stale: 1, Extra: 1, Example: "stale"}, v); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if v.String() != "1 stale, 1 missing, 1 extra" || compareSums(want, want).String() != "identical" {
		t.Errorf("verdicts read %q and %q", v, compareSums(want, want))
	}
}

func TestEditIsTheSameEachTime(t *testing.T) {
	var trees []sums
	for range 2 {
		dir := t.TempDir()
		if err := manyFiles(filepath.Join(dir, "unpacked"), 200, 10, 300); err != nil {
			t.Fatal(err)
		}
		before, err := sumTree(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		done, err := edit(filepath.Join(dir, "unpacked"), 5)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"edited, same size": 15, "appended to": 5, "inserted into": 5, "deleted": 5, "renamed": 5, "moved to another folder": 10}
		if diff := cmp.Diff(want, done); diff != "" {
			t.Errorf("edits (-want +got):\n%s", diff)
		}
		after, err := sumTree(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if v := compareSums(before, after); v.Stale != 25 || v.Missing != 20 || v.Extra != 15 {
			t.Errorf("the edits leave %s", v)
		}
		trees = append(trees, after)
	}
	if diff := cmp.Diff(trees[0], trees[1]); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
}

func TestEditLeavesTheOlderTreeAlone(t *testing.T) {
	dir := t.TempDir()
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	if err := manyFiles(filepath.Join(v1, "unpacked"), 100, 10, 300); err != nil {
		t.Fatal(err)
	}
	if err := linkTree(v1, v2); err != nil {
		t.Fatal(err)
	}
	before, err := sumTree(t.Context(), v1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := edit(filepath.Join(v2, "unpacked"), 5); err != nil {
		t.Fatal(err)
	}
	after, err := sumTree(t.Context(), v1)
	if err != nil {
		t.Fatal(err)
	}
	if v := compareSums(before, after); !v.identical() {
		t.Errorf("editing v2 changed v1, whose files it is linked to: %s", v)
	}
}

func TestTargetsSayNothingThatWasNotMeasured(t *testing.T) {
	for _, w := range targets(&results{}) {
		if w.measured != "" || w.ok {
			t.Errorf("%s: %q is judged %q, %v with nothing measured", w.work, w.target, w.measured, w.ok)
		}
	}
}

func TestTargetsCompareOneRunOnly(t *testing.T) {
	r := &results{run: "one"}
	at := func(tool string, wall time.Duration) {
		r.add(result{Part: "corpus", Work: firstPush, Tool: tool, Usage: usage{Wall: wall}})
	}
	at("restic", 10*time.Second)
	at("rclone", 10*time.Second)
	at("nightferry", 3*time.Second)
	if got := targets(r)[:2]; got[0].measured != "0.30" || !got[0].ok || got[1].ok {
		t.Errorf("rows are %+v", got)
	}
	r.run = "two"
	at("nightferry", time.Second)
	if got := targets(r)[0]; got.measured != "" || got.ok {
		t.Errorf("a ratio over two runs is given: %+v", got)
	}
}

func TestBestPeerLeavesNothingStale(t *testing.T) {
	r := &results{run: "one"}
	for tool, wall := range map[string]time.Duration{"nightferry": 5, "restic": 20, "aws": 6} {
		for _, work := range []string{updatePush, updatePull} {
			r.add(result{Part: "corpus", Work: work, Tool: tool, Usage: usage{Wall: wall * time.Second}})
		}
		v := verdict{}
		if tool == "aws" {
			v.Stale = 551
		}
		r.judge("corpus", updatePull, tool, v)
	}
	for _, w := range targets(r) {
		if strings.Contains(w.target, "best peer") && (!w.ok || w.measured != "0.25 × restic") {
			t.Errorf("%s: %q, %v", w.work, w.measured, w.ok)
		}
	}
}

func TestReportKeepsTheNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docs", "benchmarks.md")
	if err := writeReport(path, &results{}, false, false); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noted := strings.Replace(string(text), "Not written yet.", "A third of it is SHA-256.", 1)
	if err := os.WriteFile(path, []byte(noted), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(path, &results{}, false, false); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if string(text) != noted {
		t.Errorf("writing the report again changed the notes:\n%s", cmp.Diff(noted, string(text)))
	}
}
