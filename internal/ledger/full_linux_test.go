package ledger

import (
	"path/filepath"
	"testing"

	"nightferry/internal/disktest"
)

// A volume that is really full also affects the -wal and -shm files; SQLite's own size limit does not.
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
