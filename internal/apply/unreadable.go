package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"nightferry/internal/durable"
)

// UnreadableError means that a target, or the record of the applied release in it, cannot be read: its disk fails, its
// share is stale, or the account has no access. Nothing is known of its content.
type UnreadableError struct {
	Target string
	Err    error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("target %q cannot be read: %v", e.Target, e.Err)
}

// Unwrap returns the cause.
func (e *UnreadableError) Unwrap() error { return e.Err }

// CheckReadable returns an UnreadableError if the target's list of files or its records cannot be read. It changes
// nothing but the rights of nightferry's own files. A target that does not exist passes, because a run may create it. On a dead share the system may block
// CheckReadable without end.
func CheckReadable(target string) error {
	root, err := durable.Open(target, durable.Options{Ours: stateDir})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(readList(root.Dir()), checkFolder(root))
		for _, name := range []string{memoryName, catalogueName} {
			err = errors.Join(err, readStart(root, name))
		}
		err = errors.Join(err, root.Close())
	}
	if err != nil {
		return &UnreadableError{target, err}
	}
	return nil
}

// readList reads the start of a folder's list of names.
func readList(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if _, err = f.Readdirnames(1); errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// readStart reads the first byte of a file, if there is one.
func readStart(root *durable.Root, name string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) || durable.IsBlocked(err) { // a run sets aside an entry that is not a file
		return nil
	}
	if err != nil {
		return err
	}
	if _, err = f.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
