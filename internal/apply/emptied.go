package apply

import (
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// EmptiedError means that a target that held a release no longer has a record of it. The usual cause is a volume
// that is not mounted. Nothing was written.
type EmptiedError struct{ Target, Channel string }

func (e *EmptiedError) Error() string {
	return fmt.Sprintf("target %q held a release of %q, and no record of that is left there", e.Target, e.Channel)
}

// Remedy returns the advice for the operator.
func (e *EmptiedError) Remedy() string {
	return "mount the target's volume; if the folder is meant to be filled anew, order that with --adopt"
}

// checkKept returns an EmptiedError if Options.Held is set but the target has no record. Call it before anything is
// created in the target.
func checkKept(target string, o Options) error {
	if !o.Held || o.Adopt {
		return nil
	}
	there, err := hasRecord(target)
	if err == nil && !there {
		err = &EmptiedError{Target: target, Channel: o.Channel}
	}
	return err
}

// hasRecord reports whether a target has a record of a release. A run that was killed while it replaced a damaged
// memory leaves only the catalogue. hasRecord creates nothing.
func hasRecord(target string) (bool, error) {
	root, err := durable.Open(target, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := checkFolder(root); err != nil {
		return false, errors.Join(err, root.Close())
	}
	for _, name := range []string{memoryName, catalogueName} {
		if _, err = root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return err == nil, errors.Join(err, root.Close())
		}
	}
	return false, root.Close()
}

// checkFolder returns an error if something else than a folder has the name of nightferry's own folder in a target. It
// may be the site's own file.
func checkFolder(root *durable.Root) error {
	info, err := root.Lstat(stateDir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%w: %q in this target is nightferry's own folder, and is none here: rename it, then pull again", errNotFolder, stateDir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
