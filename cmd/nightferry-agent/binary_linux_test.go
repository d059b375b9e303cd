package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOneSmallFile: the agent for Windows, built as the README says, stays below
// 25 MB, of 30 that are promised: what makes it jump, such as a package that
// calls methods by name, shows here. The one for Linux differs by some percent;
// it is not built here, since everything would have to be compiled once more.
func TestOneSmallFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.exe")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=windows", "GOARCH=amd64", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 25_000_000 {
		t.Errorf("%d bytes", info.Size())
	}
	t.Logf("%d bytes", info.Size())
}
