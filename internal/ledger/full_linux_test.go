package ledger

import (
	"path/filepath"
	"testing"

	"nightferry/internal/disktest"
)

// A volume that is full for everybody: SQLite's own limit does not touch the
// -wal and the -shm, a full volume does.
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
