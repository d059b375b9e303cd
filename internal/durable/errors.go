package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// The conditions that callers branch on.
var (
	// ErrLink: a symlink, junction or other reparse point stands in a path.
	ErrLink = errors.New("a link or reparse point stands in the path")
	// ErrBusy: another process holds the lock.
	ErrBusy = errors.New("in use by another process")
	// ErrLocked: another process has the file open in a way that forbids to
	// replace or delete it. Ask with [IsLocked], which also knows the system's
	// own errors.
	ErrLocked = errors.New("locked by another process")
	// ErrNotRegular: a file was asked for, and a folder, a pipe or a device has
	// the name.
	ErrNotRegular = errors.New("it is not a regular file")
	// ErrExposed: others can read a key file.
	ErrExposed = errors.New("others can read it")
)

// IsLocked reports whether err says that a file cannot be replaced or deleted
// now because another process uses it, so that trying later can succeed.
func IsLocked(err error) bool { return errors.Is(err, ErrLocked) || isLockedErrno(err) }

// Patiently repeats an act for three seconds while it meets a file that another
// process has open: Windows before Server 2019, and Wine, neither replace nor
// delete one that somebody reads, which takes a moment.
func Patiently(act func() error) error {
	const step, tries = 10 * time.Millisecond, 300
	for n := 1; ; n++ {
		err := act()
		if err == nil || n == tries || !IsLocked(err) {
			return err
		}
		time.Sleep(step)
	}
}

// IsDiskFull reports whether err says that the volume, or the account's quota
// on it, is full.
func IsDiskFull(err error) bool { return isFullErrno(err) }

// IsReadOnly reports whether err says that a volume is mounted, or protected,
// against writing.
func IsReadOnly(err error) bool { return isReadOnlyErrno(err) }

// wrap names the act and the thing once: os's own errors name a system call
// and the path again, which helps no reader.
func wrap(act, name string, err error) error {
	if err == nil {
		return nil
	}
	switch e := err.(type) {
	case *fs.PathError:
		err = e.Err
	case *os.LinkError:
		err = e.Err
	}
	return fmt.Errorf("%s %q: %w", act, name, err)
}
