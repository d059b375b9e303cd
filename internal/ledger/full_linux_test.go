package ledger

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A volume that is full for everybody: SQLite's own limit does not touch the
// -wal and the -shm, a full volume does.
func TestFullVolume(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	must(t, syscall.Mount("nightferry-test", dir, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	l := openAt(t, filepath.Join(dir, "ledger.db"), newClock())
	acked := fill(t, l, runID(1))
	if acked == 0 {
		t.Fatal("nothing was committed before")
	}
	must(t, syscall.Mount("nightferry-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
	afterFull(t, l, runID(1), acked)
}
