//go:build linux

package gates

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the matrix into docs/threats.md anew")

// probeEnv is set when the test program runs as a probe under another account.
const probeEnv = "NIGHTFERRY_GATES_PROBE"

// built holds the paths of programs and documents. It is a package variable because only TestMain can build the
// programs once and remove them after the last test.
var built struct {
	bin     string // folder of the programs, with a copy of the test program that every account can run
	threats string // docs/threats.md
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(probeEnv); kind != "" {
		os.Exit(probe(kind, os.Args[1:]))
	}
	flag.Parse()
	code, err := build(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(run func() int) (code int, err error) {
	if built.threats, err = filepath.Abs("../../docs/threats.md"); err != nil {
		return 1, err
	}
	if built.bin, err = os.MkdirTemp("", "gates-bin-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built.bin)) }()
	if err := os.Chmod(built.bin, 0o755); err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", built.bin+string(filepath.Separator), "nightferry/cmd/nightferry", "nightferry/cmd/nightferry-agent")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(filepath.Join(built.bin, "probe"), self, 0o755); err != nil {
		return 1, err
	}
	return run(), nil
}
