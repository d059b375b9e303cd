package core

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// The reserve is room that a Core needs to open its ledger and its vault, kept
// on their volume from the first start on. If the volume is full, the next start
// frees as much of it as that takes, opens them, and takes the rest back. It is
// several files, because a file can be neither freed nor taken back in part.
const (
	reserveFile  = "reserve." // and a number from 0
	reserveFiles = 8
	reserveSize  = 1 << 20 // of one file
	reserveNeed  = 4 << 20 // to open the ledger and the vault
	// reserveLeft stays free beside a reserve that does not fit whole. Other
	// writers take that at once, so a start on a full volume costs the reserve so much.
	reserveLeft = 128 << 10
)

// reserve is those files in the data folder.
type reserve struct{ dir *durable.Root }

func reserveName(i int) string { return fmt.Sprint(reserveFile, i) }

// freeReserve gives files up until there is room to open the ledger and the vault.
// It reports whether there was none without them.
func (r *reserve) freeReserve() (full bool, err error) {
	for i := range reserveFiles {
		if roomy, err := r.hasRoom(); err != nil || roomy {
			return i > 0, err
		}
		if err := r.dir.Remove(reserveName(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
	}
	return true, nil
}

// hasRoom reports whether the ledger and the vault can be opened without the reserve.
func (r *reserve) hasRoom() (bool, error) {
	free, err := r.dir.Free()
	return free >= reserveNeed, err
}

// keepReserve makes the files that are missing, as far as there is space.
func (r *reserve) keepReserve() error {
	for i := range reserveFiles {
		var have int64
		switch info, err := r.dir.Lstat(reserveName(i)); {
		case err == nil:
			have = info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if have >= reserveSize {
			continue // the usual case, looked at with each flush of the incidents
		}
		free, err := r.dir.Free()
		if err != nil {
			return err
		}
		size := min(reserveSize, free-reserveLeft)
		if size <= have || size < reserveLeft {
			continue
		}
		b := make([]byte, size)
		rand.Read(b) // never fails (crypto/rand); a file system that compresses keeps no room for zeros
		if err := r.dir.WriteFile(reserveName(i), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
