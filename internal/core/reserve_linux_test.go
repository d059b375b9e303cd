package core

import (
	"path/filepath"
	"strconv"
	"testing"

	"nightferry/internal/disktest"
	"nightferry/internal/durable"
)

// TestReserveLasts checks that a Core finds room to open its ledger in each of ten starts on a full volume, although
// another program takes all free space between them.
func TestReserveLasts(t *testing.T) {
	path := t.TempDir()
	disktest.Volume(t, path, 24<<20)
	dir, err := durable.Open(path, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r := &reserve{dir}
	if err := r.keepReserve(); err != nil {
		t.Fatal(err)
	}
	for start := range 10 {
		disktest.Fill(t, filepath.Join(path, "others."+strconv.Itoa(start)))
		if full, err := r.freeReserve(); err != nil || !full {
			t.Fatalf("full: %v, %v", full, err)
		}
		if free, err := dir.Free(); err != nil || free < reserveNeed {
			t.Fatalf("start %d has %d bytes, %v; want %d", start+1, free, err, reserveNeed)
		}
		if err := r.keepReserve(); err != nil {
			t.Fatal(err)
		}
	}
}
