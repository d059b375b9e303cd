package core

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"nightferry/internal/disktest"
	"nightferry/internal/durable"
)

// TestReserveLasts: a Core starts ten times on a full volume, and each time another
// program takes what it leaves free. There is room to open the ledger each time.
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
		fillVolume(t, filepath.Join(path, "others."+strconv.Itoa(start)))
		if err := r.freeReserve(); err != nil {
			t.Fatal(err)
		}
		if free, err := dir.Free(); err != nil || free < reserveNeed {
			t.Fatalf("start %d has %d bytes, %v; want %d", start+1, free, err, reserveNeed)
		}
		if err := r.keepReserve(); err != nil {
			t.Fatal(err)
		}
	}
}

// fillVolume writes a file until the volume has no byte left.
func fillVolume(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; _, err = f.Write(make([]byte, size)) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}
