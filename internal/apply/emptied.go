package apply

import (
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
)

// EmptiedError reports that a target which held a release has no record of it any
// more. As a rule its volume is not mounted. Nothing was written.
type EmptiedError struct{ Target, Channel string }

func (e *EmptiedError) Error() string {
	return fmt.Sprintf("target %q held a release of %q, and no record of that is left there", e.Target, e.Channel)
}

// Remedy tells what to do about it.
func (e *EmptiedError) Remedy() string {
	return "mount the target's volume; if the folder is meant to be filled anew, order that with --adopt"
}

// kept returns an EmptiedError if Options.Held promises a record that is gone. It
// must be called before anything is created in the target.
func kept(target string, o Options) error {
	if !o.Held || o.Adopt {
		return nil
	}
	there, err := has(target, memoryName)
	if err == nil && !there {
		err = &EmptiedError{Target: target, Channel: o.Channel}
	}
	return err
}

// has reports whether a target has a file, and creates nothing.
func has(target, name string) (bool, error) {
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
