package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/durable"
	"nightferry/internal/testbed"
)

// TestBusy runs a pull and a push while another one is at work.
func TestBusy(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("NIGHTFERRY_STATE", filepath.Join(dir, "state"))
	store := testbed.FileURL(filepath.Join(dir, "store"))
	nightferry := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command("nightferry", args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%v: %v, want exit code %d\n%s", args, err, want, out)
		}
		return string(out)
	}
	if err := os.Mkdir("src", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("src/a", []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	nightferry(0, "init", store)
	nightferry(0, "push", "src", store, "package")
	nightferry(0, "pull", store, "package", "site")

	states, err := filepath.Glob(filepath.Join("state", "*", "push-package.lock"))
	if err != nil || len(states) != 1 {
		t.Fatalf("%v %v", states, err)
	}
	for _, c := range []struct {
		folder, lock string
		args         []string
	}{
		{"site", ".nightferry/lock", []string{"pull", store, "package", "site"}},
		{filepath.Dir(states[0]), "push-package.lock", []string{"push", "src", store, "package"}},
	} {
		root, err := durable.Open(c.folder, durable.Options{})
		if err != nil {
			t.Fatal(err)
		}
		unlock, err := durable.Lock(root, c.lock)
		if err != nil {
			t.Fatal(err)
		}
		if out := nightferry(9, c.args...); !strings.Contains(out, "in use by another process") {
			t.Errorf("%v says %s", c.args, out)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		nightferry(0, c.args...)
		if err := root.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
