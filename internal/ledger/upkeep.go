package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nightferry/internal/durable"
)

// Backup writes a consistent copy of the ledger to path while other callers continue. path must not exist. The copy is
// complete or absent, and readable by its owner only.
func (l *Ledger) Backup(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up the ledger to %q: %w", path, classifyError(err))
		}
	}()
	root, err := durable.Open(filepath.Dir(path), durable.Options{})
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Base(path)
	if _, err := root.Lstat(name); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	part := name + ".part" // left by a killed backup, if anything
	for _, n := range []string{part, part + "-journal"} {
		if err := root.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	defer func() {
		if err != nil {
			if rm := root.Remove(part); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
	}()
	// SQLite uses an existing empty file and keeps its mode.
	f, err := os.OpenFile(filepath.Join(root.Dir(), part), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := openPool(l.db.path, l.db.vfs, "", 1) // a separate connection: the readers' must not write, and the writer's is busy
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", filepath.Join(root.Dir(), part))
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// VACUUM INTO does not sync its output.
	w, err := root.OpenRW(part)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := root.RenameNew(part, name); err != nil {
		return err
	}
	return root.SyncDir(".")
}

// Check reads the whole file and reports damage.
func (l *Ledger) Check(ctx context.Context) error {
	faults, err := queryAll(ctx, l.db.read, "check the ledger", func(s scanner, v *string) error { return s.Scan(v) },
		`SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'
		UNION ALL SELECT format('row %s of %s refers to nothing', rowid, "table") FROM pragma_foreign_key_check`)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("check the ledger %q: %q: restore a backup", l.db.path, faults)
	}
	return nil
}
