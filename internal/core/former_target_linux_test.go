package core_test

import (
	"bytes"
	"os"
	"syscall"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/disktest"
)

// TestUnmountedTargetOfNewServer: a new server on which the target's volume is not mounted yet is not filled, because the
// former server's target had a volume of its own. With the volume, it is.
func TestUnmountedTargetOfNewServer(t *testing.T) {
	w := newWorld(t, nil)
	target := w.folder("osaka", "package")
	disktest.Volume(t, target, 16<<20)
	aside := w.folder("osaka", "aside")
	if err := os.Mkdir(aside, 0o755); err != nil {
		t.Fatal(err)
	}
	state, _ := w.held()
	move := func(from, to string) {
		t.Helper()
		if err := syscall.Mount(from, to, "", syscall.MS_MOVE, ""); err != nil {
			t.Fatal(err)
		}
	}
	for name, machine := range map[string][]byte{"the same machine": nil, "another machine": bytes.Repeat([]byte{7}, 16)} {
		move(target, aside)
		w.forgetAgent(state, true)
		stop := w.agent(state, func(o *agent.Options) { o.Machine = machine })
		w.untilEmptied(target)
		stop()
		move(aside, target)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if err := os.RemoveAll(target + "/.nightferry"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.txt", "d"} {
		if err := os.RemoveAll(target + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	w.forgetAgent(state, true)
	stop := w.agent(state, func(o *agent.Options) { o.Machine = bytes.Repeat([]byte{7}, 16) })
	w.untilCurrent(1, "osaka")
	stop()
}
