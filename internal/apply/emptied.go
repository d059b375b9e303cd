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
	there, err := hasFile(target, memoryName)
	if err == nil && !there {
		err = &EmptiedError{Target: target, Channel: o.Channel}
	}
	return err
}

// hasFile reports whether a target has a file. It creates nothing.
func hasFile(target, name string) (bool, error) {
	root, err := durable.Open(target, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = root.Lstat(name)
	err = errors.Join(err, root.Close())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
