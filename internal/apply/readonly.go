package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"nightferry/internal/durable"
	"nightferry/internal/kinds"
)

// ReadOnlyError means that a folder is on a volume that is mounted read-only or write-protected. Nothing was changed.
type ReadOnlyError struct {
	Dir string
	Err error
}

func (e *ReadOnlyError) Error() string {
	var no syscall.Errno // the system's own words, without the file that was tried
	if errors.As(e.Err, &no) {
		return fmt.Sprintf("target %q cannot be written: %v", e.Dir, no)
	}
	return fmt.Sprintf("target %q cannot be written: %v", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *ReadOnlyError) Unwrap() error { return e.Err }

// Remedy returns the advice for the operator.
func (e *ReadOnlyError) Remedy() string { return kinds.RunRemedy(e.Error()) }

// CheckWritable returns the error with which a run in a target would end because it cannot write there, or nil. It
// leaves nothing behind. For a target that a run would create, it looks at the folder above.
func CheckWritable(target string) error {
	dir := target
	root, err := durable.Open(dir, durable.Options{Ours: stateDir})
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		root, err = durable.Open(dir, durable.Options{})
	}
	if err != nil {
		return err
	}
	err = explainReadOnly(target, probeWritable(root))
	return errors.Join(err, root.Close())
}

// probeWritable makes and removes a file where a run makes its first one.
func probeWritable(root *durable.Root) error {
	dir := stateDir
	if _, err := root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		dir = "."
	}
	_, err := durable.ProbeTraits(root, dir)
	return err
}

// explainReadOnly returns a ReadOnlyError for an error of a read-only volume, and every other error unchanged.
func explainReadOnly(target string, err error) error {
	if err == nil || !durable.IsReadOnly(err) || errors.As(err, new(*ReadOnlyError)) {
		return err
	}
	return &ReadOnlyError{target, err}
}

// explainFailed explains the error of a run. The volume may have become read-only during the run; a folder inside the
// target may be another volume.
func explainFailed(root *durable.Root, target string, err error) error {
	if err == nil || !durable.IsReadOnly(err) || !durable.IsReadOnly(probeWritable(root)) {
		return err
	}
	return explainReadOnly(target, err)
}
