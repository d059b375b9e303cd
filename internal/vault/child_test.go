package vault

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// runChildren runs the calling test in n concurrent processes.
func runChildren(t *testing.T, n int, env string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	type child struct {
		cmd *exec.Cmd
		out bytes.Buffer
	}
	all := make([]child, n)
	for i := range all {
		c := &all[i]
		c.cmd = exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
		c.cmd.Env = append(os.Environ(), env)
		c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range all {
		if err := all[i].cmd.Wait(); err != nil {
			t.Errorf("child %d: %v\n%s", i, err, all[i].out.Bytes())
		}
	}
}
