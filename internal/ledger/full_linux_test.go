package ledger

import (
	"path/filepath"
	"testing"

	"nightferry/internal/disktest"
)

// A real full volume also affects the -wal and the -shm file; SQLite's own
// limit does not.
func TestFullVolume(t *testing.T) {
	dir := t.TempDir()
	disktest.Volume(t, dir, 4<<20)
	l := openAt(t, filepath.Join(dir, "ledger.db"), newClock())
	acked := fill(t, l, runID(1))
	if acked == 0 {
		t.Fatal("nothing was committed before")
	}
	disktest.Resize(t, dir, 64<<20)
	afterFull(t, l, runID(1), acked)
}
