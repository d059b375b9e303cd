//go:build !windows

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"nightferry/internal/testbed"
)

// TestInterrupted sends Ctrl-C and SIGTERM to a pull that is fetching: it ends
// with its own exit code and says how to go on, and the next one does.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	store := testbed.FileURL(filepath.Join(dir, "store"))
	nightferry := func(args ...string) *exec.Cmd {
		cmd := exec.Command("nightferry", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "NIGHTFERRY_STATE="+filepath.Join(dir, "state"))
		return cmd
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := nightferry(args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4<<20)
	seed := uint64(1)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 33)
	}
	if err := os.WriteFile(filepath.Join(src, "large"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	must("init", store)
	must("push", src, store, "image")
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := nightferry("--json", "pull", "--limit-rate", "100kB", store, "image", "site")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var last struct {
			Event, Phase, Remedy string
			Code                 int
		}
		sent := false
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			last.Event, last.Phase = "", ""
			if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
				t.Errorf("%q: %v", lines.Text(), err)
			}
			if last.Phase == "stage" && !sent {
				sent = true
				if err := cmd.Process.Signal(sig); err != nil {
					t.Error(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
			t.Errorf("%v: %v, want exit code %d", sig, err, exitInterrupted)
		}
		if last.Event != "error" || last.Code != exitInterrupted || last.Remedy == "" {
			t.Errorf("%v: the last line is %+v", sig, last)
		}
		if _, err := os.Lstat(filepath.Join(dir, "site", "large")); err == nil {
			t.Errorf("%v: part of a release is visible", sig)
		}
	}
	must("pull", store, "image", "site")
	must("verify", "site")
}
