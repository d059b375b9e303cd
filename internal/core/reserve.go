package core

import (
	"crypto/rand"
	"errors"
	"io/fs"

	"nightferry/internal/durable"
)

// The reserve is room that a Core needs to open its ledger and its vault, kept
// on their volume from the first start on. If the volume is full, the next start
// frees it, opens them, and takes the rest of it back.
const (
	reserveFile = "reserve"
	reserveSize = 8 << 20
	// reserveLeft stays free beside a reserve that does not fit whole.
	reserveLeft = 1 << 20
)

// reserve is that file in the data folder.
type reserve struct{ dir *durable.Root }

// freeReserve gives the reserve up if the volume is full.
func (r *reserve) freeReserve() error {
	free, err := r.dir.Free()
	if err != nil || free >= reserveSize/2 {
		return err
	}
	if err := r.dir.Remove(reserveFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepReserve makes the reserve, or makes it whole again when there is space.
func (r *reserve) keepReserve() error {
	var have int64
	switch info, err := r.dir.Lstat(reserveFile); {
	case err == nil:
		have = info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if have >= reserveSize {
		return nil
	}
	free, err := r.dir.Free()
	if err != nil {
		return err
	}
	size := min(reserveSize, free-reserveLeft)
	if have > 0 && free < 2*reserveSize || size < reserveLeft {
		return nil
	}
	b := make([]byte, size)
	rand.Read(b) // never fails (crypto/rand); a file system that compresses keeps no room for zeros
	return r.dir.WriteFile(reserveFile, b, 0o600)
}
